"""The suggestions of range tests, against fastai's and torch-lr-finder's formulas on four curves, and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lrstudy.errors import InputError
from lrstudy.training.lr_suggestions import BY_LOSS, bounds, slide, smoothed, valley
from lrstudy.training.range_curve import SUGGESTIONS, Curve

CASES = json.loads((Path(__file__).parents[1] / "golden" / "golden_lr_suggestions.json").read_text())["cases"]
NAMES = {
    "steep": "steep",
    "minimum": "minimum_div10",
    "valley": "valley",
    "slide": "slide",
    "steepest": "steepest_by_index_gradient",
}


def curve(case) -> Curve:
    low, high, planned = case["start_lr"], case["end_lr"], case["num_it"]
    losses = case["raw_losses"][: case["stopped_after"]]
    return Curve(planned, tuple(low * (high / low) ** (k / planned) for k in range(len(losses))), tuple(losses))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_suggestions_are_those_of_the_golden_curves(case, name):
    of, kept = curve(case), slice(case["skip_start"], -case["skip_end"])
    suggested = BY_LOSS[name](np.array(of.rates)[kept], of.smoothed[kept])
    assert suggested == pytest.approx(case["expected"][NAMES[name]], rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_curve_suggests_the_same_with_two_digits(case):
    for name, golden in NAMES.items():
        assert curve(case).rate(name, "lr") == float(f"{case['expected'][golden]:.1e}")


def test_smoothing_weighs_like_an_exponential_mean_without_bias():
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2, 2, 2])
    assert smoothed([1.0, 3.0])[1] == pytest.approx((0.98 * 1 + 3) / 1.98)


def test_the_valley_lies_half_a_fall_before_its_end():
    """Of 5 4 3 9 2 1 0 the longest fall has six points and ends at 6: a third and a sixth of six after 6 - 6."""
    assert valley(np.arange(7.0), np.array([5.0, 4, 3, 9, 2, 1, 0])) == 0 + 2 + 1
    assert valley(np.arange(2.0), np.array([5.0, 4])) == 0


def test_a_slide_over_too_few_points_is_the_first_rate():
    assert slide(np.arange(1.0, 9), np.arange(8.0)) == 1.0


def test_smiths_bounds_are_where_accuracy_leaves_chance_and_where_it_first_falls():
    rates = np.arange(1.0, 11)
    accuracies = np.array([0.1, 0.1, 0.1, 0.4, 0.7, 0.8, 0.8, 0.8, 0.3, 0.1])
    found = bounds(rates, accuracies, chance=0.1, num_examples=1000)
    assert found == (3.0, 7.0, True)  # means of three: 0.2 at 3, 0.8 at 7, 0.63 at 8


def test_smiths_upper_bound_is_the_highest_point_where_accuracy_never_falls():
    found = bounds(np.arange(1.0, 5), np.array([0.1, 0.3, 0.5, 0.6]), chance=0.1, num_examples=1000)
    assert found is not None
    assert (found.high, found.falls) == (4.0, False)


def test_a_dip_within_two_standard_errors_is_no_fall():
    accuracies = np.array([0.1, 0.5, 0.48, 0.5, 0.6, 0.6, 0.6])
    found = bounds(np.arange(1.0, 8), accuracies, chance=0.1, num_examples=100)
    assert found is not None
    assert not found.falls


def test_accuracy_that_stays_at_chance_has_no_bounds():
    assert bounds(np.arange(1.0, 5), np.full(4, 0.1), chance=0.1, num_examples=100) is None


def refusal(of: Curve, name: str = "valley") -> str:
    with pytest.raises(InputError) as caught:
        of.rate(name, "arms.clr.lr")
    return str(caught.value)


def test_a_test_that_diverges_at_its_first_rate_says_why():
    data = refusal(Curve(100, (1e-7,), ()))
    assert data.startswith("arms.clr.lr: the range test diverged at its first rate, 1e-07: the loss of the first batch")
    assert "normalisation" in data
    low = refusal(Curve(100, (1e3, 1.2e3), (2.3,)), "smith")
    assert "diverged at its first rate, 1e+03: after its first update" in low
    risen = refusal(Curve(100, (1e3, 1.2e3), (2.3, 1e5)))
    assert "diverged at its first rate, 1e+03: its first update raised the loss from 2.3 to 1e+05" in risen
    assert "Begin lower (low)." in low


def test_a_test_that_ends_too_soon_is_refused():
    text = refusal(Curve(100, tuple(np.geomspace(1, 2, 15)), tuple(np.linspace(2, 9, 15))))
    assert "after 15 of 100 updates, at a rate of 2: too few" in text
    assert "the first 10 and the last 5 do not count" in text


def test_a_loss_that_only_rises_is_refused():
    text = refusal(Curve(40, tuple(np.geomspace(1, 2, 40)), tuple(np.linspace(2, 3, 40))))
    assert "the loss is never lower than at the first" in text


def test_accuracy_at_chance_is_refused():
    text = refusal(Curve(2, (0.1, 0.2), (1.0, 1.0), (1, 2), (0.5, 0.5), 0.5, 100), "smith")
    assert "stayed at chance (0.5) up to a rate of 0.2" in text


def test_all_suggestions_leave_out_what_a_curve_cannot_give():
    found = curve(CASES[0]).suggestions()
    assert set(found) == set(SUGGESTIONS) - {"smith"}


def test_a_curve_survives_json():
    of = Curve(4, (0.1, 0.2, 0.4), (1.0, 0.5), (2,), (0.5,), 0.1, 10)
    assert Curve.of_json(json.loads(json.dumps(of.to_json()))) == of
    assert of.diverged
    with pytest.raises(ValueError, match="as many losses"):
        Curve.of_json({**of.to_json(), "losses": [1.0] * 9})
    with pytest.raises(ValueError, match="not finite"):
        Curve.of_json({**of.to_json(), "chance": 0, "losses": [float("nan"), 1.0]})
