"""Which arm gives the most: each compared with the best of the others, with simultaneous intervals.

Hsu's multiple comparisons with the best, in the form of Edwards and Hsu (1983) that allows each pair of arms its own
margin of error. Seeds are blocks, so a pair's error is that of its differences by seed, as in the comparison with the
control. The usual form pools the variances of all arms. Schedules differ in how much their results scatter, and then
pooling does not hold its level: with five arms and five seeds it wrongly excludes the best arm in 11% of the studies
where that one scatters three times as much as the others, with eight arms in 14%; this form in 3%, and in no case in
more than 5% (tests/reports/test_best.py). Where all arms scatter alike its intervals are half as wide again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from lrstudy_reports.statistics import FEWEST, LEVEL, FloatArray

_ROUNDING = 1e-12


@dataclass(frozen=True)
class AgainstBest:
    """An arm against the best of the others: the difference of means with its simultaneous interval.

    The interval reaches to 0 at least. The arm may be the best unless it ends there.
    """

    difference: float
    low: float
    high: float
    may_be_best: bool


def against_best(values: FloatArray, level: float = LEVEL) -> list[AgainstBest]:
    """Compare each arm with the best of the others.

    With probability `level` or more all intervals hold at once, whatever the variances and correlations of the arms,
    as the errors at the true best arm alone are bounded (Bonferroni over the others, one-sided t).

    Args:
        values: Values of which more is better, shape (seeds, arms), all finite and within [-1, 1].
        level: The simultaneous level.

    Returns:
        One entry per arm, in order; none for fewer than two arms or three seeds.
    """
    seeds, arms = values.shape
    if arms < 2 or seeds < FEWEST:
        return []
    pairs = values[:, :, None] - values[:, None, :]
    critical = float(stdtrit(seeds - 1, 1 - (1 - level) / (arms - 1)))
    difference, margin = pairs.mean(axis=0), critical * pairs.std(axis=0, ddof=1) / math.sqrt(seeds)
    itself = np.eye(arms, dtype=bool)
    upper = np.where(itself, np.inf, difference + margin).min(axis=1)
    candidates = upper >= -_ROUNDING
    lower = np.where(itself | ~candidates[None, :], np.inf, difference - margin).min(axis=1)  # inf: the only candidate
    to_best = np.where(itself, np.inf, difference).min(axis=1)
    return [
        AgainstBest(
            float(to_best[k]),
            float(np.clip(lower[k], -1.0, 0.0)),
            float(np.clip(upper[k], 0.0, 1.0)),
            bool(candidates[k]),
        )
        for k in range(arms)
    ]
