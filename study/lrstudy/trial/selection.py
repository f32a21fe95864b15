"""Which epoch of a training is judged and tested: a trial's validation value and its test result belong to this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lrstudy.memo.records import Record

Select = Literal["final", "last_cycle", "best"]


@dataclass(frozen=True)
class Selection:
    """The rule by which an epoch of a training is selected, from its records and its policy alone.

    Attributes:
        select: ``final``: the last epoch. ``best``: the first epoch with the highest `metric` on the validation part; the
            last one if none has a value. ``last_cycle``: the end of the last completed cycle of the policy's rate; the
            last epoch if none is complete.
        metric: The study's metric.
    """

    select: Select = "final"
    metric: str = ""

    def epoch(self, records: Sequence[Record], cycle_ends: Sequence[int] = ()) -> int:
        """The selected epoch, from 0, of those with `records`, at least one.

        `cycle_ends` are those of the policy (`Policy.cycle_ends`), which ``last_cycle`` alone needs.
        """
        last = len(records) - 1
        if self.select == "last_cycle":
            return max((end - 1 for end in cycle_ends if end <= len(records)), default=last)
        if self.select == "best":
            values = [(value, -epoch) for epoch, r in enumerate(records) if (value := self.value(r)) is not None]
            return -max(values)[1] if values else last
        return last

    def value(self, record: Record) -> float | None:
        """The metric on the validation part after an epoch; None where it is undefined."""
        return record.metrics.get(f"val_{self.metric}")


FINAL = Selection()
"""The last epoch."""
