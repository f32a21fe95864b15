"""Slots: which worker sits where, noted in the journal as its reports come."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from typing import Any

import psutil

from lrstudy.study_folder.journal import Journal


@dataclass
class _Seat:
    slot: int
    host: str
    pid: int
    heard: float = 0.0


class Slots:
    """Assigns workers to the slots of a run. A new worker takes a free slot, else that of the one unheard of longest."""

    def __init__(self, count: int, journal: Journal) -> None:
        self._journal = journal
        self._free = list(range(count))
        self._seats: dict[str, _Seat] = {}

    def observe(self, result: dict[str, Any]) -> None:
        """Note the spans of a worker's report."""
        worker = result["worker"]
        if worker not in self._seats:
            self._seats[worker] = _Seat(self._take_slot(), result["host"], result["process"])
        seat = self._seats[worker]
        if result["spans"]:
            seat.heard = max(start + duration for start, duration, *_ in result["spans"])
            self._journal.write("spans", worker=worker, host=seat.host, slot=seat.slot, spans=result["spans"])

    def notice_deaths(self) -> None:
        """Free the slots of workers on this host whose processes are gone, and note that they died."""
        for worker, seat in list(self._seats.items()):
            if seat.host == platform.node() and not _is_alive(seat.pid):
                self._free.append(seat.slot)
                del self._seats[worker]
                self._journal.write("died", worker=worker, at=time.monotonic())

    def _take_slot(self) -> int:
        if self._free:
            return self._free.pop(0)
        gone = min(self._seats, key=lambda worker: self._seats[worker].heard)
        return self._seats.pop(gone).slot


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
