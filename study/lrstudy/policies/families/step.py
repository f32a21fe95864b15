"""Rates that fall at fixed times: in steps, exponentially, or along a line; none of them below a floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lrstudy.policies.base import RatePolicy, Ticks
from lrstudy.policies.durations import Duration, count_passed, to_whole_epoch
from lrstudy.policies.parameters import Floor, PositiveDuration, Ratio
from lrstudy.policies.run import Run
from lrstudy.settings import FloatArray


@dataclass(frozen=True, kw_only=True)
class Step(RatePolicy):
    """lr * gamma^(number of milestones passed); torch: MultiStepLR stepped after each epoch.

    The defaults are those of He et al. 2016 (arXiv 1512.03385): x 0.1 at 50% and 75% of the updates.

    Attributes:
        milestones: When the rate falls, in any order. Milestone m is rounded to whole epochs and takes effect before the
            first update of epoch m: 0 at once, one at or beyond the budget never. One that is listed twice multiplies
            the rate by gamma^2.
        gamma: What the rate is multiplied by.
        min_ratio: The lowest rate as a fraction of lr.
    """

    name = "step"

    milestones: tuple[Duration, ...] = ("50%", "75%")
    gamma: Ratio = 0.1
    min_ratio: Floor = 0.0

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The same rate for the whole epoch."""
        updates = self.initial_updates(run)
        passed = count_passed(self.milestones, epoch, run.num_epochs, updates)
        return np.full(updates, self.lr * max(self.gamma**passed, self.min_ratio))


@dataclass(frozen=True, kw_only=True)
class StepEvery(RatePolicy):
    """lr * gamma^floor(epoch / every), at least `min_ratio` * lr; torch: StepLR stepped after each epoch.

    `every` is rounded to whole epochs.
    """

    name = "step_every"

    every: PositiveDuration = "25%"
    gamma: Ratio = 0.5
    min_ratio: Floor = 0.0

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The same rate for the whole epoch."""
        updates = self.initial_updates(run)
        every = max(1, to_whole_epoch(self.every, run.num_epochs, updates))
        return np.full(updates, self.lr * max(self.gamma ** (epoch // every), self.min_ratio))


@dataclass(frozen=True, kw_only=True)
class Exponential(RatePolicy):
    """lr * gamma^t, at least `min_ratio` * lr; t counts epochs (torch: ExponentialLR) or updates (Caffe's ``exp``)."""

    name = "exponential"

    gamma: Ratio = 0.9
    per: Literal["epoch", "update"] = "epoch"
    min_ratio: Floor = 0.0

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The same rate for the whole epoch, or one that falls with every update."""
        updates = self.initial_updates(run)
        if self.per == "epoch":
            return np.full(updates, self.lr * max(self.gamma**epoch, self.min_ratio))
        falling = self.gamma ** np.arange(epoch * updates, (epoch + 1) * updates, dtype=float)
        return self.lr * np.maximum(falling, self.min_ratio)


@dataclass(frozen=True, kw_only=True)
class LinearDecay(RatePolicy):
    """A line from lr to `end_ratio` * lr, which is reached after `over`, and constant from there on.

    The "decay" that Smith 2017 (arXiv 1506.01186, section 4.1.1) compares cyclical rates with: 0.007 to 0.001 over
    one half cycle.
    """

    name = "linear_decay"

    over: PositiveDuration = "50%"
    end_ratio: Floor = 1 / 7

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The rate at each update."""
        done = Ticks.of_epoch(epoch, self.initial_updates(run)).epochs / float(self.epochs(self.over, run))
        return self.lr * (1 - (1 - self.end_ratio) * np.minimum(done, 1.0))
