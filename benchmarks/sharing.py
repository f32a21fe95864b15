"""What sharing saves: the 124 configurations of sharing.yaml, each on its own, and all on one memo."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import HERE, Row, compared, in_turn
from lrstudy.memo import Memo
from lrstudy.plan import Plan
from lrstudy.study import Study
from lrstudy.training.trainer import Trainer
from lrstudy.trial import TrialSpec, Walk

TITLE = "a grid of five families, with and without sharing"
NOTES = (
    "124 configurations x 30 epochs of 100 digits with a small CNN, one after the other on one core: as many memos as trials, or one.",
    "Device-seconds are those of training, evaluation and states. Epochs trained on one memo are compared with the distinct ones.",
)


def run(repeats: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        plan, _ = Study.from_yaml(HERE / "sharing.yaml", [f"storage.path={folder}"]).plan()
        specs = [
            plan.spec(f"{name}-{number}", arm, point, 0, False, {})
            for name, arm in plan.arms.items()
            for number, point in enumerate(arm.space.grid())
        ]
        assert len(specs) == 124, len(specs)
        distinct = len({name for spec in specs for name in spec.chain()})
        trainer = Trainer(plan.workload)
        counted: list[int] = []
        variants = {"shared": _shared(plan, specs, trainer, counted), "alone": _alone(specs, trainer)}
        found = in_turn(variants, repeats)
    epochs = [
        compared(
            f"epochs trained ({distinct} distinct of {124 * 30} asked)",
            [counted[0]],
            [distinct],
            "epochs",
            target=1 / 1.02,
        )
    ]
    return [*epochs, compared("device-seconds", found["shared"], found["alone"], target=1.35)]


def _shared(plan: Plan, specs: list[TrialSpec], trainer: Trainer, counted: list[int]) -> Callable[[], float]:
    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            memo = Memo(Path(folder))
            found = [_walk(spec, memo, trainer) for spec in specs]
        counted.append(sum(trained for _, trained in found))
        return sum(seconds for seconds, _ in found)

    return measure


def _alone(specs: list[TrialSpec], trainer: Trainer) -> Callable[[], float]:
    def measure() -> float:
        total = 0.0
        for spec in specs:
            with tempfile.TemporaryDirectory() as folder:
                total += _walk(spec, Memo(Path(folder)), trainer)[0]
        return total

    return measure


def _walk(spec: TrialSpec, memo: Memo, trainer: Trainer) -> tuple[float, int]:
    """Device-seconds of a trial's trained and retrained epochs, and how many were trained."""
    seconds, trained = 0.0, 0
    for step in Walk(spec, memo, lambda: trainer):
        seconds += sum(span.duration_s for span in step.spans)
        trained += not step.recalled
    return seconds, trained
