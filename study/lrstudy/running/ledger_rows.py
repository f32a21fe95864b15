"""The ledger of all runs of a study, from its journal: the rows of ledger.parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrstudy.study_folder.ledger import Span, Worker, slot_lines

_Line = Mapping[str, Any]


@dataclass(frozen=True)
class _Run:
    """What the journal says of one run; `end` is on the driver's clock. `was_killed`: it did not record its end itself."""

    lines: Sequence[_Line]
    end: float
    was_killed: bool

    def of_kind(self, kind: str) -> list[_Line]:
        return [line for line in self.lines if line["kind"] == kind]


def ledger_rows(journal: Iterable[_Line], now: float) -> Iterator[dict[str, Any]]:
    """The rows of the ledger; times count from the start of each run's first slots.

    A slot lasts from its run's or its node's start to the end of either. A run that was killed ends at its last
    heartbeat, as the run after it found it. Of a run in progress, and of one that an earlier version left, more is
    `unaccounted`: it measured less, or has not reported it yet.

    Args:
        journal: The lines of the journal.
        now: Where the ledger of a run in progress ends, on the driver's monotonic clock.
    """
    runs: dict[int, list[_Line]] = {}
    ends: dict[int, float] = {}
    killed: set[int] = set()
    for line in journal:
        runs.setdefault(line["run"], []).append(line)
        if line["kind"] == "end":
            ends[line["run"]] = line["at"]
        elif line["kind"] == "killed":
            ends[line["of"]] = line["at"]
            killed.add(line["of"])
    for run, lines in runs.items():
        for row in _rows(_Run(lines, ends.get(run, now), run in killed)):
            yield {"run": run, **row}


def clock_offsets(lines: Iterable[_Line]) -> dict[str, float]:
    """How far the clocks of other hosts are ahead of the driver's, in seconds, by clock.

    A report says when it was sent, on the worker's clock, and when the driver heard it, on its own. It cannot have been
    heard before it was sent, so every report bounds the offset from below, and the one that was fastest on its way comes
    within that time, milliseconds, of it.
    """
    offsets: dict[str, float] = {}
    for line in lines:
        if "clock" in line:
            least = line["at"] - line["heard_at"]
            offsets[line["clock"]] = max(offsets.get(line["clock"], least), least)
    return offsets


def _rows(run: _Run) -> Iterator[dict[str, Any]]:
    """The rows of one run, without its number; none if everything was recalled and no device allocated."""
    allocated = run.of_kind("slots")
    if not allocated:
        return
    begin = min(line["start"] for line in allocated)
    left = {slot: line["at"] for line in run.of_kind("left") for slot in line["slots"]}
    idle = [(line["start"], line["end"]) for line in run.of_kind("idle")]
    done = next((line["at"] for kind in ("teardown", "done") for line in run.of_kind(kind)), None)
    reports, by_driver = _by_slot(run)
    died = {line["worker"]: line.get("heard") for line in run.of_kind("died")}
    for line in allocated:
        for slot in range(line.get("first", 0), line.get("first", 0) + line["count"]):
            workers = _workers(reports.get(slot, []), died, run.was_killed and slot not in left)
            end = left.get(slot, run.end)
            for span in slot_lines(workers, by_driver.get(slot, []), line["start"], end, idle, done):
                yield {
                    "host": line["host"],
                    "device": f"{line['device']}:{slot}",
                    "share": line["share"],
                    "start": span.start - begin,
                    "duration_s": span.duration_s,
                    "category": span.category,
                    "trial_id": span.trial_id,
                }


@dataclass(frozen=True)
class _Report:
    """A worker's report, on the driver's clock. `at` is None in the journals of earlier versions."""

    worker: str
    at: float | None
    spans: Sequence[Span]


def _by_slot(run: _Run) -> tuple[dict[int, list[_Report]], dict[int, list[Span]]]:
    """What the workers of every slot reported, and what the driver measured of it; all on the driver's clock."""
    offsets = clock_offsets(run.lines)
    reports: dict[int, list[_Report]] = {}
    by_driver: dict[int, list[Span]] = {}
    last: dict[str, float] = {}
    for line in run.lines:
        if line["kind"] == "spans":
            report = _report(line, offsets.get(line.get("clock", ""), 0.0))
            reports.setdefault(line["slot"], []).append(report)
            last[report.worker] = report.at or 0.0
        elif line["kind"] == "slot":
            start = line["start"] if "start" in line else last[line["after"]]
            if line["end"] > start:
                span = Span(start, line["end"] - start, line["category"])
                by_driver.setdefault(line["slot"], []).append(span)
    return reports, by_driver


def _report(line: _Line, offset: float) -> _Report:
    """A line of reported spans. A worker's first one says when its trial was handed out: it has been set up since."""
    spans = [Span(start - offset, *rest) for start, *rest in line["spans"]]
    if "handed_at" in line and spans and (setup_s := min(spans).start - line["handed_at"]) > 0:
        spans.insert(0, Span(line["handed_at"], setup_s, "setup"))
    at = line.get("at")
    return _Report(line["worker"], None if at is None else at - offset, spans)


def _workers(reports: Iterable[_Report], died: Mapping[str, float | None], run_was_killed: bool) -> list[Worker]:
    """The workers of one slot in order. All but the last one died; that one too if `died` says so, or with its driver."""
    spans: dict[str, list[Span]] = {}
    heard: dict[str, float | None] = {}
    for report in reports:
        spans.setdefault(report.worker, []).extend(report.spans)
        heard[report.worker] = report.at
    names = list(spans)
    if not names and run_was_killed:
        return [Worker((), died=True)]  # whoever sat here never reported: what it did is lost with the driver
    return [
        Worker(spans[name], name != names[-1] or name in died or run_was_killed, died.get(name) or heard[name])
        for name in names
    ]
