"""Splits: exact counts, fixed by the seed, nobody in two parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrstudy.data.spec import SplitSpec
from lrstudy.data.splits import split
from lrstudy.errors import InputError

POOL, VALIDATION, TEST = 0, 1, 2


def labelled(*sizes):
    """Labels with so many examples per class, interleaved by a fixed shuffle, and parts all in the pool."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(7).permutation(labels), np.zeros(sum(sizes), np.uint8)


def counts(labels, indices, num_classes):
    return np.bincount(labels[indices], minlength=num_classes).tolist()


def fault(labels, part, spec, subset=None, classes=()):
    with pytest.raises(InputError) as caught:
        split(labels, part, spec, subset, classes)
    return str(caught.value)


def test_stratified_counts_follow_the_largest_remainder():
    labels, part = labelled(50, 30, 17, 3)
    parts = split(labels, part, SplitSpec(test=0.2, validation=0.25))
    # by hand: 20 of 100 is 10, 6, 3.4, 0.6 -> 10, 6, 3, 1
    assert counts(labels, parts.test, 4) == [10, 6, 3, 1]
    # 20 of 80 is 10, 6, 3.5, 0.5 -> a tie, which goes to the earlier class
    assert counts(labels, parts.validation, 4) == [10, 6, 4, 0]
    assert counts(labels, parts.train, 4) == [30, 18, 10, 2]


def test_random_ignores_classes_and_keeps_the_total():
    labels, part = labelled(500, 100)
    parts = split(labels, part, SplitSpec(test=60, validation=0.5, by="random"))
    assert (len(parts.test), len(parts.validation), len(parts.train)) == (60, 270, 270)
    other = split(labels[::-1], part, SplitSpec(test=60, validation=0.5, by="random"))
    np.testing.assert_array_equal(parts.train, other.train)


def test_the_split_of_a_seed_never_changes():
    """Golden: from the raw stream of PCG64, which NumPy keeps across versions."""
    labels, part = np.array([1, 0, 1, 0, 0, 1, 0, 0, 0, 1]), np.zeros(10, np.uint8)
    parts = split(labels, part, SplitSpec(test=2, validation=3, seed=0))
    assert parts.test.tolist() == [1, 2]
    assert parts.validation.tolist() == [6, 7, 9]
    assert parts.train.tolist() == [0, 3, 4, 5, 8]
    assert parts.digest == "90e3f9f572aae131a5b3b1c727bff163"


def test_seeds_differ_and_the_digest_says_so():
    labels, part = labelled(60, 40)
    one, same, other = (split(labels, part, SplitSpec(test=0.2, seed=seed)) for seed in (1, 1, 2))
    assert one.digest == same.digest != other.digest
    assert one.train.tolist() == same.train.tolist() != other.train.tolist()


@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=6),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
    st.sampled_from(["stratified", "random"]),
    st.integers(-5, 5),
)
def test_parts_are_disjoint_sorted_and_complete(sizes, test, validation, by, seed):
    labels, part = labelled(*sizes)
    try:
        parts = split(labels, part, SplitSpec(test, validation, by, seed))
    except InputError:
        return  # a part would be empty, or a class without training examples
    everyone = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(everyone) == list(range(len(labels)))
    for indices in (parts.train, parts.validation, parts.test):
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()
    assert len(parts.test) == round(test * len(labels))
    if by == "stratified":
        quota = np.array(sizes) * len(parts.test) / len(labels)
        # 1: largest remainder gives the floor or one more; the exception for last examples keeps to that
        assert (np.abs(counts(labels, parts.test, len(sizes)) - quota) <= 1).all()


def test_given_parts_are_taken_as_they_are():
    labels, part = np.tile([0, 1], 10), np.repeat([POOL, VALIDATION, TEST], [12, 4, 4]).astype(np.uint8)
    parts = split(labels, part, SplitSpec(test="given", validation="given"))
    assert parts.train.tolist() == list(range(12))
    assert parts.validation.tolist() == list(range(12, 16))
    assert parts.test.tolist() == list(range(16, 20))


def test_a_given_part_that_is_drawn_instead_returns_to_the_pool():
    labels, part = np.tile([0, 1], 10), np.repeat([POOL, VALIDATION, TEST], [12, 4, 4]).astype(np.uint8)
    parts = split(labels, part, SplitSpec(test=0.25, validation="given"))
    assert len(parts.test) == 4  # of the 16 that do not validate
    assert parts.validation.tolist() == list(range(12, 16))
    parts = split(labels, part, SplitSpec(test="given", validation=0.25))
    assert (len(parts.validation), len(parts.train)) == (4, 12)


def test_a_subset_leaves_the_test_part_alone_and_lies_within_larger_ones():
    labels, part = labelled(300, 100)
    whole = split(labels, part, SplitSpec(test=100))
    kept = {}
    for subset in (50, 100, 200):
        for by in ("stratified", "random"):
            parts = split(labels, part, SplitSpec(test=100, by=by), subset)
            kept[subset, by] = set(parts.train) | set(parts.validation)
            assert len(kept[subset, by]) == subset
            assert len(parts.validation) == round(0.15 * subset)
        stratified = split(labels, part, SplitSpec(test=100), subset)
        assert stratified.test.tolist() == whole.test.tolist()
        assert counts(labels, [*kept[subset, "stratified"]], 2) == [subset * 3 // 4 + (subset == 50), subset // 4]
    assert kept[50, "random"] < kept[100, "random"] < kept[200, "random"]
    assert len(kept[50, "stratified"] - kept[100, "stratified"]) <= 2  # at most one per class


def test_a_subset_thins_a_given_validation_part_in_proportion():
    labels, part = np.tile([0, 1], 50), np.repeat([POOL, VALIDATION], [80, 20]).astype(np.uint8)
    parts = split(labels, part, SplitSpec(test=0.25, validation="given"), subset=40)
    assert (len(parts.train), len(parts.validation)) == (30, 10)


def test_a_class_of_one_trains_and_is_absent_from_validation():
    labels, part = labelled(8, 8, 1)
    parts = split(labels, part, SplitSpec(test=9, validation=2))
    # 9 of 17 is 4.2, 4.2, 0.5: the largest remainder is the class of one, whose last example stays
    assert counts(labels, parts.test, 3) == [5, 4, 0]
    assert counts(labels, parts.train, 3)[2] == 1


@pytest.mark.parametrize(
    ("spec", "subset", "expected"),
    [
        (SplitSpec(), None, "split.test: the data gives no test part; write a fraction or a count instead of"),
        (SplitSpec(), None, "such as `split.test: 0.2`."),
        (SplitSpec(0.2, "given"), None, "such as `split.validation: 0.15`."),
        (SplitSpec(1.5), None, "split.test: expected a fraction between 0 and 1, exclusive; got 1.5."),
        (SplitSpec(0.2, 1.0), None, "split.validation: expected a fraction between 0 and 1, exclusive; got 1.0"),
        (SplitSpec(float("nan")), None, "exclusive; got nan"),
        (SplitSpec(0), None, "split.test: expected a count of at least 1; got 0."),
        (SplitSpec(True), None, "expected a fraction, a count or 'given'; got True."),
        (SplitSpec(100), None, "split.test: 100 asks for 100 of 100 examples; expected 1 to 99."),
        (SplitSpec(0.2, 90), None, "split.validation: 90 asks for 90 of 80 examples; expected 1 to 79."),
        (SplitSpec(0.001), None, "split.test: 0.001 asks for 0 of 100 examples; expected 1 to 99."),
        (SplitSpec(0.2), 81, "subset: 81 asks for 81 of 80 examples; expected 1 to 80."),
        (SplitSpec(0.2), 1, "subset: expected at least 2 examples; got 1."),
        (SplitSpec(0.2, by="group"), None, "split.by: group needs a column of groups"),
    ],
)
def test_faults_name_field_value_and_range(spec, subset, expected):
    assert expected in fault(*labelled(60, 40), spec, subset)


def test_faults_are_reported_together():
    message = fault(*labelled(60, 40), SplitSpec(2.0, -1), 0)
    assert [line.split(":")[0] for line in message.splitlines()] == [
        "split.test",
        "split.validation",
        "subset",
    ]


def test_a_class_that_only_tests_is_a_fault():
    labels = np.array([0, 0, 1, 1, 0, 1, 2])
    part = np.array([0, 0, 0, 0, 2, 2, 2], np.uint8)
    message = fault(labels, part, SplitSpec(validation=1), classes=("cat", "dog", "eel"))
    assert message.startswith("split: 1 of 3 classes have no training example ('eel'); take less")


def test_a_subset_without_validation_is_a_fault():
    labels, part = np.tile([0, 1], 50), np.repeat([POOL, VALIDATION], [98, 2]).astype(np.uint8)
    message = fault(labels, part, SplitSpec(0.2, "given"), subset=4)
    assert message == "subset: no example of the given validation part is left; raise it."
