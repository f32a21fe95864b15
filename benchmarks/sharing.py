"""What sharing saves: the 124 configurations of sharing.yaml, each on its own, and all on one memo."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.harness import HERE, Row, compared, in_turn
from lrstudy.memo.memo import Memo
from lrstudy.study import Study
from lrstudy.training.trainer import Trainer
from lrstudy.trial.spec import TrialSpec
from lrstudy.trial.walk import Walk

TITLE = "a grid of five families, with and without sharing"
NOTES = (
    "124 configurations x 30 epochs of 100 digits with a small CNN, one after the other on one core: as many memos as trials, or one.",
    "Device-seconds are those of training, evaluation and states; without sharing, states need not be handled, so that the second row counts",
    "them on our side alone. Epochs trained on one memo are compared with the distinct ones.",
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
        variants = {"shared": lambda: _shared(specs, trainer, counted), "alone": lambda: _alone(specs, trainer)}
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
    shared, alone = [sum(seconds.values()) for seconds in found["shared"]], found["alone"]
    return [
        *epochs,
        compared("device-seconds", shared, [sum(seconds.values()) for seconds in alone], target=1.35),
        compared(
            "device-seconds, against training and evaluation", shared, [s["train"] + s["evaluate"] for s in alone]
        ),
    ]


def _shared(specs: list[TrialSpec], trainer: Trainer, counted: list[int]) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        memo, seconds, trained = Memo(Path(folder)), Counter[str](), 0
        for spec in specs:
            trained += _walk(spec, memo, trainer, seconds)
    counted.append(trained)
    return seconds


def _alone(specs: list[TrialSpec], trainer: Trainer) -> Counter[str]:
    seconds = Counter[str]()
    for spec in specs:
        with tempfile.TemporaryDirectory() as folder:
            _walk(spec, Memo(Path(folder)), trainer, seconds)
    return seconds


def _walk(spec: TrialSpec, memo: Memo, trainer: Trainer, seconds: Counter[str]) -> int:
    """Walk a trial, adding its device-seconds by category; how many epochs were trained."""
    trained = 0
    for step in Walk(spec, memo, lambda: trainer):
        for span in step.spans:
            seconds[span.category] += span.duration_s
        trained += not step.recalled
    return trained
