"""A driver's work at hundreds of slots, without Ray: all that it runs is real, training and time are simulated.

Admission, protocol, searchers, slots, journal, memo and tables are the engine's own, called as ray_tune/adapter.py calls
them. A simulated worker reports every epoch by itself, as real ones do whose epochs take longer than half a second, and
the end of its trial in one more report. CPU seconds are counted by part of the driver; what simulates is not counted.
"""

from __future__ import annotations

import gc
import heapq
import pickle
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from lrstudy.memo import objects
from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.planning.plan import Plan
from lrstudy.ray_tune.slots import Node, Slots
from lrstudy.running.admission import Admission
from lrstudy.running.tables import TableWriter
from lrstudy.running.trials import Trial
from lrstudy.settings import Settings
from lrstudy.study_folder.journal import Journal
from lrstudy.trial.spec import TrialSpec

SLOTS_PER_NODE = 8
BOOT_S, BETWEEN_S = 10.0, 0.02
PARTS = ("protocol", "admission", "slots, journal", "memo")
REQUESTS = ("get", "list", "put", "delete")


_Applied = tuple[str, int, int]
"""Of the settings of an epoch: digest, batch size, number of updates."""


@dataclass
class Driven:
    """What driving a study cost. CPU seconds by part, requests to the storage by kind, and sizes at the end.

    `tables_s` are CPU seconds of writing all tables at the end, once more; `resident_bytes` is what the process
    grew by, the tables' own memory included; `span_s` is simulated time.
    """

    slots: int
    trials: int = 0
    reports: int = 0
    span_s: float = 0.0
    cpu_s: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    tables_s: float = 0.0
    journal_bytes: int = 0
    resident_bytes: int = 0

    def cpu_per_trial_s(self, *parts: str) -> float:
        """CPU seconds of some parts per trial; of all but the tables if none is named."""
        return sum(self.cpu_s[name] for name in parts or PARTS) / self.trials


def drive(plan: Plan, folder: Path, slots: int, epoch_s: float) -> Driven:
    """Run a study to its end on `slots` slots, with epochs of about `epoch_s`; write all tables near its end and at it."""
    return _Run(plan, folder, slots, epoch_s).run()


class Stopwatch:
    """CPU seconds by part; of parts within each other, each has its own."""

    def __init__(self) -> None:
        self.cpu_s: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = 0.0

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, whose time counts to `part`."""

        def measured(*arguments: Any, **more: Any) -> Any:
            with self.measuring(part):
                return work(*arguments, **more)

        return measured

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        self._turn()
        self._open.append(part)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = time.thread_time()
        if self._open:
            self.cpu_s[self._open[-1]] += now - self._since
        self._since = now


class _Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.76e9 + self.now


@dataclass
class _Worker:
    """A worker on its slot, with a trial or without one. `last` is when it made its last report."""

    number: int
    node: Node
    last: float
    trial: Trial | None = None

    def begin(self, trial: Trial, settings: list[_Applied], now: float) -> None:
        """Take up a trial; the epochs that are recorded become part of its next report."""
        self.trial, self._settings, self._walked, self._records = trial, settings, 0, list[Record]()
        self._spans: list[list[Any]] = [[self.last, now + BETWEEN_S - self.last, "between"]]

    def recall(self, known: Callable[[str], Record | None]) -> bool:
        """Go on over the epochs that are recorded; returns whether there are others."""
        assert self.trial is not None
        chain = self.trial.chain
        while self._walked < len(chain) and (record := known(chain[self._walked])) is not None:
            self._records.append(record)
            self._walked += 1
        return self._walked < len(chain)

    def report(self, now: float, length: float | None) -> dict[str, Any]:
        """A report of an epoch that took `length` seconds, or of the trial's end, as trainable.py makes it."""
        assert self.trial is not None
        trial_id, spans = self.trial.trial_id, self._spans
        if length is not None:
            self._records.append(self._record(length))
            self._walked += 1
            start = now - length
            spans += [
                [start, 0.001, "waiting"], [start + 0.001, 0.9 * length - 0.001, "train"],
                [start + 0.9 * length, 0.08 * length, "evaluate"], [start + 0.98 * length, 0.02 * length, "state"],
            ]  # fmt: skip
        result = {
            "trial": trial_id, "worker": f"{self.number:032x}", "node": self.node.node_id, "host": self.node.host,
            "process": self.number, "clock": f"boot of {self.node.host}", "at": now,
            "records": [asdict(record) for record in self._records],
            "spans": [[*span, trial_id] for span in spans], "done": length is None,
        }  # fmt: skip
        self._spans, self._records, self.last = [], [], now
        return pickle.loads(pickle.dumps(result))  # a driver shares no objects with its workers

    def _record(self, length: float) -> Record:
        """The record of the next epoch: metrics that look random, and depend on its name alone."""
        trial, epoch = self.trial, self._walked
        assert trial is not None
        (digest, batch_size, updates), name, root = self._settings[epoch], trial.chain[epoch], trial.spec.root
        value = int(name[:8], 16) / 2**32
        return Record(
            lineage=name, parent=trial.chain[epoch - 1] if epoch else root.name(), root=root.name(), epoch=epoch,
            settings=digest, state=name[::-1], diverged=False, batch_size=batch_size, updates=updates, examples=100,
            metrics={"train_loss": value, "val_loss": value} | {f"val_{m}": 1 - value for m in ("accuracy", "balanced_accuracy", "nll")},
            train_s=0.9 * length, eval_s=0.08 * length, state_s=0.02 * length, device_kind="cuda: simulated",
            device_share=1.0, device_s=length, host=self.node.host, created_at=1.76e9 + self.last,
            origin=dict(trial.spec.origin) | {"trial": trial.trial_id},
        )  # fmt: skip


class _Run:
    def __init__(self, plan: Plan, folder: Path, slots: int, epoch_s: float) -> None:
        self.plan, self.folder, self.epoch_s = plan, folder, epoch_s
        self.driven, self.watch, self.clock = Driven(slots), Stopwatch(), _Clock()
        self.rng = random.Random(0)
        self.settings: dict[str, list[_Applied]] = {}
        self.num_ended = 0
        self.events: list[tuple[float, int, _Worker, float | None]] = []
        self.nodes = [
            Node(f"{number:056x}", f"node-{number}", min(SLOTS_PER_NODE, slots - first))
            for number, first in enumerate(range(0, slots, SLOTS_PER_NODE))
        ]

    def run(self) -> Driven:
        gc.collect()
        before, driven = _resident_bytes(), self.driven
        with ExitStack() as stack:
            for module in ("running.admission", "ray_tune.slots"):
                stack.enter_context(mock.patch(f"lrstudy.{module}.time", self.clock))
            driven.requests = stack.enter_context(counted())
            stack.enter_context(mock.patch.object(TrialSpec, "untriggered", self._untriggered()))
            self._begin()
            self._fill()
            while self.events:
                self.clock.now, _, worker, length = heapq.heappop(self.events)
                self._heard(worker, length)
                self._fill()
            assert self.admission.is_done, "trials wait and nothing runs"
            with self.watch.measuring("slots, journal"):
                self.slots.close(self.clock.now)
            driven.tables_s = self._write_tables()
        driven.cpu_s, driven.trials = self.watch.cpu_s, len(self.admission.trials)
        driven.span_s = self.clock.now - 1000.0
        driven.journal_bytes = sum(path.stat().st_size for path in (self.folder / "journal").iterdir())
        gc.collect()
        driven.resident_bytes = _resident_bytes() - before
        return driven

    def _begin(self) -> None:
        watch, memo = self.watch, Memo(self.folder / "memo")
        self.journal = Journal(self.folder / "journal")
        self.journal.open_run()
        with watch.measuring("protocol"):
            self.admission = Admission(self.plan, memo, self.journal)
        protocol = self.admission.protocol
        protocol.suggest = watch.timed("protocol", protocol.suggest)  # type: ignore[method-assign]
        protocol.tell = watch.timed("protocol", protocol.tell)  # type: ignore[method-assign]
        memo.find = watch.timed("memo", memo.find)  # type: ignore[method-assign]
        memo.finder = watch.timed("memo", memo.finder)  # type: ignore[method-assign]
        self.journal.write = watch.timed("slots, journal", self.journal.write)  # type: ignore[method-assign]
        self.tables = TableWriter(self.admission, self.folder)
        self.slots = Slots(self.journal, "cuda", 1.0)
        with watch.measuring("slots, journal"):
            self.slots.sync(self.nodes, self.clock.now)
        places = [node for node in self.nodes for _ in range(node.num_slots)]
        self.free = [_Worker(number, node, self.clock.now + BOOT_S) for number, node in enumerate(places)]

    def _untriggered(self) -> Callable[..., list[Settings]]:
        """`TrialSpec.untriggered`, which the protocol calls for every trial; what workers need of it is kept for them."""
        original = TrialSpec.untriggered

        def remembering(spec: TrialSpec, *arguments: Any) -> list[Settings]:
            settings = original(spec, *arguments)
            with self.watch.measuring("simulation"):
                self.settings[spec.trial_id] = [(one.digest, one.batch_size, one.num_updates) for one in settings]
            return settings

        return remembering

    def _fill(self) -> None:
        """Hand out trials while slots are free, as AdmissionSearcher.suggest does."""
        while self.admission.num_running < self.slots.wanted:
            with self.watch.measuring("admission"):
                trial = self.admission.next()
            if trial is None:
                return
            with self.watch.measuring("slots, journal"):
                self.slots.hand_out(trial.trial_id)
            worker = self.free.pop()
            worker.begin(trial, self.settings.pop(trial.trial_id), self.clock.now)
            self._train(worker)

    def _train(self, worker: _Worker) -> None:
        """Let the next epoch that is not recorded end some time from now, or the trial at once."""
        begin = max(self.clock.now, worker.last)
        length = None if not worker.recall(self.admission.memo.known) else self.epoch_s * self.rng.uniform(0.8, 1.2)
        heapq.heappush(self.events, (begin + (length or 0.0), worker.number, worker, length))

    def _heard(self, worker: _Worker, length: float | None) -> None:
        """Take a report, as AdmissionSearcher does."""
        result, trial = worker.report(self.clock.now, length), worker.trial
        assert trial is not None
        self.driven.reports += 1
        with self.watch.measuring("admission"):
            self.admission.stepped(trial.trial_id, [Record(**record) for record in result["records"]])
        with self.watch.measuring("slots, journal"):
            self.slots.sync(self.nodes, self.clock.now)
            self.slots.observe(result)
        if length is not None:
            self._train(worker)
            return
        with self.watch.measuring("admission"):
            self.admission.ended(trial.trial_id, "completed")
        self.free.append(worker)
        self.num_ended += 1
        if self.num_ended == self.plan.num_trials * 9 // 10:
            self._write_tables()

    def _write_tables(self) -> float:
        """Write all tables; returns the CPU seconds that it took."""
        before = self.watch.cpu_s["tables"]
        with self.watch.measuring("tables"):
            self.tables.write(self.clock.now)
        return self.watch.cpu_s["tables"] - before


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Within it, every request to the memo is counted by its kind."""
    requests: Counter[str] = Counter()
    with ExitStack() as stack:
        for name in REQUESTS:
            original = getattr(objects.obstore, name)

            def counting(*arguments: Any, _name: str = name, _original: Any = original, **more: Any) -> Any:
                requests[_name] += 1
                return _original(*arguments, **more)

            stack.enter_context(mock.patch.object(objects.obstore, name, counting))
        yield requests


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
