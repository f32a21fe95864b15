"""Slots: which worker occupies which slot of a run, and what the driver measures of a slot; noted in the journal."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from typing import Any

import psutil

from lrstudy.study_folder.journal import Journal
from lrstudy.study_folder.ledger import Category


@dataclass
class _Worker:
    slot: int
    host: str
    pid: int
    heard: float = 0.0  # when it made its last report
    is_free: bool = False  # that report ended its trial


class Slots:
    """Assigns workers to the slots of a run: a new one gets a free slot, else that of the worker silent for the longest.

    Workers measure their own time. The driver measures the rest: how long a slot had no worker, up to the moment when its
    worker's first trial was handed out, and how long a worker whose last trial was over was kept.

    Args:
        num_slots: How many there are.
        journal: Where all is noted.
        start: When the devices were allocated, on the monotonic clock.
    """

    def __init__(self, num_slots: int, journal: Journal, start: float = 0.0) -> None:
        self._journal = journal
        self._vacant: dict[int, tuple[float, Category]] = dict.fromkeys(range(num_slots), (start, "setup"))
        self._workers: dict[str, _Worker] = {}
        self._handed_at: dict[str, float] = {}
        self._is_closed = False

    def hand_out(self, trial_id: str) -> float:
        """Note that a trial is handed out now; returns the time. The calibration's `trial_id` is empty."""
        self._handed_at[trial_id] = time.monotonic()
        return self._handed_at[trial_id]

    def observe(self, result: dict[str, Any]) -> None:
        """Note the spans in a worker's report, which `TuneTrial` describes."""
        name = result["worker"]
        if name not in self._workers:
            self._workers[name] = _Worker(self._take_slot(result["trial"]), result["host"], result["process"])
        worker = self._workers[name]
        worker.heard, worker.is_free = result["at"], result["done"]
        self._journal.write(
            "spans", worker=name, host=worker.host, slot=worker.slot, at=worker.heard, spans=result["spans"]
        )

    def notice_deaths(self, trial_id: str) -> None:
        """Free the slots of workers on this host whose processes are gone, as that of `trial_id` is, and note that they died."""
        now = time.monotonic()
        dead = [name for name, worker in self._workers.items() if _is_gone(worker)]
        for name in dead:
            worker = self._workers.pop(name)
            self._note_death(name, worker, now)
            self._vacant[worker.slot] = (now, "lost")
        if not dead and self._vacant:  # it died before its first report
            slot = self._take_slot(trial_id)
            self._note(slot, self._handed_at.get(trial_id, now), now, "lost")
            self._vacant[slot] = (now, "lost")

    def close(self, at: float) -> None:
        """Note until when the slots were kept: at `at` the run began to give its devices back. Later calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        for name, worker in self._workers.items():
            if worker.is_free:
                self._note(worker.slot, worker.heard, at, "between")
            else:
                self._note_death(name, worker, at)
        for slot, (since, category) in self._vacant.items():
            self._note(slot, since, at, category)
        self._journal.write("teardown", at=at)

    def _note_death(self, name: str, worker: _Worker, at: float) -> None:
        """Note that a worker died. Lost is what it did since its last report, or nothing if that ended its trial."""
        if worker.is_free:
            self._note(worker.slot, worker.heard, at, "between")
        self._journal.write("died", worker=name, at=at, heard=at if worker.is_free else worker.heard)

    def _note(self, slot: int, start: float, end: float, category: Category) -> None:
        """Note what the driver measured of a slot."""
        if end > start:
            self._journal.write("slot", slot=slot, category=category, start=start, end=end)

    def _take_slot(self, trial_id: str) -> int:
        """A slot for the worker of `trial_id`, which was without one until the trial was handed out."""
        if self._vacant:
            slot = next(iter(self._vacant))
            since, category = self._vacant.pop(slot)
            self._note(slot, since, self._handed_at.get(trial_id, since), category)
            return slot
        silent = min(self._workers, key=lambda name: self._workers[name].heard)
        return self._workers.pop(silent).slot


def _is_gone(worker: _Worker) -> bool:
    return worker.host == platform.node() and not _is_alive(worker.pid)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
