"""The ledger: where every allocated device-second of a run went.

A slot is what one trial runs on. It exists from the start of the run to its end, on one monotonic
clock, and every second of it belongs to one span. Workers measure their own time as contiguous spans;
the driver measures when it had nothing to hand out (`idle`). Nothing is a remainder except
`unaccounted`, which a report shows.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Category = Literal[
    "setup", "data", "train", "evaluate", "range_test", "features", "state",
    "recompute", "calibrate", "waiting", "between", "idle", "lost", "teardown",
]  # fmt: skip
CATEGORIES: tuple[Category, ...] = get_args(Category)
NEGLIGIBLE_S = 1e-3
"""A shorter gap between spans is a worker's own bookkeeping; it goes to the span that follows."""


class Span(NamedTuple):
    """`duration_s` seconds of a slot from `start` (monotonic clock of the host).

    A tuple, because a large study has hundreds of thousands: five times faster than a frozen dataclass.
    """

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
    """The lines of one slot, given its workers in order of time: they fill `start` to `end` without gap or overlap.

    Before the first worker there is `setup`, after `done` (the last trial's end) `teardown`. From the last span of
    a worker that died to the end of its successor's boot (its `setup` and `data`) the time is `lost`. In any other
    gap, and between trials, it is `idle` where the driver had nothing to hand out; what is left of a gap is `waiting`.
    Where spans overlap, the one that starts first holds.
    """
    lines: list[Span] = []
    idle = _merged(idle)
    at, lost = start, False
    for worker in workers:
        for span in sorted(worker.spans):
            begin = span.start if span.start - at >= NEGLIGIBLE_S else at
            finish = min(span.end, end)
            if finish <= begin:
                continue
            if begin > at:
                lines += _gap(at, begin, "lost" if lost else "waiting" if lines else "setup", idle)
            lost = lost and span.category in ("setup", "data")
            if span.category == "between" and not lost:
                lines += _gap(begin, finish, "between", idle, span.trial_id)
            else:
                lines.append(Span(begin, finish - begin, "lost" if lost else span.category, span.trial_id))
            at = finish
        lost = worker.died or (lost and not worker.spans)
    closing = max(at, min(done, end))
    lines += _gap(at, closing, "lost" if lost else "waiting" if lines else "setup", idle)
    lines.append(Span(closing, end - closing, "lost" if lost else "teardown"))
    return [line for line in lines if line.duration_s > 0]


def _gap(
    start: float, end: float, category: Category, idle: Sequence[tuple[float, float]], trial_id: str = ""
) -> list[Span]:
    """[start, end] as `category`, and `idle` where the driver had nothing to hand out, unless the time is lost."""
    lines, at = [], start
    first = bisect_right(idle, start, key=lambda interval: interval[1]) if category != "lost" else len(idle)
    for low, high in itertools.islice(idle, first, None):
        if low >= end:
            break
        low, high = max(low, at), min(high, end)
        lines += [Span(at, low - at, category, trial_id), Span(low, high - low, "idle")]
        at = high
    return [*lines, Span(at, end - at, category, trial_id)]


def _merged(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same times as disjoint intervals in order."""
    merged: list[tuple[float, float]] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        elif high > low:
            merged.append((low, high))
    return merged
