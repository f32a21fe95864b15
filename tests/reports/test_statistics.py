"""Statistics against numbers worked by hand, scipy.stats, statsmodels and enumeration."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from lrstudy_reports.statistics import (
    Interval,
    area_over_log_cost,
    cost_to_target,
    equivalence_p,
    expected_best,
    holm,
    mean_interval,
    paired_t,
    smallest_detectable,
    value_at,
    verdict,
)

ARM, CONTROL = [0.96, 0.95, 0.97, 0.96, 0.94], [0.94, 0.94, 0.94, 0.95, 0.93]


def test_mean_interval_is_the_t_interval_worked_by_hand():
    # mean 3, sd sqrt(2.5) = 1.58114, t(4, 0.975) = 2.776445, half = 2.776445 * 1.58114 / sqrt(5) = 1.963243
    found = mean_interval([1, 2, 3, 4, 5])
    assert (found.mean, found.n) == (3.0, 5)
    assert found.sd == pytest.approx(1.581139, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((1.036757, 4.963243), abs=1e-6)


@pytest.mark.parametrize(("values", "n"), [([], 0), ([0.9], 1), ([0.9, math.nan], 1), ([0.8, 0.9], 2), ([0.9] * 3, 3)])
def test_no_interval_without_spread_or_from_two_values(values, n):
    found = mean_interval(values)
    assert found.n == n
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_paired_t_is_that_of_scipy():
    found, reference = paired_t(ARM, CONTROL), stats.ttest_rel(ARM, CONTROL)
    interval = reference.confidence_interval(0.95)
    assert found.t == pytest.approx(reference.statistic, rel=1e-9)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-9)
    assert (found.difference.low, found.difference.high) == pytest.approx((interval.low, interval.high))


def test_pairs_with_a_missing_value_are_left_out():
    found = paired_t([0.99, *ARM], [math.nan, *CONTROL])
    assert found.p == pytest.approx(stats.ttest_rel(ARM, CONTROL).pvalue)
    assert found.difference.n == 5


def test_equal_differences_give_no_p_value():
    """0.91 - 0.9 and 0.96 - 0.95 differ in the 17th digit; that is no spread to test against."""
    found = paired_t([0.91, 0.96, 0.81], [0.90, 0.95, 0.80])
    assert found.difference.mean == pytest.approx(0.01)
    assert found.difference.sd == 0
    assert math.isnan(found.p)


def test_holm_worked_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; running maximum
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 30):
        p = rng.uniform(size=n) ** 3
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)
    assert len(holm([])) == 0


def test_a_missing_p_value_stays_in_the_family():
    adjusted = holm([0.02, math.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.06, 0.08])
    assert math.isnan(adjusted[1])


@pytest.mark.parametrize(
    ("mean", "p", "p_equivalence", "sign", "expected"),
    [
        (0.02, 0.01, math.nan, 1, "better"),
        (0.02, 0.01, math.nan, -1, "worse"),
        (-0.02, 0.01, math.nan, 1, "worse"),
        (-0.02, 0.01, math.nan, -1, "better"),
        (0.02, 0.05, math.nan, 1, "undecided"),
        (0.02, math.nan, math.nan, 1, "undecided"),
        (0.0, 0.9, 0.04, 1, "equivalent"),
        (0.0015, 0.001, 0.04, 1, "equivalent"),
        (0.0, 0.9, 0.05, 1, "undecided"),
    ],
)
def test_verdicts(mean, p, p_equivalence, sign, expected):
    difference = Interval(mean, mean - 0.01, mean + 0.01, 0.01, 5)
    assert verdict(difference, p, p_equivalence, sign) == expected
    assert verdict(difference, p, p_equivalence, sign, alpha=1e-4) == "undecided"


@pytest.mark.parametrize("margin", [0.005, 0.015, 0.04])
def test_equivalence_is_that_of_two_one_sided_tests_of_statsmodels(margin):
    difference = paired_t(ARM, CONTROL).difference
    larger, _, _ = ttost_paired(np.array(ARM), np.array(CONTROL), -margin, margin)
    found = equivalence_p(difference, margin)
    assert found == pytest.approx(min(1.0, 2 * larger), rel=1e-9)
    assert (found < 0.05) == (-margin < difference.low and difference.high < margin)


def test_without_a_margin_nothing_is_equivalent():
    assert math.isnan(equivalence_p(paired_t(ARM, CONTROL).difference, None))
    assert math.isnan(equivalence_p(paired_t([0.9, 0.8], [0.9, 0.7]).difference, 0.1))


SKEWED = {
    "accuracies near 0.9": lambda rng, n: rng.beta(90, 10, n),
    "scattered in the middle": lambda rng, n: rng.beta(3, 4, n),
    "near the upper end": lambda rng, n: rng.beta(30, 1.5, n),
}


@pytest.mark.parametrize("values", SKEWED.values(), ids=SKEWED)
@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_of_a_bounded_metric_lie_inside_and_cover_as_often_as_those_of_t(values, n):
    """Never more than a point and a half below the plain interval, whose coverage is its own business, or above 94%."""
    rng, studies = np.random.default_rng(5), 4000
    truth = values(np.random.default_rng(6), 1_000_000).mean()
    covered, plain = 0, 0
    for _ in range(studies):
        sample = values(rng, n)
        inside, usual = mean_interval(sample, bounded=True), mean_interval(sample)
        assert 0 < inside.low < inside.mean < inside.high < 1
        covered += inside.low <= truth <= inside.high
        plain += usual.low <= truth <= usual.high
    assert covered / studies > min(0.94, plain / studies) - 0.015


def test_the_intervals_seen_outside_of_the_scale_lie_inside():
    assert mean_interval([0.1, 0.2, 0.9]).low < 0
    assert (
        0
        < mean_interval([0.1, 0.2, 0.9], bounded=True).low
        < 0.4
        < mean_interval([0.1, 0.2, 0.9], bounded=True).high
        < 1
    )


def test_differences_end_at_one():
    found = paired_t([1.0, 0.0, 0.5], [0.0, 1.0, 0.5])
    assert (found.difference.low, found.difference.high) == (-1.0, 1.0)


def test_the_smallest_detectable_difference_has_power_080():
    effect = smallest_detectable(0.01, 5, comparisons=4) / 0.01
    power = TTestPower().power(effect, nobs=5, alpha=0.05 / 4, alternative="two-sided")
    assert power == pytest.approx(0.8, abs=1e-4)  # the other tail, which we leave out, is below 1e-4
    assert math.isnan(smallest_detectable(0.01, 2))
    assert math.isnan(smallest_detectable(0.0, 5))


COST, VALUE = np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.7, 0.6])


@pytest.mark.parametrize(
    ("budget", "expected"), [(0.9, math.nan), (1.0, 0.5), (3.9, 0.7), (4.0, 0.6), (9.0, 0.6), (math.nan, math.nan)]
)
def test_value_at_is_the_last_observed(budget, expected):
    assert value_at(COST, VALUE, budget) == pytest.approx(expected, nan_ok=True)


def test_area_over_log_cost_worked_by_hand():
    # 0.5 on [1, 2), 0.7 on [2, 4): equal shares of log cost
    assert area_over_log_cost(COST, VALUE, 1.0, 4.0) == pytest.approx(0.6)
    # a third of log cost at 0.5, a third at 0.7, a third at 0.6 (held beyond the last observation's cost)
    assert area_over_log_cost(COST, VALUE, 1.0, 8.0) == pytest.approx(0.6)
    assert math.isnan(area_over_log_cost(COST, VALUE, 0.5, 4.0))
    assert math.isnan(area_over_log_cost(COST, VALUE, 2.0, 2.0))


def test_cost_to_target_is_the_first_crossing_and_infinite_if_there_is_none():
    assert cost_to_target(COST, VALUE, 0.6, 1) == 2.0
    assert cost_to_target(COST, VALUE, 0.71, 1) == math.inf
    assert cost_to_target(COST, VALUE, 0.55, -1) == 1.0


@pytest.mark.parametrize("sign", [1, -1])
def test_expected_best_is_the_mean_over_all_subsets(sign):
    values = [0.3, 0.9, 0.5, 0.5, 0.1, 0.7]
    best = max if sign > 0 else min
    expected = [np.mean([best(subset) for subset in combinations(values, t)]) for t in range(1, 7)]
    assert expected_best(values, sign) == pytest.approx(expected)


def test_expected_best_of_many_trials_does_not_overflow():
    values = np.random.default_rng(0).uniform(size=3000)
    found = expected_best(values, 1, [1, 1500, 3000])
    assert found[0] == pytest.approx(values.mean())
    assert found[2] == pytest.approx(values.max())
