"""Slots: which worker occupies which slot of a run, noted in the journal when the worker reports."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from typing import Any

import psutil

from lrstudy.study_folder.journal import Journal


@dataclass
class _Worker:
    slot: int
    host: str
    pid: int
    last_heard: float = 0.0  # end of its last span, on its monotonic clock


class Slots:
    """Assigns workers to the slots of a run: a new one gets a free slot, else that of the worker silent for the longest."""

    def __init__(self, num_slots: int, journal: Journal) -> None:
        self._journal = journal
        self._free = list(range(num_slots))
        self._workers: dict[str, _Worker] = {}

    def observe(self, result: dict[str, Any]) -> None:
        """Note the spans in a worker's report, which `TuneTrial` describes."""
        name = result["worker"]
        if name not in self._workers:
            self._workers[name] = _Worker(self._take_slot(), result["host"], result["process"])
        worker = self._workers[name]
        if result["spans"]:
            worker.last_heard = max(start + duration_s for start, duration_s, *_ in result["spans"])
            self._journal.write("spans", worker=name, host=worker.host, slot=worker.slot, spans=result["spans"])

    def notice_deaths(self) -> None:
        """Free the slots of workers on this host whose processes are gone, and note that they died."""
        for name, worker in list(self._workers.items()):
            if worker.host == platform.node() and not _is_alive(worker.pid):
                self._free.append(worker.slot)
                del self._workers[name]
                self._journal.write("died", worker=name, at=time.monotonic())

    def _take_slot(self) -> int:
        if self._free:
            return self._free.pop(0)
        silent = min(self._workers, key=lambda name: self._workers[name].last_heard)
        return self._workers.pop(silent).slot


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
