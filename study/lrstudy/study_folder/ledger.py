"""The ledger: where every allocated device-second of a run went.

A slot is what one trial runs on. It exists from the start of a run to its end, on one monotonic clock,
and every second of it belongs to one span. Workers measure their own time as contiguous spans; the
driver measures when it had nothing to hand out (`idle`). No category is a remainder: what nobody
measured is `unaccounted`, and a report shows it.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Category = Literal[
    "setup", "data", "train", "evaluate", "range_test", "features", "state",
    "recompute", "calibrate", "waiting", "between", "idle", "lost", "teardown",
]  # fmt: skip
CATEGORIES: tuple[Category, ...] = get_args(Category)
_BOOT: tuple[Category, ...] = ("setup", "data")
"""What a worker does before its first trial."""
NEGLIGIBLE_S = 1e-3
"""A shorter gap between spans is a worker's own bookkeeping, which counts to the span that follows."""


class Span(NamedTuple):
    """A slot's time from `start`, on the host's monotonic clock, for `duration_s` seconds.

    A named tuple, because a large study has hundreds of thousands: five times as fast as a frozen dataclass.
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
    """What one worker process measured, as far as the driver knows.

    `spans` are contiguous from the start of the process. `died`: it ended before the run asked it to.
    """

    spans: Sequence[Span]
    died: bool = False


def slot_lines(
    workers: Iterable[Worker], start: float, end: float, idle: Sequence[tuple[float, float]], done: float
) -> list[Span]:
    """The lines of one slot: they fill `start` to `end` without gap or overlap.

    A span is clipped to the run and to the spans before it: of two that overlap, the one that starts first counts. A
    gap is `setup` before the first span, then `waiting`, and `teardown` after `done`. From a worker's death to its
    successor's first work all time is `lost`, the boot (`setup` and `data`) included; so is what follows the last
    death. In gaps that are neither `lost` nor `teardown`, and in `between`, the time when the driver had nothing to
    hand out is `idle`.

    Args:
        workers: The slot's workers, in order of time.
        start: When the run began, in seconds on one monotonic clock, as are all other times.
        end: When the run ended.
        idle: When the driver had nothing to hand out: (start, end), in any order and possibly overlapping.
        done: When the last trial ended.

    Returns:
        Spans of positive duration, in order.
    """
    lines: list[Span] = []
    idle, at = _merged(idle), start
    gap: Category = "setup"  # what a gap before the next span would be
    for worker in workers:
        for begin, finish, span in _clipped(worker.spans, at, end):
            if begin > at:
                lines += _gap(at, begin, gap, idle)
            is_lost = gap == "lost" and span.category in _BOOT
            category = "lost" if is_lost else span.category
            if category == "between":
                lines += _gap(begin, finish, category, idle, span.trial_id)
            else:
                lines.append(Span(begin, finish - begin, category, span.trial_id))
            at, gap = finish, "lost" if is_lost else "waiting"
        if worker.died:
            gap = "lost"
        elif gap == "lost" and worker.spans:  # it has booted, and nothing was handed to it
            gap = "waiting" if lines else "setup"
    last = max(at, min(done, end))
    lines += _gap(at, last, gap, idle)
    lines.append(Span(last, end - last, "lost" if gap == "lost" else "teardown"))
    return [line for line in lines if line.duration_s > 0]


def _clipped(spans: Iterable[Span], start: float, end: float) -> Iterator[tuple[float, float, Span]]:
    """Yield (start, end, span) in order of time; spans of which clipping leaves nothing are skipped."""
    at = start
    for span in sorted(spans):
        begin = span.start if span.start - at >= NEGLIGIBLE_S else at
        finish = min(span.end, end)
        if finish > begin:
            yield begin, finish, span
            at = finish


def _gap(
    start: float, end: float, category: Category, idle: Sequence[tuple[float, float]], trial_id: str = ""
) -> list[Span]:
    """The time from `start` to `end`, when nothing was run: `idle` within those disjoint intervals, else `category`.

    What is `lost` is lost as a whole. Some of the spans may be empty.
    """
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
    """The union of intervals, as disjoint intervals in order."""
    merged: list[tuple[float, float]] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        elif high > low:
            merged.append((low, high))
    return merged
