"""Slots: which worker sits where, noted in the journal as its reports come."""

from __future__ import annotations

from typing import Any

from lrstudy.journal import Journal


class Slots:
    """Assigns workers to the slots of a run. A new worker takes a free slot, else that of the one unheard of longest."""

    def __init__(self, count: int, journal: Journal) -> None:
        self._journal = journal
        self._free = list(range(count))
        self._slot: dict[str, int] = {}
        self._heard: dict[str, float] = {}
        self._trial: dict[str, str] = {}

    def observe(self, result: dict[str, Any]) -> None:
        """Note the spans of a worker's report."""
        worker = result["worker"]
        if worker not in self._slot:
            self._slot[worker] = self._place(result["trial"])
        self._trial[worker] = result["trial"]
        if result["spans"]:
            self._heard[worker] = max(start + duration for start, duration, *_ in result["spans"])
            self._journal.write(
                "spans", worker=worker, host=result["host"], slot=self._slot[worker], spans=result["spans"]
            )

    def _place(self, trial: str) -> int:
        if self._free:
            return self._free.pop(0)
        same_trial = [worker for worker in self._slot if self._trial[worker] == trial]
        gone = same_trial[0] if same_trial else min(self._slot, key=lambda worker: self._heard.get(worker, 0.0))
        return self._slot.pop(gone)
