"""Durations, milestones and the number of updates."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from lrstudy.errors import InputError
from lrstudy.policies.durations import count_passed, in_epochs, to_whole_epoch
from lrstudy.policies.run import count_updates


@pytest.mark.parametrize(
    ("duration", "epochs"),
    [
        (3, 3),
        (2.5, Fraction(5, 2)),
        (0, 0),
        ("4", 4),
        ("30%", 9),
        ("12.5%", Fraction(15, 4)),
        ("100/7%", Fraction(30, 7)),
        ("4000u", 400),
        ("1u", Fraction(1, 10)),
        (0.1, Fraction(1, 10)),
    ],
)
def test_a_duration_in_epochs(duration: object, epochs: Fraction) -> None:
    assert in_epochs(duration, 30, 10) == epochs


@pytest.mark.parametrize("duration", [True, "", "%", "u", "x", "1.5u", "1/0%", -1, "-5%", "-1u", math.nan, math.inf])
def test_what_is_no_duration_is_refused(duration: object) -> None:
    with pytest.raises(ValueError) as caught:
        in_epochs(duration, 30, 10)
    assert str(caught.value) == (
        f"expected a duration: epochs (3), a fraction of the budget ('30%') or updates ('4000u'); got {duration!r}"
    )


@pytest.mark.parametrize(("duration", "epoch"), [(2.5, 3), (2.4, 2), ("50%", 4), ("4u", 0), ("5u", 1)])
def test_a_milestone_rounds_to_the_nearest_epoch_halves_up(duration: object, epoch: int) -> None:
    assert to_whole_epoch(duration, 7, 10) == epoch


def test_milestones_count_repeats_and_need_no_order() -> None:
    assert [count_passed([3, 1, 3, 9, 0], epoch, 6, 10) for epoch in range(6)] == [1, 2, 2, 4, 4, 4]


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "updates"),
    [(10, 5, 2), (11, 5, 2), (12, 5, 3), (4, 5, 1), (1, 5, 1), (3, 1, 3), (6, 5, 1), (1, 1, 1)],
)
def test_updates_of_an_epoch_merge_a_tail_of_one(num_examples: int, batch_size: int, updates: int) -> None:
    assert count_updates(num_examples, batch_size) == updates


def test_dropping_the_tail_leaves_whole_batches_and_at_least_one() -> None:
    assert [count_updates(n, 5, "drop") for n in (5, 9, 10, 11)] == [1, 1, 2, 2]
    with pytest.raises(
        InputError, match="batch_size: expected at most the 4 training examples where the tail is dropped"
    ):
        count_updates(4, 5, "drop")
