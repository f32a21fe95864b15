"""Settings: rounding, what may be in them, and that their name knows every field."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from lrstudy.settings import Recipe, Settings, canonical_json, rounded

BASE = Settings(np.full((3, 2), 0.1), 0.9, 32)

OTHER_RECIPE = {
    "beta2": 0.99,
    "eps": 1e-6,
    "alpha": 0.9,
    "optimizer": "adam",
    "nesterov": True,
    "weight_decay": 1e-4,
    "loss": "focal",
    "class_weights": (1.0, 2.0),
    "clip_norm": 1.0,
    "augment": "flip",
    "trainable": (False, True),
    "batchnorm": "frozen",
    "norm_batch": 32,
    "micro_batch": 16,
    "reset_optimizer": True,
    "input": "features",
    "tail": "drop",
}
"""For every field of Recipe a value other than its default; a new field fails here until it is added."""

realistic = st.floats(min_value=1e-12, max_value=1e6)


@tried(deadline=None)
@given(value=realistic, sign=st.sampled_from([1.0, -1.0]))
@example(value=9.999999999, sign=1.0)
@example(value=1e-12, sign=1.0)
@example(value=1e6, sign=-1.0)
@example(value=0.1 + 0.2, sign=1.0)
def test_rounding_agrees_with_decimal_formatting(value: float, sign: float) -> None:
    got = float(rounded(sign * value))
    want = float(f"{sign * value:.8e}")
    # Decimal formatting decides ties on the exact value, we on the scaled one: a value within 1e-7 of a
    # tie may go to the other neighbour. Everything else must be equal to the last bit.
    digits = value / 10.0 ** np.floor(np.log10(value)) * 1e8
    near_tie = abs(digits % 1 - 0.5) < 1e-6
    assert got == want or (near_tie and abs(got - want) <= 1.1e-8 * abs(want))


@tried(deadline=None)
@given(st.lists(realistic, min_size=1, max_size=20))
def test_rounding_twice_changes_nothing(values: list[float]) -> None:
    once = rounded(values)
    assert rounded(once).tobytes() == once.tobytes()


def test_rounding_is_elementwise_and_leaves_its_argument_alone() -> None:
    values = np.array([[1 / 3, 2e5 / 3], [0.0, 1e-12 / 7]])
    before = values.copy()
    assert rounded(values).tolist() == [[0.333333333, 66666.6667], [0.0, 1.42857143e-13]]
    assert (values == before).all()


@pytest.mark.parametrize("zero", [-0.0, 1e-290, -1e-290])
def test_zeros_have_one_sign_and_one_name(zero: float) -> None:
    assert rounded(zero).tobytes() == bytes(8)
    assert Settings([zero], 0.0, 1).digest == Settings([0.0], 0.0, 1).digest


def test_rounding_lets_non_finite_values_pass() -> None:
    assert np.isnan(rounded(np.nan))
    assert rounded([np.inf, -np.inf]).tolist() == [np.inf, -np.inf]


def test_canonical_bytes_are_scalars_then_little_endian_arrays() -> None:
    scalars, arrays = BASE.canonical.split(b"\n", 1)
    assert scalars == (
        b'{"alpha":null,"augment":"none","batch_size":32,"batchnorm":"train","beta2":null,"class_weights":null,'
        b'"clip_norm":null,"eps":null,"input":"images","loss":"cross_entropy","micro_batch":null,"nesterov":false,"norm_batch":null,'
        b'"optimizer":"sgd","reset_optimizer":false,"shape":[3,2],"tail":"keep","trainable":[],"weight_decay":0.0}'
    )
    assert np.frombuffer(arrays, "<f8").tolist() == [0.1] * 6 + [0.9] * 6


@pytest.mark.parametrize("name", [f.name for f in fields(Recipe)])
def test_every_field_of_the_recipe_changes_the_digest(name: str) -> None:
    other = replace(BASE.recipe, **{name: OTHER_RECIPE[name]})
    assert replace(BASE, recipe=other).digest != BASE.digest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", np.full((3, 2), 0.2)),
        ("lr", np.full((2, 3), 0.1)),
        ("lr", np.full((6, 1), 0.1)),
        ("momentum", 0.8),
        ("batch_size", 33),
        ("recipe", Recipe(nesterov=True)),
    ],
)
def test_every_field_of_the_settings_changes_the_digest(name: str, value: object) -> None:
    assert {f.name for f in fields(Settings)} == {"lr", "momentum", "batch_size", "recipe"}
    other = replace(BASE, momentum=0.9, **{name: value}) if name == "lr" else replace(BASE, **{name: value})
    assert other.digest != BASE.digest
    assert other != BASE


@pytest.mark.parametrize("where", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("name", ["lr", "momentum"])
def test_a_single_entry_of_an_array_changes_the_digest(name: str, where: tuple[int, int]) -> None:
    array = getattr(BASE, name).copy()
    array[where] *= 1 + 1e-8
    assert replace(BASE, **{name: array}).digest != BASE.digest


def test_ninth_digit_counts_and_tenth_does_not() -> None:
    def name(lr: float) -> str:
        return Settings([lr], 0.9, 32).digest

    assert name(0.1000000004) == name(0.1)
    assert name(0.100000001) != name(0.1)


def test_equal_numbers_of_other_kinds_have_one_name() -> None:
    """A study file may write `weight_decay: 0`; it once named other states than 0.0."""
    assert Settings([0], 0, 1, Recipe(weight_decay=0)).digest == Settings([0.0], 0.0, 1, Recipe()).digest
    floats, integers = (Recipe(clip_norm=n, class_weights=(n, n)) for n in (1.0, 1))
    assert Settings([1], 0, 1, integers) == Settings([1.0], 0.0, 1, floats)
    assert hash(integers) == hash(floats)


@pytest.mark.parametrize(("budget", "updates"), [(3, 7), (6, 32), (30, 16), (30, 25), (45, 11)])
def test_two_forms_of_one_cosine_have_one_name(budget: int, updates: int) -> None:
    """k / T and p / E differ in the 16th digit; with 12 digits 17 of 40 runs missed shared epochs."""
    unlike = 0
    for epoch in range(budget):
        k = np.arange(epoch * updates, (epoch + 1) * updates)
        p = epoch + np.arange(updates) / updates
        by_step = 0.1 * 0.5 * (1 + np.cos(np.pi * k / (budget * updates)))
        by_epoch = 0.05 * np.cos(p / budget * np.pi) + 0.05
        unlike += by_step.tobytes() != by_epoch.tobytes()
        assert Settings(by_step, 0.9, 32).digest == Settings(by_epoch, 0.9, 32).digest
    assert unlike > 0, "the forms must differ for the test to say anything"


@pytest.mark.parametrize("lr", [-0.1, np.nan, np.inf])
def test_a_bad_rate_is_refused_with_its_update(lr: float) -> None:
    with pytest.raises(ValueError, match=r"lr must be finite and >= 0; update 2 has \[0.1, (-0.1|nan|inf)\]"):
        Settings([[0.1, 0.1], [0.1, 0.1], [0.1, lr]], 0.9, 32)


@pytest.mark.parametrize("shape", [(0,), (0, 2), (2, 0), (1, 2, 3)])
def test_a_wrong_shape_of_rates_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"lr must have shape \(updates, sections\), both >= 1; got"):
        Settings(np.full(shape, 0.1), 0.9, 32)


def test_momentum_that_does_not_fit_the_rates_is_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        Settings(np.full((3, 2), 0.1), np.full((4, 2), 0.9), 32)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, np.nan, 0.9999999999])
def test_a_momentum_outside_the_range_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\); got"):
        Settings([0.1], momentum, 32)


@pytest.mark.parametrize("batch_size", [0, -1, 32.0, True, "32", np.int64(32)])
def test_a_bad_batch_size_is_refused(batch_size: object) -> None:
    with pytest.raises(ValueError, match="batch_size must be a whole number >= 1; got"):
        Settings([0.1], 0.9, batch_size)


def test_settings_are_read_only_and_apart_from_what_they_were_made_of() -> None:
    lr = np.full(3, 0.1)
    made = Settings(lr, 0.9, 32)
    lr[0] = 5.0
    assert made.lr[:, 0].tolist() == [0.1, 0.1, 0.1]
    with pytest.raises(ValueError, match="read-only"):
        made.lr[0, 0] = 1.0


def test_canonical_json_keeps_integers_and_floats_apart_and_rounds() -> None:
    assert canonical_json({"b": 1 / 3, "a": [1, 1.0, True, None]}) == b'{"a":[1,1.0,true,null],"b":0.333333333}'


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), (object(), TypeError)])
def test_canonical_json_refuses_what_it_cannot_name(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        canonical_json([value])


def test_constants_that_are_left_out_are_torchs_and_named_so() -> None:
    """Whether a study file writes a default out or not, it is the same training."""
    assert Recipe(optimizer="adam") == Recipe(optimizer="adam", beta2=0.999, eps=1e-8)
    assert Recipe(optimizer="rmsprop") == Recipe(optimizer="rmsprop", alpha=0.99, eps=1e-8)
    assert Recipe(optimizer="rmsprop_keras") == Recipe(optimizer="rmsprop_keras", alpha=0.9, eps=1e-7)
    assert Recipe(optimizer="sgd").beta2 is None
    assert Recipe(optimizer="adam").alpha is None
