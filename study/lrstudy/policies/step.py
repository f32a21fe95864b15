"""Step decay: the rate falls by a factor at given epochs (torch: MultiStepLR stepped after each epoch)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrstudy.policies.base import RatePolicy, Ratio, Run
from lrstudy.policies.durations import Duration, count_passed
from lrstudy.settings import FloatArray


@dataclass(frozen=True, kw_only=True)
class Step(RatePolicy):
    """lr * gamma^(number of milestones passed).

    A milestone m acts before the first update of epoch m and is rounded to whole epochs first; one listed
    twice multiplies by gamma^2, 0 acts at once, one at or beyond the budget never; any order will do.
    The defaults are those of He et al. 2016 (arXiv 1512.03385): x 0.1 at 50% and 75% of the updates.
    """

    name = "step"

    milestones: tuple[Duration, ...] = ("50%", "75%")
    gamma: Ratio = 0.1

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """One rate for the whole epoch."""
        updates = self.initial_updates(run)
        passed = count_passed(self.milestones, epoch, run.num_epochs, updates)
        return np.full(updates, self.lr * self.gamma**passed)
