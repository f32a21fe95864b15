"""The statistics of a comparison: pure functions of arrays.

Intervals and tests are Student's t; the distribution functions are scipy.special's, which import in a third
of the time of scipy.stats and are what it calls. Tests hold them against scipy.stats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, nctdtrinc, stdtr, stdtrit

FloatArray = NDArray[np.float64]
Verdict = Literal["better", "worse", "equivalent", "undecided"]

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
_NO_SPREAD = 1e-12  # relative; a spread below it is rounding, e.g. of (0.9 + 0.01) - 0.9


@dataclass(frozen=True)
class Interval:
    """A mean with its interval. NaN stands for what `n` values cannot give: no interval for n = 1."""

    mean: float
    low: float
    high: float
    sd: float
    n: int


@dataclass(frozen=True)
class Paired:
    """The paired comparison of an arm with the control: mean of the differences, interval, t and p."""

    difference: Interval
    t: float
    p: float


def mean_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean of the finite `values` and its t interval: mean ± t(n-1) · sd / √n.

    Without spread (n = 1, or all values equal) no interval is given: a t interval of width zero would
    claim a certainty that n equal values do not have.
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
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, sd, n)


def paired_t(arm: ArrayLike, control: ArrayLike, level: float = LEVEL) -> Paired:
    """Paired t-test of `arm` - `control`, entry by entry (one per seed); pairs with a NaN are left out.

    As scipy.stats.ttest_rel, except that differences without spread give p = NaN, where scipy gives
    0 or NaN: n equal differences hold no estimate of the error to test against.
    """
    difference = np.asarray(arm, dtype=np.float64) - np.asarray(control, dtype=np.float64)
    interval = mean_interval(difference, level)
    if not interval.sd > 0:
        return Paired(interval, math.nan, math.nan)
    t = interval.mean / (interval.sd / math.sqrt(interval.n))
    return Paired(interval, t, float(2 * stdtr(interval.n - 1, -abs(t))))


def holm(p_values: ArrayLike) -> FloatArray:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given.

    The family is everything that was planned: a comparison without a p-value counts as p = 1, so that
    the others pay for it, and stays NaN. As statsmodels' multipletests(p, method="holm"), which is the
    reference in the tests; importing it takes 0.8 s, a third of what a small report may take.
    """
    p = np.asarray(p_values, dtype=np.float64)
    family = np.where(np.isnan(p), 1.0, p)
    order = np.argsort(family, kind="stable")
    steps = family[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return np.where(np.isnan(p), np.nan, adjusted)


def verdict(difference: Interval, p_holm: float, sign: float, margin: float | None) -> Verdict:
    """What the data say about an arm against the control; `sign` is -1 where less is better.

    equivalent: the interval lies inside ±`margin` (two one-sided tests at (1 - level) / 2 each). It goes
    first: a difference smaller than the margin is, by the study's own word, none. better, worse: the
    Holm-adjusted p is below 0.05. undecided: everything else, always for n = 1.
    """
    if math.isnan(difference.low):
        return "undecided"
    if margin is not None and -margin < difference.low and difference.high < margin:
        return "equivalent"
    if not p_holm < ALPHA:
        return "undecided"
    return "better" if sign * difference.mean > 0 else "worse"


def smallest_detectable(sd: float, n: int, comparisons: int = 1) -> float:
    """The true mean difference that n pairs with this sd would detect with power 0.8.

    Two-sided paired t at 0.05 / `comparisons` (Holm's first step), from the noncentral t distribution.
    NaN if n < 2 or there is no spread.
    """
    if n < 2 or not sd > 0:
        return math.nan
    critical = float(stdtrit(n - 1, 1 - ALPHA / (2 * max(comparisons, 1))))
    return float(nctdtrinc(n - 1, 1 - POWER, critical)) * sd / math.sqrt(n)


def value_at(cost: FloatArray, value: FloatArray, budget: float) -> float:
    """The last value observed at a cumulative cost of at most `budget`; NaN if none was, or for a NaN budget.

    Nothing is interpolated or extrapolated. `cost` increases.
    """
    k = int(np.searchsorted(cost, budget * (1 + 1e-9), side="right"))
    return float(value[k - 1]) if k and not math.isnan(budget) else math.nan


def area_over_log_cost(cost: FloatArray, value: FloatArray, low: float, high: float) -> float:
    """Mean of `value` over log cost between `low` and `high`: the area, divided by log(high / low).

    The curve is a step function: a value holds from its cost until the next. NaN unless 0 < low < high and
    the curve has a value at `low`.
    """
    if not 0 < low < high or not len(cost) or cost[0] > low * (1 + 1e-9):
        return math.nan
    inside = (cost > low) & (cost < high)
    edges = np.concatenate([[low], cost[inside], [high]])
    levels = np.concatenate([[value_at(cost, value, low)], value[inside]])
    return float(np.sum(levels * np.diff(np.log(edges))) / math.log(high / low))


def cost_to_target(cost: FloatArray, value: FloatArray, target: float, sign: float) -> float:
    """Cumulative cost at the first observation that reaches `target`; infinity if none does (censored)."""
    reached = np.flatnonzero(sign * value >= sign * target)
    return float(cost[reached[0]]) if len(reached) else math.inf


def expected_best(values: ArrayLike, sign: float, counts: Sequence[int] | None = None) -> FloatArray:
    """Expected best of t of the n `values`, drawn without replacement, for t in `counts` (default 1 ... n).

    Exact, over all subsets: the i-th smallest of n is the largest of a subset of size t with probability
    C(i-1, t-1) / C(n, t). `values` are finite; `sign` is -1 where less is better.
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
