"""The limits of a study: what all its runs have taken, and whether that ends the admission of trials."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lrstudy.config import StudyFile
from lrstudy.running.admission import Admission
from lrstudy.study_folder.journal import Journal


@dataclass(frozen=True)
class Taken:
    """How long runs had devices, one after the other, and how many device-seconds that were."""

    wall_s: float = 0.0
    device_s: float = 0.0

    def __add__(self, other: Taken) -> Taken:
        return Taken(self.wall_s + other.wall_s, self.device_s + other.device_s)


NOTHING = Taken()


class Limits:
    """Stops the admission of trials once all runs of the study together reach a limit; running trials finish.

    `elsewhere` is what the file's other workloads have taken, if it has several: the limits are those of all of them.
    """

    def __init__(self, study: StudyFile, journal: Journal, elsewhere: Taken) -> None:
        self._limits, self._journal, self._elsewhere = study.limits, journal, elsewhere

    def enforce(self, admission: Admission) -> None:
        """Stop the admission if a limit is reached."""
        wall_s, gpu_hours = self._limits.wall_s, self._limits.gpu_hours
        if wall_s is None and gpu_hours is None:
            return
        total = taken(self._journal) + self._elsewhere
        if wall_s is not None and total.wall_s >= wall_s:
            admission.stop(f"limits.wall ({self._limits.wall}) is reached, all runs of the study together")
        if gpu_hours is not None and total.device_s >= gpu_hours * 3600:
            admission.stop(f"limits.gpu_hours ({gpu_hours:g}) is reached")


def taken(journal: Journal) -> Taken:
    """What all runs in a journal have taken; of the run that has opened it, until now."""
    slots = list(_slots(journal))
    begun = {run: min(start for of, start, *_ in slots if of == run) for run, *_ in slots}
    ended = {run: max(end for of, _, end, _ in slots if of == run) for run, *_ in slots}
    wall_s = sum(ended[run] - begun[run] for run in begun)
    return Taken(wall_s, sum((end - start) * share for _, start, end, share in slots))


def unfinished_runs(journal: Journal) -> list[int]:
    """The runs that allocated devices and did not record their end, the one under way included."""
    started = {line["run"] for line in journal.of_kind("slots")}
    ended = {line["run"] for line in journal.of_kind("end")} | {line["of"] for line in journal.of_kind("killed")}
    return sorted(started - ended)


def last_sign_of_life(journal: Journal, run: int, holder: Mapping[str, Any] | None = None) -> float:
    """When a killed run was last known to be alive, on its own clock: its last heartbeat or measured span.

    `holder` is what the driver lock said of it, if that is known.
    """
    lines = [line for line in journal.of_kind("spans") if line["run"] == run]
    ends = [start + duration for line in lines if "clock" not in line for start, duration, *_ in line["spans"]]
    ends += [line["heard_at"] for line in lines if "clock" in line]  # its spans are on another clock
    starts = [line["start"] for line in journal.of_kind("slots") if line["run"] == run]
    heartbeat = [holder["heartbeat"]] if holder and "heartbeat" in holder else []
    return float(max([*starts, *ends, *heartbeat]))


def _slots(journal: Journal) -> Iterator[tuple[int, float, float, float]]:
    """Of every slot of every run: the run, from when until when it was taken (until now, if it still is), and its share.

    A run that was killed lasted until its last sign of life.
    """
    ends = {line["run"]: line["at"] for line in journal.of_kind("end")}
    ends |= {line["of"]: line["at"] for line in journal.of_kind("killed")}
    ends |= {
        run: last_sign_of_life(journal, run)
        for run in unfinished_runs(journal)
        if not (journal.is_open and run == journal.run)
    }
    left = {(line["run"], slot): line["at"] for line in journal.of_kind("left") for slot in line["slots"]}
    for line in journal.of_kind("slots"):
        run, first = line["run"], line.get("first", 0)
        end = ends.get(run, time.monotonic())
        for slot in range(first, first + line["count"]):
            yield run, line["start"], left.get((run, slot), end), line["share"]
