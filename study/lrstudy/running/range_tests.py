"""Range tests: what one does, its name in the memo, and how it is run; any process may run one, and the first result counts.

A test is named by the state that it begins with and by the settings of all its updates, so arms that begin alike, with one
recipe and batch size, have one test in common, in all studies of a storage. Which rate is taken from its curve is not in the
name.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np

from lrstudy.config.range_question import EPOCHS_OF_LINEAR, RangeQuestion
from lrstudy.data.statistics import Statistics
from lrstudy.memo.memo import Memo
from lrstudy.planning.plan import Plan
from lrstudy.policies.run import Run
from lrstudy.running.calibration import UpdateKind
from lrstudy.running.searches import tuning_name
from lrstudy.settings import Settings
from lrstudy.study_folder.ledger import Span
from lrstudy.training.range_curve import Curve
from lrstudy.trial.spec import TrialSpec
from lrstudy.trial.trainer import TrainerLike
from lrstudy.trial.walk import Walk
from lrstudy.workload.workload import Workload

VERSION = b"1"
"""Raised whenever a test of the same name would give another curve."""
_MEASURED = 30
"""How often a linear test measures the accuracy, if it has so many updates."""


@dataclass(frozen=True)
class RangeTest:
    """A range test after `depth` epochs of the trial `spec`, with batch size, recipe and momentum of the epoch to come."""

    spec: TrialSpec
    depth: int
    question: RangeQuestion

    @cached_property
    def passes(self) -> tuple[Settings, ...]:
        """The settings of its updates, as those of whole or partial epochs; all sections have the same rate."""
        run, coming = self.spec.run, self.spec.build_policy().settings(self.depth, (), self.spec.run)
        in_epoch = run.num_updates(coming.batch_size)
        num_updates = self.question.updates or EPOCHS_OF_LINEAR * in_epoch
        size = min(in_epoch, -(-num_updates // _MEASURED)) if self.measures_accuracy else in_epoch
        rates = self.question.rates(num_updates)
        parts = [rates[start : start + size] for start in range(0, num_updates, size)]
        return tuple(_pass(part, number, coming, run) for number, part in enumerate(parts))

    @property
    def measures_accuracy(self) -> bool:
        """Whether it measures the accuracy on the validation part after every pass."""
        return self.question.form == "linear"

    @property
    def num_updates(self) -> int:
        """How many updates it has, unless it ends early."""
        return sum(settings.num_updates for settings in self.passes)

    @cached_property
    def needs(self) -> frozenset[str]:
        """The names of the states, and of the features, that are made before it if they are not there."""
        chain = self.spec.chain()[: self.depth]
        return frozenset([*chain, *self.spec.features(chain).values()])

    @cached_property
    def digest(self) -> str:
        """Its name: 32 hexadecimal digits."""
        start = self.spec.chain()[self.depth - 1] if self.depth else self.spec.root.name()
        name = blake2b(digest_size=16, person=b"lrstudy-range")
        for part in (
            VERSION,
            bytes.fromhex(start),
            bytes([self.measures_accuracy]),
            *(s.canonical for s in self.passes),
        ):
            name.update(len(part).to_bytes(8, "little") + part)
        return name.hexdigest()


@dataclass(frozen=True)
class Measured:
    """A range test as the memo has it: its curve, and what it cost in device-seconds."""

    curve: Curve
    device_s: float
    device_kind: str
    host: str


class NoStartError(RuntimeError):
    """There is no state that a range test could begin with: the training before it diverged."""


def of_arm(
    plan: Plan,
    arm: str,
    question: RangeQuestion | None = None,
    rate: str | None = None,
    origin: Mapping[str, Any] | None = None,
) -> RangeTest:
    """The range test of an arm, with its default configuration and the first tuning seed.

    It begins where the first stage with the parameter `rate` does: by default with the initial state. What is trained and
    computed before it counts as the work of the arm's first trial, which trains the same, in the study that `origin` names.

    Args:
        plan: The plan, with the rates of the stages before.
        arm: The arm.
        question: How the test is made, by default as the arm asks, and without that as the default of a study file.
        rate: The rate that it finds: `lr`, or of a stage `stage2_lr`.
        origin: Where its epochs come from, as their records will say.
    """
    resolved, seed = plan.arms[arm], plan.study.search.seeds[0]
    trial_id = f"{tuning_name((arm, plan.methods[0], 0), 0)}-{seed}"
    spec = plan.spec(trial_id, resolved, resolved.space.default(), seed, False, origin or {})
    rate = rate or resolved.rates[0]
    stage = resolved.rates.index(rate)
    depth = sorted(spec.stage_starts)[stage]
    return RangeTest(replace(spec, until=None), depth, question or resolved.questions.get(rate) or RangeQuestion())


def recalled(memo: Memo, test: RangeTest) -> Measured | None:
    """What is recorded of a test; None if it has not been run, or what is there is no curve."""
    stored = memo.measurement(_path(test), "device_s")
    try:
        return None if stored is None else _measured(stored)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def measure(test: RangeTest, workload: Workload, memo: Memo, make_trainer: Callable[[], TrainerLike]) -> list[Span]:
    """Run a test and store what it measured, unless another process was first. Returns where the time went.

    Epochs before it are recalled, or trained and committed. Raises NoStartError if these diverged, StorageError, and
    whatever training raises.
    """
    walk, spans = Walk(test.spec, memo, make_trainer), list[Span]()
    for step in islice(walk, test.depth):
        spans += step.spans
        if step.record.diverged:
            raise NoStartError(f"the training before it diverged in epoch {step.record.epoch + 1}")
    trainer: Any = walk.bring_to(test.depth, test.passes[0].recipe)
    spans += walk.take_spans()
    begin = time.monotonic()
    for settings in test.passes:
        trainer.make_ready(settings)
    met, seconds = trainer.range_test(test.passes, test.spec.root.seed, test.depth, test.measures_accuracy)
    rates = np.concatenate([settings.lr[:, -1] for settings in test.passes])[: len(met.losses)]
    curve = Curve(
        planned=test.num_updates,
        rates=tuple(rates.tolist()),
        losses=tuple(loss for loss in met.losses if np.isfinite(loss)),
        measured_after=tuple(after for after, _ in met.accuracies),
        accuracies=tuple(accuracy for _, accuracy in met.accuracies),
        chance=chance(workload.statistics) if test.measures_accuracy else 0.0,
        num_validation=workload.counts[1],
    )
    cost = {
        "device_s": seconds * test.spec.device_share,
        "device_kind": test.spec.root.device_kind,
        "host": platform.node(),
    }
    memo.put_measurement(_path(test), curve.to_json() | cost)
    return [*spans, Span(begin, time.monotonic() - begin, "range_test")]


def update_kind(test: RangeTest) -> UpdateKind:
    """What its updates cost, as a kind of update."""
    return UpdateKind.of(test.passes[0])


def chance(statistics: Statistics) -> float:
    """The accuracy on the validation part of whoever always says the most frequent class, or of each label what is more frequent."""
    counts, total = statistics.counts["validation"], statistics.num_examples["validation"]
    if statistics.is_multilabel:
        return float(np.mean([max(count, total - count) / total for count in counts]))
    return max(counts) / total


def _pass(rates: Any, number: int, coming: Settings, run: Run) -> Settings:
    """The settings of one pass. Only the first may make a new optimizer; a partial one leaves out what it does not get to."""
    recipe = coming.recipe
    is_whole = len(rates) == run.num_updates(coming.batch_size)
    recipe = replace(
        recipe,
        reset_optimizer=recipe.reset_optimizer and number == 0,
        tail=recipe.tail if is_whole else "drop",
    )
    lr = np.repeat(rates.reshape(-1, 1), run.num_sections, axis=1)
    return Settings(lr, np.array(coming.momentum[0, -1]), coming.batch_size, recipe)


def _measured(stored: Mapping[str, Any]) -> Measured:
    return Measured(Curve.of_json(stored), float(stored["device_s"]), str(stored["device_kind"]), str(stored["host"]))


def _path(test: RangeTest) -> str:
    return f"range_tests/{test.digest}"
