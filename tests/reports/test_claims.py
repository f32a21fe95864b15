"""Verdicts on claims, and how many seeds would decide: worked by hand, and against textbook sample sizes."""

from __future__ import annotations

import math

import pytest

from lrstudy_reports.claims import MOST_SEEDS, Claim, holds_size, judge_claim, parse_claims, seeds_needed
from lrstudy_reports.statistics import Interval, mean_interval

NAN = math.nan


def claim(measure: str, **values) -> Claim:
    return Claim(text="so", measure=measure, arm="a", **values)


def interval(low: float, high: float) -> Interval:
    """An interval of five values: t(4) is 2.7764, so the standard deviation is half the width x sqrt(5) / 2.7764."""
    return Interval((low + high) / 2, low, high, (high - low) / 2 * math.sqrt(5) / 2.7764, 5)


NO_INTERVAL = Interval(0.3, NAN, NAN, NAN, 1)
EXACT = Interval(0.3, 0.3, 0.3, 0.0, 5)


@pytest.mark.parametrize(
    ("side", "low", "high", "verdict"),
    [
        (1, 0.01, 0.05, "supported"),
        (1, -0.05, -0.01, "contradicted"),
        (1, -0.01, 0.05, "undecided"),
        (-1, -0.05, -0.01, "supported"),
        (-1, 0.01, 0.05, "contradicted"),
        (-1, -0.05, 0.01, "undecided"),
        (1, 0.0, 0.05, "undecided"),
    ],
)
@pytest.mark.parametrize("measure", ["difference", "cost_ratio"])
def test_the_direction_decides_a_difference_and_a_ratio(measure, side, low, high, verdict):
    assert judge_claim(claim(measure, side=side), interval(low, high), 0.05) == verdict


@pytest.mark.parametrize(
    ("expected", "bound", "verdict"),
    [
        (0.93, None, "supported"),
        (0.95, None, "supported"),
        (0.90, None, "contradicted"),
        (0.96, None, "contradicted"),
        (0.90, "at least", "supported"),
        (0.93, "at least", "undecided"),
        (0.96, "at least", "contradicted"),
        (0.96, "at most", "supported"),
        (0.93, "at most", "undecided"),
        (0.90, "at most", "contradicted"),
        (0.0, None, "contradicted"),
    ],
)
def test_a_value_is_supported_where_the_interval_holds_it_or_keeps_to_its_bound(expected, bound, verdict):
    assert judge_claim(claim("value", expected=expected, bound=bound), interval(0.92, 0.95), 0.05) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.009, 0.009, "supported"),
        (0.001, 0.009, "supported"),  # a real difference, but within the margin
        (-0.009, 0.011, "undecided"),
        (0.009, 0.03, "undecided"),
        (0.011, 0.03, "contradicted"),
        (-0.03, -0.011, "contradicted"),
    ],
)
def test_equal_is_supported_within_the_margin_and_contradicted_wholly_outside(low, high, verdict):
    assert judge_claim(claim("equal", margin=0.01), interval(low, high), 0.05) == verdict


@pytest.mark.parametrize("measure", ["difference", "cost_ratio", "value", "equal"])
def test_one_seed_decides_nothing(measure):
    assert judge_claim(claim(measure, side=1, expected=0.3, margin=0.5), NO_INTERVAL, 0.05) == "undecided"


def test_a_cost_that_is_known_exactly_is_on_one_side_or_the_other():
    assert judge_claim(claim("cost_ratio", side=1), EXACT, 0.05) == "supported"
    assert judge_claim(claim("cost_ratio", side=-1), EXACT, 0.05) == "contradicted"
    no_saving = Interval(0.0, 0.0, 0.0, 0.0, 5)
    assert judge_claim(claim("cost_ratio", side=1), no_saving, 0.05) == "contradicted"


@pytest.mark.parametrize(
    ("expected", "bound", "holds"),
    [
        (0.02, None, True),
        (0.0648, None, False),
        (0.005, None, False),
        (0.02, "at least", True),
        (0.005, "at least", True),
        (0.0648, "at least", False),
        (0.0648, "at most", True),
        (0.005, "at most", False),
        (None, None, None),
    ],
)
def test_whether_the_interval_holds_the_claimed_size_is_said_apart(expected, bound, holds):
    of = claim("difference", side=1, expected=expected, bound=bound)
    assert holds_size(of, interval(0.01, 0.05)) is holds
    assert judge_claim(of, interval(0.01, 0.05), 0.05) == "supported"


def test_the_size_of_a_ratio_is_compared_as_its_logarithm():
    of = claim("cost_ratio", side=1, expected=1.86)
    assert holds_size(of, interval(math.log(1.5), math.log(2.5))) is True
    assert holds_size(of, interval(math.log(1.9), math.log(2.5))) is False
    assert holds_size(of, EXACT) is None
    assert holds_size(claim("value", expected=0.9), interval(0.8, 0.95)) is None, "that is the verdict"


@pytest.mark.parametrize(("effect", "pairs"), [(1.0, 10), (0.8, 15), (0.5, 34), (0.2, 199)])
def test_the_seeds_needed_are_the_sample_sizes_of_textbooks(effect, pairs):
    """Cohen 1988: paired t-test, two-sided 0.05, power 0.8, effect in standard deviations of the differences."""
    measured = Interval(effect, NAN, NAN, 1.0, 5)
    assert seeds_needed(claim("difference", side=1), measured) == pairs
    assert seeds_needed(claim("difference", side=-1), Interval(-effect, NAN, NAN, 1.0, 5)) == pairs
    assert seeds_needed(claim("equal", margin=2 * effect), measured) == pairs
    assert seeds_needed(claim("equal", margin=0.5), Interval(0.5 + effect, NAN, NAN, 1.0, 5)) == pairs
    assert seeds_needed(claim("value", expected=3.0, bound="at most"), Interval(3 - effect, NAN, NAN, 1, 5)) == pairs


def test_several_looks_need_more_seeds_and_too_few_values_say_nothing_of_the_spread():
    measured = Interval(0.5, NAN, NAN, 1.0, 5)
    assert seeds_needed(claim("difference", side=1), measured, looks=2) > 34
    for n in (0, 1, 2):
        assert seeds_needed(claim("difference", side=1), Interval(0.5, NAN, NAN, NAN, n)) == 3


@pytest.mark.parametrize("mean", [0.0, 0.05])
def test_a_difference_too_small_to_be_worth_its_seeds_has_no_number(mean):
    """An effect of 0.05 standard deviations needs 3,142 pairs."""
    assert seeds_needed(claim("difference", side=1), Interval(mean, NAN, NAN, 1.0, 5)) is None
    assert 2.8 / math.sqrt(MOST_SEEDS) > 0.05


def test_what_is_said_to_decide_does_decide_for_values_with_that_mean_and_spread():
    """2 of 3 seeds above 0; repeated until there are as many as needed, their interval leaves out 0."""
    values = [0.05, 0.02, -0.03, 0.06, 0.01]
    measured = mean_interval(values)
    of = claim("difference", side=1)
    assert judge_claim(of, measured, 0.05) == "undecided"
    needed = seeds_needed(of, measured)
    assert needed is not None
    assert judge_claim(of, mean_interval(values * (needed // 5 + 1)), 0.05) == "supported"


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"text": "so"},
        {"text": 3, "not_testable": "so"},
        {"text": "so", "measure": "sum", "arm": "a", "against": "b", "metric": "accuracy", "side": 1},
        {"text": "so", "measure": "value", "arm": "a", "metric": "accuracy"},
        {"text": "so", "measure": "value", "arm": "a", "metric": "accuracy", "expected": "0.9"},
        {"text": "so", "measure": "equal", "arm": "a", "against": "b", "metric": "accuracy"},
        {"text": "so", "measure": "difference", "against": "b", "metric": "accuracy", "side": 1},
        {"text": "so", "measure": "cost_ratio", "arm": "a", "against": "b", "side": 1, "expected": -2.0},
        {"text": "so", "measure": "difference", "arm": "a", "metric": "accuracy", "side": 1},
    ],
)
def test_a_claim_that_no_run_has_written_is_refused(entry):
    with pytest.raises(ValueError, match="a claim that no run has written"):
        parse_claims([entry])
