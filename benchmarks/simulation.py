"""A study's trials on simulated slots: the real admission, protocol and searchers, and a clock instead of training.

Events are the ends of epochs. A slot that is free asks admission for a trial; a trial trains what its chain lacks, one
epoch after the other; a worker may die within an epoch, which is lost, and its slot comes back after a boot.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lrstudy.lineage import extend
from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.planning.plan import Plan
from lrstudy.policies.base import Policy
from lrstudy.running.admission import Admission
from lrstudy.running.trials import Trial
from lrstudy.settings import Settings
from lrstudy.study_folder.journal import Journal

BOOT_S = 5.0


@dataclass
class Outcome:
    """What a simulated run did. `busy_s` are slot-seconds of training, `span_s` how long it took on `slots` slots.

    `longest_s` is the longest chain of epochs that no number of slots could shorten; `lost` counts epochs that deaths cost.
    """

    slots: int
    trained: list[str] = field(default_factory=list)
    asked: int = 0
    span_s: float = 0.0
    busy_s: float = 0.0
    longest_s: float = 0.0
    lost: int = 0

    @property
    def distinct(self) -> int:
        return len(set(self.trained))

    @property
    def idle_share(self) -> float:
        return 1 - self.busy_s / (self.span_s * self.slots)

    @property
    def over_bound(self) -> float:
        """Wall time over the larger of the longest chain and the work divided by the slots: 1 is the best there is."""
        return self.span_s / max(self.longest_s, self.busy_s / self.slots)


def simulate(
    plan: Plan, folder: Path, slots: int, seconds: Callable[[Settings], float], deaths: float = 0.0, seed: int = 0
) -> Outcome:
    """Run a study to its end. `deaths` is the chance of a worker's death in an epoch. Raises AssertionError on a deadlock."""
    return _Run(plan, folder, slots, seconds, deaths, random.Random(seed)).run()


class _Run:
    def __init__(
        self,
        plan: Plan,
        folder: Path,
        slots: int,
        seconds: Callable[[Settings], float],
        deaths: float,
        rng: random.Random,
    ) -> None:
        journal = Journal(folder / "journal")
        journal.open_run()
        self.memo = Memo(folder / "memo")
        self.admission = Admission(plan, self.memo, journal)
        self.outcome = Outcome(slots)
        self.seconds, self.deaths, self.rng = seconds, deaths, rng
        self.free, self.now, self.number = slots, 0.0, 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []

    def run(self) -> Outcome:
        self._fill()
        while self.events:
            self.now, _, happen = heapq.heappop(self.events)
            happen()
            self._fill()
        assert self.admission.is_done, "deadlock: trials wait and nothing runs"
        trials = self.admission.trials.values()
        self.outcome.span_s = self.now
        self.outcome.asked = sum(len(trial.records) for trial in trials)
        self.outcome.longest_s = max(sum(record.train_s for record in trial.records) for trial in trials)
        return self.outcome

    def _fill(self) -> None:
        while self.free and (trial := self.admission.next()) is not None:
            self.free -= 1
            self._train(trial, Trained.of(trial))

    def _train(self, trial: Trial, work: Trained) -> None:
        """Begin the next epoch that the trial lacks, or end it."""
        while not work.is_over:
            settings, name = work.next()
            record = self.memo.known(name)
            if record is None:
                break
            work.reached(record)
            self.admission.stepped(trial.trial_id, [record])
        if work.is_over:
            self.admission.ended(trial.trial_id, "completed", test={"accuracy": 0.5} if trial.spec.read_test else None)
            self.free += 1
            return
        length = self.seconds(settings)
        if self.rng.random() < self.deaths:
            self._at(length * self.rng.random(), lambda: self._die(trial))
        else:
            self._at(length, lambda: self._published(trial, work, length))

    def _published(self, trial: Trial, work: Trained, length: float) -> None:
        record = work.record(length)
        self.outcome.trained.append(record.lineage)
        self.outcome.busy_s += length
        record = self.memo.known(record.lineage) or self.memo.learn(record)  # of two that trained it, the first holds
        work.reached(record)
        self.admission.stepped(trial.trial_id, [record])
        self._train(trial, work)

    def _die(self, trial: Trial) -> None:
        self.outcome.lost += 1
        self.admission.returned(trial.trial_id)
        self._at(BOOT_S, self._booted)

    def _booted(self) -> None:
        self.free += 1

    def _at(self, after: float, happen: Callable[[], None]) -> None:
        self.number += 1
        heapq.heappush(self.events, (self.now + after, self.number, happen))


@dataclass
class Trained:
    """How far a trial has come along its chain, which a reactive policy may replan."""

    trial: Trial
    policy: Policy
    parent: str
    history: list[Mapping[str, float]] = field(default_factory=list)

    @staticmethod
    def of(trial: Trial) -> Trained:
        return Trained(trial, trial.spec.build_policy(), trial.spec.root.name())

    @property
    def is_over(self) -> bool:
        return len(self.history) == self.trial.spec.run.num_epochs

    def next(self) -> tuple[Settings, str]:
        """The settings of the next epoch and the name of its state."""
        settings = self.policy.settings(len(self.history), self.history, self.trial.spec.run)
        return settings, extend(self.parent, settings)

    def reached(self, record: Record) -> None:
        self.parent = record.lineage
        self.history.append(record.metrics)

    def record(self, seconds: float) -> Record:
        """The record of the next epoch: metrics that look random, and depend on its name alone."""
        settings, name = self.next()
        value = int(name[:8], 16) / 2**32
        return Record(
            lineage=name, parent=self.parent, root=self.trial.spec.root.name(), epoch=len(self.history), settings=settings.digest,
            state=None, diverged=False, metrics={"train_loss": value, "val_loss": value, "val_accuracy": 1 - value},
            batch_size=settings.batch_size, updates=settings.num_updates, examples=1, train_s=seconds, eval_s=0.0, state_s=0.0,
            device_kind="simulated", device_share=1.0, device_s=seconds, host="simulated", created_at=0.0, origin={},
        )  # fmt: skip
