"""What cyclical policies share: a clock to count their cycles on, and batches that may grow beneath them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from lrstudy.policies.base import RatePolicy, Ticks, require_absent
from lrstudy.policies.durations import Duration, count_passed
from lrstudy.policies.parameters import Factor, require
from lrstudy.policies.run import Run


@dataclass(frozen=True, kw_only=True)
class CyclicalPolicy(RatePolicy):
    """Cycles in epochs, or in updates. At each of `batch_milestones` the batch grows by `batch_factor`.

    With `clock` ``epoch`` a cycle keeps its length in epochs when the batch grows (torch's step(epoch + i / n)); with
    ``update`` it keeps its number of updates, counted at the initial batch, so that a doubled batch doubles its epochs.
    """

    clock: Literal["epoch", "update"] = "epoch"
    batch_milestones: tuple[Duration, ...] = ()
    batch_factor: Factor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_milestones:
            require(self.batch_factor is not None, "batch_factor", "a factor for batch_milestones", self.batch_factor)
        else:
            require_absent(self, ["batch_factor"], "batch_milestones")

    def batch(self, epoch: int, run: Run) -> int:
        """The batch size of an epoch. Raises InputError if it would grow beyond the training examples."""
        grown = self.initial_batch(run)
        if not self.batch_milestones:
            return grown
        for _ in range(count_passed(self.batch_milestones, epoch, run.num_epochs, self.initial_updates(run))):
            grown *= self.batch_factor or 1
        words = f"batches within the {run.num_examples} training examples, and not {grown}"
        require(grown <= run.num_examples, "batch_factor", words, self.batch_factor)
        return grown

    def ticks(self, epoch: int, run: Run) -> Ticks:
        """The updates of an epoch on this policy's clock."""
        num_updates = run.num_updates(self.batch(epoch, run))
        if self.clock == "epoch":
            return Ticks.of_epoch(epoch, num_updates)
        before = sum(run.num_updates(self.batch(earlier, run)) for earlier in range(epoch))
        return Ticks(before, num_updates, self.initial_updates(run))

    def in_updates(self, ticks: Ticks, run: Run) -> Fraction:
        """Updates per tick, counted at the initial batch: what "per update" means when the batch grows."""
        return Fraction(self.initial_updates(run), ticks.per_epoch)
