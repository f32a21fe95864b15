"""Slots: which worker occupies which slot of a run, and what the driver measures of a slot; noted in the journal.

A slot lies on a node, and comes and goes with it. Times are those of the driver's monotonic clock. What workers measure
is noted as they measured it; where a worker reads another clock, the note says which, and when the driver heard of it,
so that the ledger can tell how far the two clocks are apart.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from lrstudy.study_folder import clock
from lrstudy.study_folder.journal import Journal
from lrstudy.study_folder.ledger import Category


@dataclass(frozen=True)
class Node:
    """A node that workers run on: its identity in the cluster, its host's name, and how many trials fit at once.

    This machine alone is the node "": workers are not asked which node they are on.
    """

    node_id: str
    host: str
    num_slots: int


@dataclass
class _Worker:
    slot: int
    host: str
    pid: int
    clock: str
    heard: float = 0.0  # when it made its last report, on its own clock
    is_free: bool = False  # that report ended its trial


class Slots:
    """Assigns workers to the slots of a run: a new one gets a free slot of its node, else that of its most silent worker.

    Workers measure their own time. The driver measures the rest: how long a slot had no worker, up to the moment when its
    worker's first trial was handed out, and how long a worker whose last trial was over was kept.

    Args:
        journal: Where all is noted.
        device: What a slot is a share of, ``cuda`` or ``cpu``.
        share: How many devices a slot occupies.
        limit: The most slots that the run takes of a cluster, which may have to grow for them; None: all that there are.
    """

    def __init__(self, journal: Journal, device: str, share: float, limit: int | None = None) -> None:
        self._journal, self._device, self._share, self._limit = journal, device, share, limit
        self._nodes: dict[int, Node] = {}  # by slot
        self._synced: list[Node] = []
        self._num_made = 0
        self._vacant: dict[int, tuple[float, Category]] = {}
        self._workers: dict[str, _Worker] = {}
        self._handed_at: dict[str, float] = {}
        self._homes: dict[str, str] = {}  # the node of every worker that has ever reported
        self._lost: set[str | None] = set()
        self._clock = clock.identity()
        self._is_closed = False

    @property
    def wanted(self) -> int:
        """How many trials may run or wait for a device: what fits, or what a growing cluster is to grow to; at least 1.

        With no trial waiting a cluster would not grow, and Tune would wait for one to be suggested, doing nothing else.
        """
        return self._limit or max(1, len(self._nodes))

    def sync(self, nodes: list[Node], at: float) -> None:
        """Follow the cluster: slots of new nodes begin at `at`, those of lost nodes end."""
        if nodes == self._synced:
            return
        self._synced = list(nodes)
        present = {node.node_id for node in nodes}
        if gone := {node.node_id for node in self._nodes.values()} - present:
            self._lost |= gone
            self._leave([slot for slot, node in self._nodes.items() if node.node_id in gone], at)
        for node in nodes:
            mine = sum(one.node_id == node.node_id for one in self._nodes.values())
            room = node.num_slots if self._limit is None else min(node.num_slots, self._limit - len(self._nodes) + mine)
            if room > mine:
                self._add(node, room - mine, at)

    def hand_out(self, trial_id: str) -> float:
        """Note that a trial is handed out now; returns the time. The calibration's `trial_id` is empty."""
        self._handed_at[trial_id] = time.monotonic()
        return self._handed_at[trial_id]

    def observe(self, result: dict[str, Any]) -> None:
        """Note the spans in a worker's report, which `TuneTrial` describes."""
        name = result["worker"]
        more: dict[str, Any] = {}
        if name not in self._workers:
            slot = self._take_slot(result["trial"], result["node"], result["host"])
            self._workers[name] = _Worker(slot, result["host"], result["process"], result["clock"])
            self._homes[name] = self._nodes[slot].node_id
            if result["trial"] in self._handed_at:
                more["handed_at"] = self._handed_at[result["trial"]]
        worker = self._workers[name]
        worker.heard, worker.is_free = result["at"], result["done"]
        if not self._shares_clock(worker):
            more |= {"clock": worker.clock, "heard_at": time.monotonic()}
        self._journal.write(
            "spans", worker=name, host=worker.host, slot=worker.slot, at=worker.heard, spans=result["spans"], **more
        )

    def notice_deaths(self, trial_id: str, worker: str | None = None) -> None:
        """Free the slots of workers that are gone, and note that they died.

        These are the `worker` that had the trial, if that is known, and those on this host whose processes are gone. One
        that went with its node has been noted.
        """
        if self.has_lost(self.node_of(worker)):
            return
        now = time.monotonic()
        dead = [name for name, one in self._workers.items() if name == worker or self._is_gone(one)]
        for name in dead:
            one = self._workers.pop(name)
            self._note_death(name, one, now)
            self._vacant[one.slot] = (now, "lost")
        if not dead and self._vacant:  # it died before its first report
            slot = next(iter(self._vacant))
            self._end_vacancy(slot, self._handed_at.get(trial_id, now))
            self._note(slot, self._handed_at.get(trial_id, now), now, "lost")
            self._vacant[slot] = (now, "lost")

    def node_of(self, worker: str | None) -> str | None:
        """The node of a worker that has reported something, also when both are gone; else None."""
        return self._homes.get(worker or "")

    def has_lost(self, node_id: str | None) -> bool:
        """Whether a node was there once and is gone."""
        return node_id in self._lost

    def close(self, at: float) -> None:
        """Note until when the slots were kept: at `at` the run began to give its devices back. Later calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._let_go(list(self._nodes), at)
        self._journal.write("teardown", at=at)

    def _add(self, node: Node, count: int, at: float) -> range:
        """Note that a node has `count` more slots from `at` on; returns them."""
        made = range(self._num_made, self._num_made + count)
        self._num_made += count
        self._journal.write(
            "slots", first=made[0], count=count, start=at, share=self._share, device=self._device, host=node.host
        )
        self._nodes |= dict.fromkeys(made, node)
        self._vacant |= dict.fromkeys(made, (at, "setup"))
        return made

    def _leave(self, slots: Sequence[int], at: float) -> None:
        """Note that slots are gone, with the workers that were there."""
        self._let_go(slots, at)
        self._journal.write("left", slots=list(slots), at=at)
        for slot in slots:
            del self._nodes[slot]
            self._vacant.pop(slot, None)
        self._workers = {name: worker for name, worker in self._workers.items() if worker.slot in self._nodes}

    def _let_go(self, slots: Sequence[int], at: float) -> None:
        """Note what is still open of slots that end at `at`: vacancies, and workers with and without a trial."""
        for name, worker in self._workers.items():
            if worker.slot not in slots:
                continue
            if worker.is_free:
                self._note_free(name, worker, at)
            else:
                self._note_death(name, worker, at)
        for slot in slots:
            if slot in self._vacant:
                self._end_vacancy(slot, at)

    def _note_death(self, name: str, worker: _Worker, at: float) -> None:
        """Note that a worker died. Lost is what it did since its last report, or nothing if that ended its trial."""
        if worker.is_free:
            self._note_free(name, worker, at)
        heard = at if worker.is_free else worker.heard if self._shares_clock(worker) else None
        self._journal.write("died", worker=name, at=at, heard=heard)

    def _note_free(self, name: str, worker: _Worker, until: float) -> None:
        """Note that a worker had no trial since its last report."""
        if self._shares_clock(worker):
            self._note(worker.slot, worker.heard, until, "between")
        else:  # the ledger knows when its last report was on the driver's clock
            self._journal.write("slot", slot=worker.slot, category="between", after=name, end=until)

    def _note(self, slot: int, start: float, end: float, category: Category) -> None:
        """Note what the driver measured of a slot."""
        if end > start:
            self._journal.write("slot", slot=slot, category=category, start=start, end=end)

    def _take_slot(self, trial_id: str, node_id: str, host: str) -> int:
        """A slot for the worker of `trial_id`, which was without one until the trial was handed out."""
        vacant = next((slot for slot in self._vacant if self._nodes[slot].node_id in ("", node_id)), None)
        if vacant is not None:
            self._end_vacancy(vacant, self._handed_at.get(trial_id, self._vacant[vacant][0]))
            del self._vacant[vacant]
            return vacant
        on_node = [name for name, one in self._workers.items() if self._nodes[one.slot].node_id in ("", node_id)]
        if on_node:
            return self._workers.pop(min(on_node, key=lambda name: self._workers[name].heard)).slot
        return self._move_here(trial_id, Node(node_id, host, 1))

    def _move_here(self, trial_id: str, node: Node) -> int:
        """A slot on a node that has none: the run takes one less of another node, if one is vacant there."""
        at = self._handed_at.get(trial_id, time.monotonic())
        if self._vacant:
            self._leave([next(iter(self._vacant))], at)
        (slot,) = self._add(node, 1, at)
        del self._vacant[slot]
        return slot

    def _end_vacancy(self, slot: int, at: float) -> None:
        since, category = self._vacant[slot]
        self._note(slot, since, at, category)

    def _shares_clock(self, worker: _Worker) -> bool:
        return worker.clock == self._clock

    def _is_gone(self, worker: _Worker) -> bool:
        """Whether a worker's process is gone; on nodes of a cluster that cannot be looked up."""
        return self._nodes[worker.slot].node_id == "" and not _is_alive(worker.pid)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
