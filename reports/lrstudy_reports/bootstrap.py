"""A hierarchical bootstrap over searches, seeds and test examples: an interval that includes what tuning again may give.

A study that searches several times confirms each search's choice with the same number of seeds. Its results vary with the
search, with the seeds within a search, and with the test examples, which all trials share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy_reports.statistics import FloatArray, Paired, paired_of

DRAWS = 2000
SEED = 12
_CHUNK = 20_000_000  # numbers in memory at a time, 160 MB
BY_EXAMPLE = ("accuracy", "balanced_accuracy")
"""The metrics that are a mean over examples, where each has one class."""


def paired_over_searches(differences: FloatArray, strata: NDArray[Any] | None, level: float) -> Paired:
    """The comparison of an arm with the control over several searches.

    Args:
        differences: Of the test metric, shape (searches, seeds), or (searches, seeds, examples) where the metric is a
            mean over examples; at least three searches.
        strata: The class of each example, shape (examples,), or None.
        level: The level of the interval.

    Returns:
        The mean difference, with t and interval from the bootstrap's standard error and `searches` - 1 degrees of
        freedom; `n` is the number of searches.
    """
    searches = len(differences)
    sd = hierarchical_error(differences, strata) * math.sqrt(searches)
    return paired_of(float(differences.mean()), sd, searches, level)


def hierarchical_error(values: FloatArray, strata: NDArray[Any] | None = None, draws: int = DRAWS) -> float:
    """The standard error of the mean of `values` over searches, seeds and test examples, by the bootstrap.

    Searches are drawn with replacement, each with all of its seeds: what seeds scatter is in the scatter of the
    searches' means already, and drawing seeds anew within them would count it twice (Davison and Hinkley 1997, section
    3.8; in simulations intervals for 95% then cover 98 to 100%). Examples are drawn with replacement, the same ones for
    all trials. Draws of n searches have (n - 1) / n of the variance of new ones, so their deviations are stretched.
    The random numbers are always the same ones.

    Args:
        values: Shape (searches, seeds), or (searches, seeds, examples) if the mean over examples is the metric; finite.
        strata: The class of each example, shape (examples,); examples are drawn within classes. None: there is one.
        draws: How many draws.

    Returns:
        The standard error; NaN for a single search.
    """
    searches = len(values)
    if searches < 2:
        return math.nan
    rng = np.random.default_rng(SEED)
    of_search = values.mean(axis=1).reshape(searches, -1)  # (searches, examples or 1)
    centre = of_search.mean(axis=0)
    stretched = centre + (of_search - centre) * math.sqrt(searches / (searches - 1))
    classes = np.zeros(of_search.shape[1], dtype=np.int64) if strata is None else np.asarray(strata)
    size = max(1, min(draws, _CHUNK // len(classes)))
    means = []
    for begin in range(0, draws, size):
        number = min(size, draws - begin)
        share = rng.multinomial(searches, np.full(searches, 1 / searches), size=number) / searches
        means.append(((share @ stretched) * _times_drawn(classes, number, rng)).mean(axis=1))
    return float(np.concatenate(means).std())


def contributions(predicted: Mapping[str, Any], metric: str) -> tuple[FloatArray, NDArray[Any]] | None:
    """What each test example contributes to a trial's metric, so that the mean over examples is the metric.

    Args:
        predicted: `scores` (examples, classes) and `label` (examples,) of one trial.
        metric: The metric's name.

    Returns:
        Contributions and classes, both of shape (examples,); None for a metric that is no mean over examples.
    """
    if metric not in BY_EXAMPLE or predicted["label"] is None:
        return None
    label = np.asarray(predicted["label"])
    is_right = (np.asarray(predicted["scores"]).argmax(axis=1) == label).astype(np.float64)
    if metric == "accuracy":
        return is_right, label
    _, of_class, counts = np.unique(label, return_inverse=True, return_counts=True)
    return is_right * len(label) / (len(counts) * counts[of_class]), label


def _times_drawn(classes: NDArray[Any], draws: int, rng: np.random.Generator) -> FloatArray:
    """How often each example is drawn if as many are drawn of each class as it has, shape (draws, examples)."""
    times = np.ones((draws, len(classes)))
    for name in np.unique(classes):
        mine = np.flatnonzero(classes == name)
        if len(mine) > 1:
            times[:, mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=draws)
    return times
