"""The ledger: where every allocated device-second of a run went.

A slot is what one trial runs on. It exists from the start of a run to its end, on one monotonic clock, and every second
of it belongs to one span. Whoever spends time measures it: a worker its own, the driver what a slot without a worker or
a worker without a trial cost, when it had nothing to hand out (`idle`), and how it ended. No category is a remainder:
what nobody measured is `unaccounted`, and a report shows it.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Category = Literal[
    "setup", "data", "train", "evaluate", "range_test", "features", "state",
    "recompute", "calibrate", "waiting", "between", "idle", "lost", "teardown", "unaccounted",
]  # fmt: skip
CATEGORIES: tuple[Category, ...] = get_args(Category)
_BOOT: tuple[Category, ...] = ("setup", "data", "between")
"""What a worker does before its first work: it starts, looks up what is recorded, and opens the data."""
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

    `died`: it ended before the run asked it to. `heard` is until when the driver knows of it, on the same clock: its last
    report, or its death if it had no trial then. None: its last span, for the journals of earlier versions.
    """

    spans: Sequence[Span]
    died: bool = False
    heard: float | None = None


def slot_lines(
    workers: Iterable[Worker],
    driver: Iterable[Span],
    start: float,
    end: float,
    idle: Iterable[tuple[float, float]],
    done: float | None = None,
) -> list[Span]:
    """The lines of one slot: they fill `start` to `end` without gap or overlap.

    A span is clipped to the run and to the spans before it: of two that overlap, the one that starts first counts. What
    workers measured counts before what the driver did. From a worker's death to its successor's first work all time is
    `lost`, the boot included; so is what follows the last death, until `done`. Within `between`, and
    within the driver's `setup`, the time when there was nothing to hand out is `idle`. Gaps are `unaccounted`.

    Args:
        workers: The slot's workers, in order of time.
        driver: What the driver measured of the slot while it had no worker, or a worker without a trial.
        start: When the run began, in seconds on one monotonic clock, as are all other times.
        end: When the run ended.
        idle: When the driver had nothing to hand out: (start, end), in any order and possibly overlapping.
        done: When the run began to give its devices back (`teardown`); None if it did not.

    Returns:
        Spans of positive duration, in order.
    """
    lines: list[Span] = []
    until = end if done is None else max(start, min(done, end))
    intervals = _merged(idle)
    without_worker = [*driver, Span(until, end - until, "teardown")]
    at = start
    for span in _clipped(_of_workers(workers, start, until), start, end):
        lines += _gap(at, span.start, without_worker, intervals)
        lines += _less_idle(span, intervals) if span.category == "between" else [span]
        at = span.end
    lines += _gap(at, end, without_worker, intervals)
    return [line for line in lines if line.duration_s > 0]


def joined(spans: Iterable[Span]) -> list[Span]:
    """Spans in order of time, those of one category and trial that follow each other joined: fewer lines, the same time."""
    lines: list[Span] = []
    for span in sorted(spans):
        last = lines[-1] if lines else span
        is_alike = (last.category, last.trial_id) == (span.category, span.trial_id)
        if lines and is_alike and span.start - last.end < NEGLIGIBLE_S:
            lines[-1] = last._replace(duration_s=max(last.end, span.end) - last.start)
        else:
            lines.append(span)
    return lines


def _of_workers(workers: Iterable[Worker], start: float, until: float) -> Iterator[Span]:
    """What the workers of a slot measured, and what was `lost` with those that died."""
    lost_since: float | None = None
    at = start
    for worker in workers:
        for span in sorted(worker.spans):
            if lost_since is not None:
                yield Span(lost_since, span.start - lost_since, "lost")
                is_booting = span.category in _BOOT
                span = span._replace(category="lost") if is_booting else span
                lost_since = span.end if is_booting else None
            yield span
            at = max(at, span.end)
        if not worker.died:
            lost_since = None  # it has booted, and nothing was handed to it
        elif lost_since is None:
            lost_since = at if worker.heard is None else worker.heard
    if lost_since is not None:
        yield Span(lost_since, until - lost_since, "lost")


def _clipped(spans: Iterable[Span], start: float, end: float) -> Iterator[Span]:
    """The spans in order of time, without overlap and within `start` to `end`; those of which nothing is left are skipped."""
    at = start
    for span in sorted(spans):
        begin = span.start if span.start - at >= NEGLIGIBLE_S else at
        finish = min(span.end, end)
        if finish > begin:
            yield Span(begin, finish - begin, span.category, span.trial_id)
            at = finish


def _gap(start: float, end: float, driver: Sequence[Span], idle: Sequence[tuple[float, float]]) -> Iterator[Span]:
    """The time from `start` to `end`, of which no worker told. Some of the spans may be empty."""
    if end <= start:
        return
    at = start
    for span in _clipped(driver, start, end):
        yield Span(at, span.start - at, "unaccounted")
        yield from _less_idle(span, idle) if span.category in ("between", "setup") else [span]
        at = span.end
    yield Span(at, end - at, "unaccounted")


def _less_idle(span: Span, idle: Sequence[tuple[float, float]]) -> Iterator[Span]:
    """A span, `idle` within those disjoint intervals. Some of the parts may be empty."""
    at = span.start
    first = bisect_right(idle, at, key=lambda interval: interval[1])
    for low, high in itertools.islice(idle, first, None):
        if low >= span.end:
            break
        low, high = max(low, at), min(high, span.end)
        yield Span(at, low - at, span.category, span.trial_id)
        yield Span(low, high - low, "idle")
        at = high
    yield Span(at, span.end - at, span.category, span.trial_id)


def _merged(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of intervals, as disjoint intervals in order."""
    merged: list[tuple[float, float]] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        elif high > low:
            merged.append((low, high))
    return merged
