"""Studies that the engine runs with a prescribed training: journal, memo, ledger, tables and lock are all its own.

Two things are stood in for: the trainer and its stopwatch, by ones that give the numbers and the seconds of a `Training`,
and Ray, by slots on a simulated clock. What happens in which order, and how trials walk, is the engine's business.
"""

from __future__ import annotations

import heapq
import platform
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from lrstudy import run as run_module
from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.planning import study_lock
from lrstudy.planning.plan import Plan
from lrstudy.ray_tune.slots import Node
from lrstudy.running import calibration
from lrstudy.running.admission import Admission
from lrstudy.running.tables import TableWriter
from lrstudy.running.trials import Trial
from lrstudy.settings import Settings, canonical_json
from lrstudy.storage.place import Storage
from lrstudy.study_folder import clock as clock_module
from lrstudy.study_folder import predictions
from lrstudy.trial.walk import Walk
from lrstudy.workload.workload import opened_data
from study_files import plan_of

SLOTS = 2
BOOT_S, SETUP_S, DATA_S, BETWEEN_S, LOST_S = 1.0, 1.5, 0.3, 0.02, 0.4
UPDATE_S = {size: 0.005 + 0.007 * size / 32 for size in range(1, 1025)}
"""Seconds of an update, by its number of examples: 0.012 for 32, 0.019 for 64."""
EPOCH_S, EVALUATION_S, STATE_S = 0.001, 0.03, 0.004

Choice = Callable[[Trial], bool]
Moments = Mapping[Path, Callable[[Admission], bool]]


def run_study(
    storage: Path,
    text: str,
    *overrides: str,
    training: Training | None = None,
    moments: Moments | None = None,
    is_decided: Callable[[Path], bool] | None = None,
) -> Path:
    """Run a study file to its end, or run it again; returns the study's folder.

    `moments` are folders that receive a copy of it, as it is when their condition first holds. `is_decided` is asked
    between two looks.
    """
    plan, clock = plan_of(*overrides, text=text, slots=SLOTS), Clock()
    ray = _Ray(training or Training(), clock, dict(moments or {}))
    folder = storage / plan.study.name
    notes: tuple[str, ...] = ()
    if folder.exists():
        lock = study_lock.read(folder)
        plan, notes = study_lock.reconcile(plan_of(*overrides, text=text, lock=lock, slots=SLOTS), lock, folder)
    folder.mkdir(parents=True, exist_ok=True)
    local_ray = SimpleNamespace(limit=SLOTS, nodes=[Node("", "h", SLOTS)], begin=lambda: None)
    options = run_module.RunOptions(
        plan.study.name, text, overrides, folder, Storage(str(storage)), clock.monotonic(), local_ray, is_decided
    )
    with ExitStack() as stack:
        for module in ("run", "trial.walk", "running.admission", "ray_tune.slots"):
            stack.enter_context(mock.patch(f"lrstudy.{module}.time", clock))
        stack.enter_context(mock.patch("lrstudy.ray_tune.slots._is_alive", ray.is_alive))
        stack.enter_context(mock.patch("lrstudy.ray_tune.runner.run", ray.run))
        run_module.run(plan, options, notes)
    return folder


class Clock:
    """Stands in for the module `time`; time passes when somebody moves it."""

    def __init__(self) -> None:
        self.now = 5000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.76e9 + self.now


# The numbers


@dataclass(frozen=True)
class Training:
    """What training gives, by policy, configuration, seed and epoch; and which trials go wrong.

    The validation metric approaches 0.95 + `effects[policy]`, less `slope` for each squared decade between the rate and
    0.05. Its noise is 0.006 between seeds, the same for all arms, and 0.002 between trials, epochs and parts. `diverges`
    and `fails` choose trials that do so in their second epoch, `dies` those whose worker dies in it, once. Metrics in
    `undefined` are never given. With recomputed statistics of BatchNorm the test metric of policies in `precise` is so much
    higher; if there are none, the model has no BatchNorm.
    """

    effects: Mapping[str, float] = field(default_factory=dict)
    slope: float = 0.06
    diverges: Choice = lambda trial: False
    fails: Choice = lambda trial: False
    dies: Choice = lambda trial: False
    undefined: tuple[str, ...] = ()
    precise: Mapping[str, float] = field(default_factory=dict)

    def value(self, trial: Trial, epoch: int) -> float:
        """The validation metric after an epoch; NaN if it diverges. Raises ValueError if it fails."""
        if epoch == 1 and self.fails(trial):
            raise ValueError("the second epoch was not to be")
        if epoch == 1 and self.diverges(trial):
            return float("nan")
        best = 0.95 + self.effects.get(trial.spec.policy, 0.0) + 0.006 * _noise(trial.seed)
        loss = 0.55 * np.exp(-(epoch + 1) / (0.22 * trial.spec.run.num_epochs))
        off = self.slope * np.log10(trial.configuration["lr"] / 0.05) ** 2
        noise = 0.002 * (_noise(*_training(trial)) + _noise(*_training(trial), epoch))
        return float(np.clip(best - off - loss + noise, 0.0, 1.0))

    def test_value(self, trial: Trial, validation: float) -> float:
        """The test metric of a trial whose validation metric came to `validation`."""
        return validation - 0.004 + 0.002 * _noise(*_training(trial), "test")

    def otherwise(self, trial: Trial, value: float) -> dict[str, float]:
        """The test metric with recomputed statistics."""
        return {"precise": value + self.precise.get(trial.spec.policy, 0.0)} if self.precise else {}

    def metrics(self, names: tuple[str, ...], value: float) -> dict[str, float]:
        """All metrics of a task: the first has the value, each other one 0.01 less than the one before it."""
        return {name: value - 0.01 * k for k, name in enumerate(names) if name not in self.undefined}

    def seconds(self, settings: Settings, trial: Trial, epoch: int) -> tuple[float, float]:
        """Of training an epoch and of its evaluation: those of a device that is alone, with noise of 6 and 10%."""
        key = (*_training(trial), epoch)
        num_full = settings.num_updates - 1
        last = trial.spec.run.num_examples - num_full * settings.batch_size
        train_s = EPOCH_S + num_full * UPDATE_S[settings.batch_size] + UPDATE_S[last]
        slower, slower_evaluation = np.exp(0.06 * _noise("train", *key)), np.exp(0.1 * _noise("evaluate", *key))
        return train_s * float(slower), EVALUATION_S * float(slower_evaluation)


@dataclass(frozen=True)
class Timed:
    """What the stopwatch of training/timing.py gives."""

    update_s: float
    epoch_s: float
    evaluation_s: float


def time_updates(trainer: object, batch_size: int, *further: object) -> Timed:
    """In the place of timing.time_updates."""
    return Timed(UPDATE_S[batch_size], EPOCH_S, EVALUATION_S)


class PrescribedTrainer:
    """The trainer of one trial, which takes the time and gives the numbers of a `Training`."""

    def __init__(self, training: Training, clock: Clock, trial: Trial, names: tuple[str, ...]) -> None:
        self.training, self.clock, self.trial, self.names = training, clock, trial, names
        self.state = ""

    def start(self, seed: int) -> None:
        self.state = f"{seed}"

    def restore(self, data: bytes) -> None:
        self.state = data.decode()

    def make_ready(self, settings: Settings) -> None: ...

    def train(self, settings: Settings, seed: int, epoch: int) -> SimpleNamespace:
        self.state += f" {settings.digest}"
        value = self.training.value(self.trial, epoch)
        train_s, eval_s = self.training.seconds(settings, self.trial, epoch)
        self.clock.now += train_s + eval_s
        validation = SimpleNamespace(loss=_loss(value), metrics=self.training.metrics(self.names, value))
        return SimpleNamespace(
            train_loss=0.9 * validation.loss, train_metrics={"accuracy": min(1.0, value + 0.01)}, validation=validation,
            train_s=train_s, eval_s=eval_s,
        )  # fmt: skip

    def capture(self) -> bytes:
        self.clock.now += STATE_S
        return self.state.encode()

    def snapshot(self) -> Callable[[], bytes]:
        raise AssertionError("these states are small")


def logits(trial: Trial, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Logits of test examples, (examples, classes): noise, and one more for what is true."""
    truth = labels if labels.ndim == 2 else labels[:, None] == np.arange(num_classes)
    rng = np.random.default_rng(zlib.crc32(trial.trial_id.encode()))
    return np.asarray(rng.normal(size=truth.shape) + truth, dtype=np.float32)


def _training(trial: Trial) -> tuple[object, ...]:
    """What is trained: the same for arms of one policy with one configuration and seed."""
    return trial.spec.policy, canonical_json(dict(trial.configuration)), trial.seed


def _noise(*key: object) -> float:
    """A standard normal number that `key` decides."""
    return float(np.random.default_rng(zlib.crc32(repr(key).encode())).normal())


def _loss(value: float) -> float:
    return 2.3 * (1 - value)


# The slots


class _Died(Exception):
    """The worker is gone, with what it had not reported."""


class _Worker:
    """What ray_tune/trainable.py is, with a time of its own: `at` is when its last report was made."""

    def __init__(self, number: int, training: Training, clock: Clock) -> None:
        self.number, self.at = number, clock.now
        self._training, self._clock = training, clock
        self._has_booted = self._has_data = False
        self._spans: list[tuple[float, float, str, str]] = []

    def begin(self, trial: Trial, admission: Admission, folder: Path, dies: bool) -> None:
        """Take up a trial now."""
        since = self.at if self._has_booted else self._clock.now
        self.at = self._clock.now + (BETWEEN_S if self._has_booted else SETUP_S)
        self._spans = [(since, self.at - since, "between" if self._has_booted else "setup", trial.trial_id)]
        self.trial, self._has_booted = trial, True
        self._reports = self._walk(trial, admission, folder, dies)

    def report(self) -> dict[str, Any]:
        """The next report; the clock shows the worker's time while it is made."""
        now, self._clock.now = self._clock.now, self.at
        try:
            report = next(self._reports)
        except _Died:
            report = {"died": True}
        self.at, self._clock.now = self._clock.now, now
        spans, self._spans = [*self._spans, *map(list, report.get("spans", ()))], []
        return {
            "worker": f"worker-{self.number}", "node": "", "clock": clock_module.identity(), "host": platform.node(), "process": self.number, "records": [], **report,
            "spans": spans, "trial": self.trial.trial_id, "at": self.at, "done": "status" in report,
        }  # fmt: skip

    def _walk(self, trial: Trial, admission: Admission, folder: Path, dies: bool) -> Iterator[dict[str, Any]]:
        walk = Walk(trial.spec, Memo(admission.memo.location), lambda: self._trainer(trial, admission.plan))
        last: Record | None = None
        try:
            for step in walk:
                last = step.record
                if dies and last.epoch == 1:
                    self._clock.now += LOST_S
                    raise _Died
                yield {"records": [last], "spans": step.spans}
        except ValueError as error:
            yield {"status": "failed", "error": f"{type(error).__name__}: {error}"}
            return
        assert last is not None
        if last.diverged:
            yield {"status": "diverged", "error": f"the loss was not finite in epoch {last.epoch}"}
        elif trial.spec.read_test:
            yield {"status": "completed", **self._test(trial, walk, admission.plan, folder)}
        else:
            yield {"status": "completed"}

    def _trainer(self, trial: Trial, plan: Plan) -> PrescribedTrainer:
        self._clock.now += 0.0 if self._has_data else DATA_S
        self._has_data = True
        return PrescribedTrainer(self._training, self._clock, trial, plan.workload.task.metrics)

    def _test(self, trial: Trial, walk: Walk, plan: Plan, folder: Path) -> dict[str, Any]:
        _, selected, spans = walk.bring_to_selected()
        begin, names = self._clock.now, plan.workload.task.metrics
        self._clock.now += EVALUATION_S
        data, parts = opened_data(plan.workload)
        labels = data.labels[parts.test]
        scores = logits(trial, labels, len(plan.workload.classes))
        predictions.write(
            folder, trial.trial_id, trial.arm, parts.test, labels, scores, data.groups_of(parts.test),
            plan.workload.classes, data.sources_of(parts.test),
        )  # fmt: skip
        value = self._training.test_value(trial, selected.metrics[f"val_{names[0]}"])
        return {
            "spans": [*spans, (begin, EVALUATION_S, "evaluate", trial.trial_id)],
            "test": {
                "loss": _loss(value),
                **self._training.metrics(names, value),
                **self._training.otherwise(trial, value),
                **self._of_training_part(names, value),
            },
        }

    def _of_training_part(self, names: tuple[str, ...], value: float) -> dict[str, float]:
        """Loss and metrics on the training part, where half of what the test part lacks is missing."""
        fitted = (1 + value) / 2
        metrics = self._training.metrics(names, fitted)
        return {"train_loss": _loss(fitted), **{f"train_{name}": found for name, found in metrics.items()}}


class _Ray:
    """What ray_tune/runner.py and adapter.py do, report by report in the order of time."""

    def __init__(self, training: Training, clock: Clock, moments: dict[Path, Callable[[Admission], bool]]) -> None:
        self._training, self._clock, self._moments = training, clock, moments
        self._due: list[tuple[float, int, _Worker, dict[str, Any]]] = []
        self._num_workers = 0
        self._dead: dict[int, str] = {}

    def is_alive(self, process: int) -> bool:
        """In the place of slots._is_alive."""
        return process not in self._dead

    def run(
        self, admission: Admission, workload: Any, folder: Path, local_ray: Any, first: Trial | None, board: Any,
        refresh: Callable[[], None],
    ) -> None:  # fmt: skip
        """In the place of runner.run."""
        self._clock.now += BOOT_S
        free = [self._worker() for _ in range(local_ray.limit)]
        while True:
            while free and (trial := first or admission.next()) is not None:
                first, worker = None, free.pop(0)
                board.hand_out(trial.trial_id)
                dies = self._training.dies(trial) and trial.trial_id not in self._dead.values()
                worker.begin(trial, admission, folder, dies)
                self._await(worker)
            if not self._due:
                break
            self._clock.now, _, worker, report = heapq.heappop(self._due)
            free += self._take(admission, board, worker, report)
            self._look(admission, folder)
        stopwatch = SimpleNamespace(time_updates=time_updates)
        trainer: Any = SimpleNamespace(workload=workload, start=lambda seed: None)
        with mock.patch.dict(sys.modules, {"lrstudy.training.timing": stopwatch}):  # the real one imports torch
            calibration.measure(trainer, admission.memo, admission.unpriced())
        board.close(self._clock.now)

    def _await(self, worker: _Worker) -> None:
        report = worker.report()
        heapq.heappush(self._due, (worker.at, worker.number, worker, report))

    def _take(self, admission: Admission, board: Any, worker: _Worker, report: dict[str, Any]) -> list[_Worker]:
        """Pass a report on; returns the worker that is free then, if there is one."""
        trial_id = worker.trial.trial_id
        if "died" in report:
            self._dead[worker.number] = trial_id
            board.notice_deaths(trial_id)
            admission.returned(trial_id)
            return [self._worker()]
        admission.stepped(trial_id, report["records"])
        board.observe(report)
        if "status" not in report:
            self._await(worker)
            return []
        admission.ended(trial_id, report["status"], report.get("error", ""), report.get("test"))
        return [worker]

    def _worker(self) -> _Worker:
        self._num_workers += 1
        return _Worker(self._num_workers, self._training, self._clock)

    def _look(self, admission: Admission, folder: Path) -> None:
        for where in [where for where, is_reached in self._moments.items() if is_reached(admission)]:
            del self._moments[where]
            shutil.copytree(folder, where, ignore=shutil.ignore_patterns("driver.lock"))
            TableWriter(admission, where).write(self._clock.now)
