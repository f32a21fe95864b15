"""The ledger: where every allocated device-second of a run went.

A slot is what one trial runs on. It exists from the start of the run to its end, on one monotonic
clock, and every second of it belongs to one span. Workers measure their own time as contiguous spans;
the driver measures when it had nothing to hand out (`idle`). Nothing is a remainder except
`unaccounted`, which a report shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Category = Literal[
    "setup", "data", "train", "evaluate", "range_test", "features", "state",
    "recompute", "waiting", "between", "idle", "lost", "teardown",
]  # fmt: skip
CATEGORIES: tuple[Category, ...] = get_args(Category)


@dataclass(frozen=True, order=True)
class Span:
    """`duration_s` seconds of a slot from `start` (monotonic clock of the host)."""

    start: float
    duration_s: float
    category: Category
    trial_id: str = ""

    @property
    def end(self) -> float:
        """Where the span ends, on the same clock."""
        return self.start + self.duration_s


@dataclass(frozen=True)
class Worker:
    """The measured life of one worker process, as the driver knows it.

    `spans` are contiguous from the process's start. `died` is true if it ended before the run asked it to.
    """

    spans: Sequence[Span]
    died: bool = False


def slot_lines(
    workers: Iterable[Worker], start: float, end: float, idle: Sequence[tuple[float, float]], done: float
) -> list[Span]:
    """The lines of one slot from `start` to `end`, given its workers in order of time.

    Before the first worker there is `setup`, after `done` (the last trial's end) `teardown`. From the last span of
    a worker that died to the first training of its successor the time is `lost`, the successor's boot included.
    Any other gap is `idle` where the driver had nothing to hand out, else `waiting`.
    """
    lines: list[Span] = []
    at, lost = start, False
    for number, worker in enumerate(workers):
        spans = sorted(worker.spans)
        if not spans:
            continue
        if spans[0].start > at:
            lines += _gap(at, spans[0].start, "setup" if number == 0 else "lost" if lost else "waiting", idle)
            at = spans[0].start
        for span in spans:
            begin, finish = max(span.start, at, start), min(span.end, end)
            if finish <= begin:
                continue
            if begin > at + 1e-9:
                lines += _gap(at, begin, "waiting", idle)
            boot = lost and span.category in ("setup", "data")
            lines += (
                _gap(begin, finish, "between", idle, span.trial_id)
                if span.category == "between"
                else [Span(begin, finish - begin, "lost" if boot else span.category, span.trial_id)]
            )
            lost = lost and boot
            at = finish
        lost = worker.died
    if at < end:
        closing = max(at, min(done, end))
        lines += _gap(at, closing, "lost" if lost else "setup" if not lines else "waiting", idle)
        lines.append(Span(closing, end - closing, "lost" if lost else "teardown"))
    return [line for line in lines if line.duration_s > 0]


def _gap(
    start: float, end: float, category: Category, idle: Sequence[tuple[float, float]], trial_id: str = ""
) -> list[Span]:
    """Split [start, end] into `idle`, where the driver had nothing to hand out, and `category`."""
    if category in ("lost", "setup"):
        return [Span(start, end - start, category, trial_id)]
    lines, at = [], start
    for low, high in sorted(idle):
        low, high = max(low, at), min(high, end)
        if high <= low:
            continue
        lines.append(Span(at, low - at, category, trial_id))
        lines.append(Span(low, high - low, "idle"))
        at = high
    lines.append(Span(at, end - at, category, trial_id))
    return lines
