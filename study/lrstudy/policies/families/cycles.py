"""What cyclical policies share: the clock that measures their cycles, and a batch that may grow meanwhile."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from lrstudy.policies.base import RatePolicy, Ticks, completed_cycles, require_absent
from lrstudy.policies.durations import Duration, count_passed
from lrstudy.policies.parameters import Factor, require
from lrstudy.policies.run import Run


@dataclass(frozen=True, kw_only=True)
class CyclicalPolicy(RatePolicy):
    """A policy whose rate is cyclical, and whose batch may grow at milestones.

    Attributes:
        clock: What a cycle keeps when the batch grows: its length in epochs (``epoch``, as torch's step(epoch + i / n)),
            or its number of updates, counted at the initial batch (``update``), so that a doubled batch doubles its
            length in epochs.
        batch_milestones: When the batch grows, rounded to whole epochs.
        batch_factor: What the batch is multiplied by at each of them; only with `batch_milestones`.
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

    @abstractmethod
    def cycle_lengths(self, run: Run) -> Iterator[Fraction]:
        """The lengths of the cycles on this policy's clock, without end."""

    def cycle_ends(self, run: Run) -> tuple[int, ...]:
        """After how many epochs each cycle ends that the budget completes."""
        ticks = [self.ticks(epoch, run) for epoch in range(run.num_epochs)]
        clock = [Fraction(each.first + each.count, each.per_epoch) for each in ticks]
        return completed_cycles(self.cycle_lengths(run), clock)

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
        """Updates at the initial batch per tick, for parameters that are "per update" when the batch grows."""
        return Fraction(self.initial_updates(run), ticks.per_epoch)
