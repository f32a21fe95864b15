"""Which learning rate a range test suggests: pure functions of its curve, without torch.

The losses that they read are smoothed as fastai does. The suggestions disagree by far (valley and steep by 6 to 210 times
on four curves), so a study keeps to one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lrstudy.settings import FloatArray

SMOOTHING = 0.98
"""The share of the mean so far in the smoothed loss (fastai)."""
RISE = 4.0
"""A test stops once the smoothed loss is this many times the lowest one (fastai)."""
_SLIDE_POINTS, _SLIDE_TOLERANCE = 15, 0.005


class Smoothing:
    """The exponential mean of losses, without the bias towards its start at 0."""

    def __init__(self) -> None:
        self._mean, self._weight = 0.0, 1.0

    def add(self, loss: float) -> float:
        """The mean of the losses so far, this one included."""
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self._weight *= SMOOTHING
        return self._mean / (1 - self._weight)


def smoothed(losses: Sequence[float]) -> FloatArray:
    """The losses, each smoothed with those before it."""
    smoothing = Smoothing()
    return np.array([smoothing.add(loss) for loss in losses])


def steep(rates: FloatArray, losses: FloatArray) -> float:
    """Where the loss falls fastest per logarithm of the rate, as fastai's `steep`."""
    return float(rates[np.argmin(np.diff(losses) / np.diff(np.log(rates)))])


def steepest(rates: FloatArray, losses: FloatArray) -> float:
    """Where the loss falls fastest from update to update, as torch-lr-finder has it."""
    return float(rates[np.argmin(np.gradient(losses))])


def minimum(rates: FloatArray, losses: FloatArray) -> float:
    """A tenth of the rate with the lowest loss, as fastai's `minimum`."""
    return float(rates[np.argmin(losses)]) / 10


def valley(rates: FloatArray, losses: FloatArray) -> float:
    """Midway down the longest fall, as fastai's `valley`.

    The longest decreasing subsequence of the losses, which may have gaps, says where the fall ends and how many points
    long it is. Counted from so many points before its end, the suggestion lies a third and a sixth of that length further,
    each rounded down.
    """
    lengths = np.ones(len(losses), dtype=np.int64)
    for k in range(1, len(losses)):
        lengths[k] += max(lengths[:k][losses[:k] > losses[k]], default=0)
    end = int(np.argmax(lengths))
    num_points = int(lengths[end])
    return float(rates[max(0, end - num_points + num_points // 3 + num_points // 6)])


def slide(rates: FloatArray, losses: FloatArray) -> float:
    """From the high end down, where the slope of the loss is again that of 15 points further up, as fastai's `slide`.

    With 15 points or fewer it is the first rate.
    """
    slopes = np.gradient(losses)
    right, left = len(losses) - 1, len(losses) - 1 - _SLIDE_POINTS
    found = rates[max(left, 0)]
    while left >= 0 and abs(slopes[right] - slopes[left]) > _SLIDE_TOLERANCE:
        found = rates[left]
        right, left = right - 1, left - 1
    return float(found)


BY_LOSS: Mapping[str, Callable[[FloatArray, FloatArray], float]] = {
    "valley": valley,
    "steep": steep,
    "steepest": steepest,
    "minimum": minimum,
    "slide": slide,
}
"""The suggestions by name, each from rates and smoothed losses of the same length, at least two of each."""


class Bounds(NamedTuple):
    """The rates between which Smith's test lets a cycle run. `falls`: the accuracy fell after `high`, within the test."""

    base: float
    high: float
    falls: bool


def bounds(rates: FloatArray, accuracies: FloatArray, chance: float, num_examples: int) -> Bounds | None:
    """Smith's bounds (arXiv 1506.01186, section 3.3), which he reads off a plot, by a rule.

    The accuracy is averaged over three neighbouring points. `base` is the first rate at which it exceeds chance by two
    standard errors, and by a twentieth of what it gains at most. `high` is that of the first peak from there on after
    which it falls by more than two standard errors; without such a fall, that of the highest point.

    Args:
        rates: The rates at which the accuracy was measured, rising.
        accuracies: The accuracies there, in [0, 1].
        chance: What can be had without learning, in [0, 1].
        num_examples: How many examples an accuracy was measured on.

    Returns:
        The bounds; None if the accuracy never rises above chance.
    """
    means = _means(accuracies)
    errors = np.sqrt(np.clip(means * (1 - means), 0, None) / num_examples)
    above = means > chance + np.maximum(2 * errors, 0.05 * (means.max() - chance))
    if not above.any():
        return None
    base = int(np.argmax(above))
    peak = base
    for k in range(base, len(means)):
        if means[k] > means[peak]:
            peak = k
        elif means[peak] - means[k] > 2 * errors[peak]:
            return Bounds(float(rates[base]), float(rates[peak]), True)
    return Bounds(float(rates[base]), float(rates[peak]), False)


def _means(values: FloatArray) -> FloatArray:
    """The mean of every value and its neighbours."""
    return np.array([values[max(k - 1, 0) : k + 2].mean() for k in range(len(values))])
