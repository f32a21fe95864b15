"""One worker: a Tune Trainable that walks one trial after another, keeping its data and torch in memory."""

from __future__ import annotations

import os
import platform
import time
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.tune import Trainable

from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from lrstudy.running import calibration, range_tests
from lrstudy.running.calibration import UpdateKind
from lrstudy.running.range_tests import RangeTest
from lrstudy.running.shipping import Shipment, at_place, with_policy_at
from lrstudy.settings import Recipe
from lrstudy.study_folder import clock, predictions
from lrstudy.study_folder.ledger import Category, Span, joined
from lrstudy.trial.spec import TrialSpec
from lrstudy.trial.walk import TrialEpoch, Walk
from lrstudy.workload.workload import Workload

REPORT_EVERY_S = 0.5
"""How long epochs are collected before they are reported, as a report costs the driver milliseconds."""


@dataclass(frozen=True)
class Assignment:
    """A trial for a worker. An object, so that Tune neither flattens nor prints it.

    `memo` and `folder` are where the memo and the study lie: paths or URLs. `shipment` has the user's files for a worker
    whose host may lack them.
    """

    spec: TrialSpec
    arm: str
    workload: Workload
    memo: str
    folder: str
    shipment: Shipment | None = None

    def __repr__(self) -> str:
        return self.spec.trial_id


@dataclass(frozen=True)
class CalibrationAssignment:
    """The calibration, for a worker while all others are idle: measure what these kinds of updates cost."""

    kinds: tuple[UpdateKind, ...]
    workload: Workload
    memo: str
    shipment: Shipment | None = None

    def __repr__(self) -> str:
        return "calibration"


@dataclass(frozen=True)
class RangeTestAssignment:
    """A range test, which finds a rate before there are trials."""

    test: RangeTest
    workload: Workload
    memo: str
    shipment: Shipment | None = None

    @property
    def name(self) -> str:
        """What its worker's slot knows it by, as a trial by its id."""
        return f"range-test-{self.test.digest}"

    def __repr__(self) -> str:
        return self.name


class TuneTrial(Trainable):
    """Walks the trial of its assignment, runs a range test, or calibrates.

    A result has the `records` of some epochs, the `spans` of the worker's time until `at` on its monotonic `clock`, and
    `worker`, `node`, `host` and `process`, which say whose they are. The last one also has `status`, `error` and `test`, or `fatal` if the
    storage failed and the whole study must stop.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first trial of this process; torch is imported here, as part of the set-up."""
        self._last = time.monotonic()  # before that, its time is the driver's set-up
        self._spans: list[Span] = []
        self._self = _identity()

        import torch._dynamo  # noqa: F401  # else the first optimizer imports it: seconds that no trial should pay

        import lrstudy.training.trainer  # noqa: F401

        self._memo = Memo(config["assignment"].memo)  # one for all its trials, as it caches what it has looked up
        self._unpacked: tuple[Shipment | None, Path] = (None, Path("/"))
        self._trainer: Any = None
        self._trained_workload: Workload | None = None
        self._begin(config, "setup")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        self._begin(new_config, "between")
        return True

    def step(self) -> dict[str, Any]:
        """Walk some epochs of the trial and report them, or its end; or do the whole calibration."""
        self._add_span("waiting")
        if isinstance(self._assignment, CalibrationAssignment):
            return self._calibrate(self._assignment)
        if isinstance(self._assignment, RangeTestAssignment):
            return self._test_range(self._assignment)
        steps: list[TrialEpoch] = []
        try:
            if self._walk_on(steps):
                return self._result(steps)
            return self._result(steps, **self._end(steps))
        except StorageError as error:
            return self._result(steps, fatal=str(error))
        except Exception as error:  # the study goes on without this trial; the traceback is kept
            reason = self._explain(error)
            return self._result(steps, status="failed", error=reason, traceback=traceback.format_exc())

    def _walk_on(self, steps: list[TrialEpoch]) -> bool:
        """Append steps of the walk for REPORT_EVERY_S; returns False once the walk has ended."""
        begin = time.monotonic()
        for step in self._steps:
            steps.append(step)
            if time.monotonic() - begin > REPORT_EVERY_S:
                return True
        return False

    def _end(self, steps: list[TrialEpoch]) -> dict[str, Any]:
        """How a walk ended, of which `steps` are the last to be reported: its status, with an error or the test metrics."""
        last = steps[-1] if steps else self._previous
        if last.record.diverged:
            return {"status": "diverged", "error": _divergence(last)}
        return {"status": "completed", **self._test()}

    def _explain(self, error: Exception) -> str:
        """Why a trial failed, for the user."""
        shortage = self._trainer.explain(error) if self._trainer is not None else None
        return shortage or f"{type(error).__name__}: {error}"

    def _calibrate(self, assignment: CalibrationAssignment) -> dict[str, Any]:
        """Measure the costs of updates. If that fails, the study is still complete, priced by what it recorded."""
        begin, error = time.monotonic(), ""
        try:
            calibration.measure(self._get_trainer(), self._memo, assignment.kinds)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        self._spans.append(Span(begin, time.monotonic() - begin, "calibrate"))
        return self._result([], calibration=True, error=error)

    def _test_range(self, assignment: RangeTestAssignment) -> dict[str, Any]:
        """Run a range test, whose curve goes into the memo."""
        try:
            test = replace(assignment.test, spec=with_policy_at(assignment.test.spec, self._root()))
            self._spans += range_tests.measure(test, assignment.workload, self._memo, self._get_trainer)
        except StorageError as failure:
            return self._result([], fatal=str(failure))
        except range_tests.NoStartError as failure:
            return self._result([], error=str(failure))
        except Exception as failure:
            return self._result([], error=self._explain(failure))
        return self._result([], error="")

    def _begin(self, config: dict[str, Any], category: Category) -> None:
        """Take an assignment; the time since the last report is recorded under `category`."""
        self._assignment: Assignment | CalibrationAssignment | RangeTestAssignment = config["assignment"]
        self._walk: Walk | None = None
        if isinstance(self._assignment, Assignment):
            self._steps = self._walked(self._assignment)
        self._add_span(category)

    def _walked(self, assignment: Assignment) -> Iterator[TrialEpoch]:
        """The steps of a trial's walk; what fails before the first one is the trial's failure too."""
        self._walk = Walk(with_policy_at(assignment.spec, self._root()), self._memo, self._get_trainer)
        yield from self._walk

    def _root(self) -> Path:
        """The folder below which the user's files lie on this node."""
        shipment = self._assignment.shipment
        if shipment != self._unpacked[0]:
            assert shipment is not None, "one run ships the same files to everybody"
            self._unpacked = shipment, shipment.unpack(self._memo)
        return self._unpacked[1]

    def _get_trainer(self) -> Any:
        from lrstudy.training.trainer import Trainer

        if self._trained_workload != self._assignment.workload:
            self._trainer = Trainer(at_place(self._assignment.workload, self._root()))
            self._trained_workload = self._assignment.workload
        return self._trainer

    def _test(self) -> dict[str, Any]:
        """Evaluate the selected state on test and training part and write its predictions, if the trial is one that reads it."""
        assignment = self._assignment
        assert isinstance(assignment, Assignment)
        if not assignment.spec.read_test:
            return {}
        assert self._walk is not None
        trainer, _, spans = self._walk.bring_to_selected()
        begin = time.monotonic()
        recipe = self._walk.selected_recipe
        evaluation, part = trainer.test(recipe)  # type: ignore[attr-defined]
        predictions.write(
            assignment.folder,
            assignment.spec.trial_id,
            assignment.arm,
            part.index,
            part.labels.cpu().numpy(),
            evaluation.logits.numpy(),
            trainer.test_groups(),  # type: ignore[attr-defined]
            assignment.workload.classes,
            trainer.test_sources(),  # type: ignore[attr-defined]
        )
        test = [("loss", evaluation.loss), *evaluation.metrics.items(), *self._test_otherwise(trainer, recipe)]
        fitted = trainer.evaluate_training(recipe)  # type: ignore[attr-defined]
        test += [("train_loss", fitted.loss), *((f"train_{name}", value) for name, value in fitted.metrics.items())]
        self._spans += [*spans, Span(begin, time.monotonic() - begin, "evaluate", assignment.spec.trial_id)]
        return {"test": test}  # Tune would flatten a map

    def _test_otherwise(self, trainer: Any, recipe: Recipe) -> list[tuple[str, float]]:
        """The study's metric with the other statistics of BatchNorm, under the name of these; empty without BatchNorm."""
        assert isinstance(self._assignment, Assignment)
        tested, metric = trainer.test_otherwise(recipe), self._assignment.spec.selection.metric
        return [(tested[0], tested[1].metrics[metric])] if tested and metric in tested[1].metrics else []

    @property
    def _trial_id(self) -> str:
        return self._assignment.spec.trial_id if isinstance(self._assignment, Assignment) else ""

    def _add_span(self, category: Category) -> None:
        """Add a span from the last report until now."""
        now = time.monotonic()
        self._spans.append(Span(self._last, now - self._last, category, self._trial_id))
        self._last = now

    def _result(self, steps: list[TrialEpoch], **end: Any) -> dict[str, Any]:
        """A report to the driver; `end` is empty while the trial goes on."""
        if steps:
            self._previous = steps[-1]
        rest = self._walk.take_spans() if self._walk is not None else ()
        spans = joined([*self._spans, *(span for step in steps for span in step.spans), *rest])
        self._spans, self._last = [], time.monotonic()
        return {
            "trial": self._assignment.name if isinstance(self._assignment, RangeTestAssignment) else self._trial_id,
            **self._self,
            "at": self._last,
            "records": [asdict(record) for step in steps for record in step.records],
            "spans": [[span.start, span.duration_s, span.category, span.trial_id] for span in spans],
            "done": bool(end),
            **end,
        }


def _identity() -> dict[str, Any]:
    """Whose reports these are: the actor, its node, and the clock that it reads."""
    context = ray.get_runtime_context() if ray.is_initialized() else None
    return {
        "worker": context.get_actor_id() if context else uuid.uuid4().hex,
        "node": context.get_node_id() if context else "",
        "host": platform.node(),
        "process": os.getpid(),
        "clock": clock.identity(),
    }


def _divergence(step: TrialEpoch) -> str:
    lr = step.settings.lr
    return (
        f"the loss was not finite in epoch {step.record.epoch}, with a learning rate between "
        f"{lr.min():g} and {lr.max():g}"
    )
