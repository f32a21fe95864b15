"""The statistics of a comparison, as pure functions of arrays.

Intervals and tests are Student's t, those of a bounded metric on the logit scale. Distribution functions come from
scipy.special, which scipy.stats calls too and which imports in a third of the time. The tests check the results against
scipy.stats, and the level of what scipy.stats does not have by simulation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, expit, gammaln, logit, nctdtrinc, stdtr, stdtrit

FloatArray = NDArray[np.float64]
Verdict = Literal["better", "worse", "equivalent", "undecided"]

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
FEWEST = 3
"""How many values an interval or a test takes. Two give one with a factor of 12.7 (t with one degree of freedom) on a
spread that is itself known to within a factor of 32 only: it would rest on the assumption of normality alone."""
FEWEST_RANKS = 6
"""How many differences a signed-rank test takes: the smallest two-sided p of n is 2 / 2^n, and 2 / 2^5 = 0.0625."""
_NO_SPREAD = 1e-12  # relative; a spread below it is rounding, e.g. of (0.9 + 0.01) - 0.9


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval. What `n` values cannot give is NaN, such as an interval for n < 3."""

    mean: float
    low: float
    high: float
    sd: float
    n: int


@dataclass(frozen=True)
class Paired:
    """The paired comparison of an arm with the control: the mean difference with its interval, t and p."""

    difference: Interval
    t: float
    p: float


def mean_interval(values: ArrayLike, level: float = LEVEL, *, bounded: bool = False) -> Interval:
    """The mean of the finite `values` and its t interval.

    Without spread (all values equal), and with fewer than three values, there is no interval: one of width zero would
    claim a certainty that equal values do not give.

    Args:
        values: The values, any shape (n,).
        level: The probability with which such intervals hold the true mean.
        bounded: Whether the values lie in [0, 1]. The interval is then made on the logit scale: logit(mean) ± t(n-1) ·
            sd / √n / (mean · (1 - mean)), the delta method, as Stata's `proportion` does for means of 0 and 1. It lies
            within (0, 1), holds the mean, and is the usual one where the spread is small.

    Returns:
        The interval: mean ± t(n-1) · sd / √n unless `bounded`.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    n = len(x)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(x.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, math.nan, 1)
    sd = float(x.std(ddof=1))
    if sd <= _NO_SPREAD * max(float(np.abs(x).max()), 1.0):
        return Interval(mean, math.nan, math.nan, 0.0, n)
    if n < FEWEST:
        return Interval(mean, math.nan, math.nan, sd, n)
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * sd / math.sqrt(n)
    if not bounded:
        return Interval(mean, mean - half, mean + half, sd, n)
    centre, half = float(logit(mean)), half / (mean * (1 - mean))
    return Interval(mean, float(expit(centre - half)), float(expit(centre + half)), sd, n)


def paired_t(arm: ArrayLike, control: ArrayLike, level: float = LEVEL) -> Paired:
    """Paired t-test of `arm` - `control`, with one entry per seed in both; pairs with a NaN are dropped.

    As scipy.stats.ttest_rel, except that differences without spread give p = NaN, where scipy gives 0 or NaN: n equal
    differences give no estimate of the error to test against. So do fewer than three.
    """
    difference = np.asarray(arm, dtype=np.float64) - np.asarray(control, dtype=np.float64)
    interval = mean_interval(difference, level)
    return paired_of(interval.mean, interval.sd, interval.n, level)


def paired_of(mean: float, sd: float, n: int, level: float = LEVEL) -> Paired:
    """The t-test of `n` differences with this mean and standard deviation.

    Metrics lie in [0, 1] and so their differences in [-1, 1]: an interval that reaches further is cut off there, which
    changes neither its coverage nor whether it holds 0. It is NaN, as are t and p, without spread and for n < 3.
    """
    if not sd > 0 or n < FEWEST:
        return Paired(Interval(mean, math.nan, math.nan, sd, n), math.nan, math.nan)
    error = sd / math.sqrt(n)
    half, t = float(stdtrit(n - 1, 0.5 + level / 2)) * error, mean / error
    interval = Interval(mean, max(mean - half, -1.0), min(mean + half, 1.0), sd, n)
    return Paired(interval, t, float(2 * stdtr(n - 1, -abs(t))))


def equivalence_p(difference: Interval, margin: float | None) -> float:
    """The p-value against a true difference of ±`margin` or beyond: two one-sided t-tests (Schuirmann 1987).

    Twice the larger of the two, so that it is below 0.05 exactly where the 95% interval lies within ±`margin`, and one
    level serves both kinds of verdict. NaN without a margin or where nothing can be tested.
    """
    if margin is None or not difference.sd > 0 or difference.n < FEWEST:
        return math.nan
    nearest = (margin - abs(difference.mean)) / (difference.sd / math.sqrt(difference.n))
    return min(1.0, 2 * float(stdtr(difference.n - 1, -nearest)))


def wilcoxon_p(differences: ArrayLike) -> float:
    """The p-value of Wilcoxon's signed-rank test (1945) of differences against 0, two-sided and exact.

    Zeros are dropped. The absolute values are ranked from 1, equal ones sharing the mean of their ranks, and W is the
    sum of the ranks of positive differences. Under the hypothesis each rank counts with probability 1/2 by itself, so the
    number of sign patterns with each sum is the coefficient of a product of (1 + x^rank), taken with doubled ranks that
    are whole numbers; p = min(1, 2 min(P(W <= w), P(W >= w))). As scipy.stats.wilcoxon(method="exact"), but
    right with ties too. NaN for fewer than six differences that are not 0, with which no p could be below 0.05.
    """
    x = np.asarray(differences, dtype=np.float64)
    x = x[np.isfinite(x) & (x != 0)]
    if len(x) < FEWEST_RANKS:
        return math.nan
    _, group, counts = np.unique(np.abs(x), return_inverse=True, return_counts=True)
    doubled = (2 * np.cumsum(counts) - counts + 1)[group]  # twice the mean of ranks first ... last of a group of equals
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled:
        ways[rank:] = ways[rank:] + 0.5 * (ways[: len(ways) - rank] - ways[rank:])
        ways[:rank] *= 0.5
    observed = int(doubled[x > 0].sum())
    return float(min(1.0, 2 * min(ways[: observed + 1].sum(), ways[observed:].sum())))


def holm(p_values: ArrayLike) -> FloatArray:
    """P-values adjusted by Holm's step-down procedure (Holm 1979), in the given order.

    The family is all comparisons that were planned: one without a p-value (NaN) counts as p = 1, so the others
    are still corrected for it, and stays NaN. As statsmodels' multipletests(p, method="holm"), the reference in
    the tests, whose import takes 0.8 s: a third of what a small report may take.
    """
    p = np.asarray(p_values, dtype=np.float64)
    family = np.where(np.isnan(p), 1.0, p)
    order = np.argsort(family, kind="stable")
    steps = family[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return np.where(np.isnan(p), np.nan, adjusted)


def verdict(difference: Interval, p_holm: float, p_equivalence: float, sign: float, alpha: float = ALPHA) -> Verdict:
    """Judge an arm against the control.

    Args:
        difference: Mean difference to the control.
        p_holm: Holm-adjusted p-value of the difference; may be NaN.
        p_equivalence: Holm-adjusted p-value of `equivalence_p`; may be NaN.
        sign: 1 if more of the metric is better, -1 if less is.
        alpha: What an adjusted p-value must be below.

    Returns:
        `equivalent` if `p_equivalence` is below `alpha`. This comes first: by the study's own definition, a difference
        within the margin is none. `better` or `worse` if `p_holm` is. Otherwise `undecided`.
    """
    if p_equivalence < alpha:
        return "equivalent"
    if not p_holm < alpha:
        return "undecided"
    return "better" if sign * difference.mean > 0 else "worse"


def smallest_detectable(sd: float, n: int, comparisons: int = 1) -> float:
    """The true mean difference that `n` pairs whose differences have this `sd` would detect with power 0.8.

    For a two-sided paired t-test at 0.05 / `comparisons` (Holm's first step; with several looks, their number times
    that of the arms compared), from the noncentral t distribution. NaN if n < 3 or there is no spread.
    """
    if n < FEWEST or not sd > 0:
        return math.nan
    critical = float(stdtrit(n - 1, 1 - ALPHA / (2 * max(comparisons, 1))))
    return float(nctdtrinc(n - 1, 1 - POWER, critical)) * sd / math.sqrt(n)


def value_at(cost: FloatArray, value: FloatArray, budget: float) -> float:
    """The last value observed at a cumulative cost of at most `budget`; NaN if there is none or `budget` is NaN.

    Nothing is interpolated or extrapolated. `cost` is increasing.
    """
    k = int(np.searchsorted(cost, budget * (1 + 1e-9), side="right"))
    return float(value[k - 1]) if k and not math.isnan(budget) else math.nan


def area_over_log_cost(cost: FloatArray, value: FloatArray, low: float, high: float) -> float:
    """Mean of a curve over log cost: the area under it between `low` and `high`, divided by log(high / low).

    The curve is a step function: each value holds from its own cost to the next.

    Args:
        cost: Cumulative costs, increasing, shape (n,).
        value: The value observed at each cost, shape (n,).
        low: Where the range begins, in the unit of `cost`.
        high: Where it ends.

    Returns:
        The mean; NaN unless 0 < low < high and the curve has a value at `low`.
    """
    if not 0 < low < high or not len(cost) or cost[0] > low * (1 + 1e-9):
        return math.nan
    inside = (cost > low) & (cost < high)
    edges = np.concatenate([[low], cost[inside], [high]])
    levels = np.concatenate([[value_at(cost, value, low)], value[inside]])
    return float(np.sum(levels * np.diff(np.log(edges))) / math.log(high / low))


def cost_to_target(cost: FloatArray, value: FloatArray, target: float, sign: float) -> float:
    """The cumulative cost at which a curve first reaches a target.

    Args:
        cost: Cumulative costs, increasing, shape (n,).
        value: The value observed at each cost, shape (n,).
        target: The value to reach.
        sign: 1 if more is better, -1 if less is.

    Returns:
        The cost of the first observation that reaches the target; infinity if none does (censored).
    """
    reached = np.flatnonzero(sign * value >= sign * target)
    return float(cost[reached[0]]) if len(reached) else math.inf


def median_of_censored(times: ArrayLike) -> float:
    """The median of times, of which some are infinite: those were not over when they were last seen.

    As no censored time is below any that ended, all being watched for the same budget, it is the median of Kaplan and Meier
    (1958), but between the two middle ones of an even number. Infinite if half of them or more are; NaN if there are none.
    """
    ordered = np.sort(np.asarray(times, dtype=np.float64))
    if not len(ordered):
        return math.nan
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(low) if low == high else float((low + high) / 2)


def share_interval(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a share that was `successes` of `trials` (Clopper and Pearson 1934), from quantiles of beta distributions.

    With a = (1 - level) / 2: low is the a-quantile of Beta(s, n - s + 1), 0 if s = 0; high the (1 - a)-quantile of
    Beta(s + 1, n - s), 1 if s = n. It covers the true share with probability `level` or more. NaN for no trials.
    """
    if trials < 1:
        return math.nan, math.nan
    tail, failures = (1 - level) / 2, trials - successes
    low = float(betaincinv(successes, failures + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - tail)) if failures else 1.0
    return low, high


def expected_best(values: ArrayLike, sign: float, counts: Sequence[int] | None = None) -> FloatArray:
    """The expected best of t of the n `values`, drawn without replacement, for each t in `counts` (default 1 ... n).

    Exact, over all subsets: the i-th smallest of n is the largest of a subset of size t with probability
    C(i-1, t-1) / C(n, t). `values` must be finite; `sign` is 1 if more is better, -1 if less is.
    """
    x = np.sort(sign * np.asarray(values, dtype=np.float64))
    n = len(x)
    t = np.asarray(counts if counts is not None else range(1, n + 1), dtype=np.float64)[:, None]
    i = np.arange(1, n + 1, dtype=np.float64)[None, :]
    possible = i >= t
    above = np.where(possible, i - t, 0.0)
    log_weight = gammaln(np.where(possible, i, t)) - gammaln(t) - gammaln(above + 1)
    log_weight -= gammaln(n + 1) - gammaln(t + 1) - gammaln(n - t + 1)
    weights = np.where(possible, np.exp(log_weight), 0.0)
    return np.asarray(sign * (weights @ x) / weights.sum(axis=1))
