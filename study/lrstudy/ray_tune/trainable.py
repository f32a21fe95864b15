"""One worker: a Tune Trainable that walks trial after trial, its data and torch staying in memory."""

from __future__ import annotations

import os
import platform
import time
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from ray.tune import Trainable

from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from lrstudy.running import calibration
from lrstudy.running.calibration import UpdateKind
from lrstudy.study_folder import predictions
from lrstudy.study_folder.ledger import Category, Span
from lrstudy.trial import TrialEpoch, TrialSpec, Walk
from lrstudy.workload.workload import Workload

REPORT_EVERY_S = 0.5
"""Epochs are gathered for so long before they are reported: a report costs the driver milliseconds."""


@dataclass(frozen=True)
class Assignment:
    """What a worker is to do; a class of its own so that Tune neither flattens nor prints it."""

    spec: TrialSpec
    arm: str
    workload: Workload
    memo: str
    folder: str

    def __repr__(self) -> str:
        return self.spec.trial_id


@dataclass(frozen=True)
class CalibrationAssignment:
    """What a worker is to do when all others have nothing to do: measure what kinds of updates cost."""

    kinds: tuple[UpdateKind, ...]
    workload: Workload
    memo: str

    def __repr__(self) -> str:
        return "calibration"


class TuneTrial(Trainable):
    """Walks the trial of its assignment, or calibrates; results carry epochs and the worker's own time.

    A result has `records`, `spans`, `worker`, `host`, `process`, and at the end `status`,
    `error`, `test`, or `fatal` when the storage failed and the whole study must stop.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """First trial of this process: torch is imported here, as part of the set-up."""
        self._worker = uuid.uuid4().hex[:12]
        self._spans: list[Span] = []
        self._last = time.monotonic() - (time.time() - psutil.Process().create_time())

        import torch._dynamo  # noqa: F401  # torch imports it with the first optimizer: seconds that are no trial's

        import lrstudy.training.trainer  # noqa: F401

        self._memo = Memo(config["assignment"].memo)  # one for the life of the worker: it keeps what it has looked up
        self._trainer: Any = None
        self._trained_workload: Workload | None = None
        self._begin(config, "setup")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial for this worker."""
        self._begin(new_config, "between")
        return True

    def step(self) -> dict[str, Any]:
        """Some epochs of the trial, or its end; or the whole calibration."""
        if isinstance(self._assignment, CalibrationAssignment):
            return self._calibrate(self._assignment)
        begin = time.monotonic()
        steps: list[TrialEpoch] = []
        try:
            for step in self._steps:
                steps.append(step)
                if time.monotonic() - begin > REPORT_EVERY_S:
                    return self._result(steps)
            last = steps[-1] if steps else self._previous
            if last.record.diverged:
                return self._result(steps, status="diverged", error=_divergence(last))
            return self._result(steps, status="completed", **self._test())
        except StorageError as error:
            return self._result(steps, fatal=str(error))
        except Exception as error:  # the study goes on without this trial; the traceback is kept
            text = self._trainer.explain(error) if self._trainer is not None else None
            text = text or f"{type(error).__name__}: {error}"
            return self._result(steps, status="failed", error=text, traceback=traceback.format_exc())

    def _calibrate(self, assignment: CalibrationAssignment) -> dict[str, Any]:
        """Measure. A failure is the calibration's alone: the study stands, priced by what it recorded."""
        begin, error = time.monotonic(), ""
        try:
            calibration.measure(self._get_trainer(), self._memo, assignment.kinds)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        self._spans.append(Span(begin, time.monotonic() - begin, "calibrate"))
        return self._result([], calibration=True, error=error)

    def _begin(self, config: dict[str, Any], before: Category) -> None:
        self._assignment: Assignment | CalibrationAssignment = config["assignment"]
        if isinstance(self._assignment, Assignment):
            self._walk = Walk(self._assignment.spec, self._memo, self._get_trainer)
            self._steps: Iterator[TrialEpoch] = iter(self._walk)
        self._measure(before)

    def _get_trainer(self) -> Any:
        from lrstudy.training.trainer import Trainer

        if self._trained_workload != self._assignment.workload:
            self._trainer = Trainer(self._assignment.workload)
            self._trained_workload = self._assignment.workload
        return self._trainer

    def _test(self) -> dict[str, Any]:
        """Read the test part, if the trial is to: evaluate the final state and keep its predictions."""
        assignment = self._assignment
        assert isinstance(assignment, Assignment)
        if not assignment.spec.read_test:
            return {}
        trainer, spans = self._walk.bring_to_end()
        begin = time.monotonic()
        evaluation, part = trainer.test()  # type: ignore[attr-defined]
        predictions.write(
            Path(assignment.folder) / "predictions",
            assignment.spec.trial_id,
            assignment.arm,
            part.index,
            part.labels.cpu().numpy(),
            evaluation.logits.numpy(),
            trainer.test_groups(),  # type: ignore[attr-defined]
        )
        self._spans += [*spans, Span(begin, time.monotonic() - begin, "evaluate", assignment.spec.trial_id)]
        return {"test": [("loss", evaluation.loss), *evaluation.metrics.items()]}  # Tune would flatten a map

    @property
    def _trial_id(self) -> str:
        return self._assignment.spec.trial_id if isinstance(self._assignment, Assignment) else ""

    def _measure(self, category: Category) -> None:
        now = time.monotonic()
        self._spans.append(Span(self._last, now - self._last, category, self._trial_id))
        self._last = now

    def _result(self, steps: list[TrialEpoch], **end: Any) -> dict[str, Any]:
        if steps:
            self._previous = steps[-1]
        spans = self._spans + [span for step in steps for span in step.spans]
        self._spans, self._last = [], time.monotonic()
        return {
            "trial": self._trial_id,
            "worker": self._worker,
            "host": platform.node(),
            "process": os.getpid(),
            "records": [asdict(step.record) for step in steps],
            "spans": [[span.start, span.duration_s, span.category, span.trial_id] for span in spans],
            "done": bool(end),
            **end,
        }


def _divergence(step: TrialEpoch) -> str:
    rates = step.settings.lr
    return (
        f"the loss was not finite in epoch {step.record.epoch}, with a learning rate between "
        f"{rates.min():g} and {rates.max():g}"
    )
