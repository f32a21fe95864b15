"""Growing batches instead of falling rates.

Smith, Kindermans, Ying and Le, "Don't decay the learning rate, increase the batch size" (arXiv 1711.00489):
the noise of SGD is about lr * N / (B * (1 - momentum)) while B << N, so that multiplying B by f does what
dividing lr by f does, with fewer updates per epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lrstudy.policies.base import Count, History, Policy, Rule, Run
from lrstudy.policies.durations import Duration, count_passed
from lrstudy.settings import Settings


@dataclass(frozen=True, kw_only=True)
class BatchIncrease(Policy):
    """At each milestone the noise falls by `factor`: through the batch while it may grow, then the rate.

    The batch never exceeds `cap` examples, nor the training set; the paper caps at about a tenth of it.
    Where the whole factor does not fit, `residual` grows the batch up to the cap and gives the rate the
    rest, so that lr / B falls by exactly the factor; `switch` keeps the batch and divides the rate. A batch
    that starts above the cap stays. `factor` is a whole number, which makes every batch the exact multiple.
    Milestones act as in step decay, of which this is the twin with gamma = 1 / factor.
    """

    name = "batch_increase"

    milestones: tuple[Duration, ...] = ("50%", "75%")
    factor: Annotated[int, Rule("a whole number of at least 2", lambda value: value >= 2)] = 2
    cap: Count | None = None
    cap_mode: Literal["residual", "switch"] = "residual"

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch`; the history is not looked at."""
        lr, batch_size = self.rate_and_batch(epoch, run)
        return run.settings(lr, self.momentum, batch_size)

    def rate_and_batch(self, epoch: int, run: Run) -> tuple[float, int]:
        """The unrounded rate and the batch size of an epoch."""
        lr, batch_size = self.lr, self.initial_batch(run)
        limit = min(run.num_examples, self.cap or run.num_examples)
        updates = self.initial_updates(run)
        for _ in range(count_passed(self.milestones, epoch, run.num_epochs, updates)):
            grown = self.factor * batch_size
            if grown > limit:
                grown = batch_size if self.cap_mode == "switch" else max(batch_size, limit)
            lr *= grown / (batch_size * self.factor)
            batch_size = grown
        return lr, batch_size
