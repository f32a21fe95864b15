"""Recalling epochs, and planning a large study: 10,000 trials x 30 epochs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.harness import HERE, Row, in_turn, shown, timed
from lrstudy.memo.memo import Memo
from lrstudy.planning.plan import Plan
from lrstudy.running.forecast import forecast
from lrstudy.study import Study
from lrstudy.study_folder.journal import Journal
from lrstudy.training.trainer import Trainer
from lrstudy.trial.walk import Walk

TITLE = "recall and plan of large studies"
NOTES = (
    "Against fixed limits: the ratio is the limit over what was measured. Recall is of epochs that are recorded already, by a process",
    "that has seen none of them. The plan is of 10,000 random trials x 30 epochs of which nothing is recorded, from reading the study file on.",
)
_RECALL_S, _PLAN_S = 1e-3, 10.0
_LARGE = (
    "search={method: random, trials: 2000, cohort: 0}", "common.lr={log: [1e-3, 1.0], steps: 400}", "confirm={top: 0}",
    "common.weight_decay={log: [1e-5, 1e-2], steps: 30}", "arms.constant={}",
)  # fmt: skip


def run(repeats: int) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        plan, _ = Study.from_yaml(HERE / "sharing.yaml", [f"storage.path={folder}"]).plan()
        rows.append(
            limit("recall of an epoch", in_turn({"recall": _recall(plan, Path(folder))}, repeats)["recall"], _RECALL_S)
        )
        empty = Path(folder) / "empty"

        def plan_large() -> None:
            large, _ = Study.from_yaml(HERE / "sharing.yaml", [f"storage.path={folder}", "name=large", *_LARGE]).plan()
            assert large.num_trials == 10_000, large.num_trials
            forecast(large, Journal(empty / "journal"), Memo(empty / "memo"))

        variants = {"plan": timed(plan_large)}
        rows.append(limit("plan of 10,000 trials x 30 epochs", in_turn(variants, repeats)["plan"], _PLAN_S))
    return rows


def limit(what: str, measured: list[float], most: float, unit: str = "s") -> Row:
    """A row of something that should be at most `most`."""
    ratios = sorted(most / value for value in measured)
    middle = ratios[len(ratios) // 2]
    return Row(
        what,
        shown(most / middle, unit),
        f"at most {shown(most, unit)}",
        middle,
        ratios[0],
        ratios[-1],
        len(ratios),
        1.0,
    )


def _recall(plan: Plan, folder: Path):
    trainer = Trainer(plan.workload)
    arm = plan.arms["sgdr"]
    spec = plan.spec("t", arm, arm.space.default(), 0, False, {})
    for _ in Walk(spec, Memo(folder / "memo"), lambda: trainer):
        pass

    def measure() -> float:
        memo = Memo(folder / "memo")
        begin = time.perf_counter()
        steps = list(Walk(spec, memo, lambda: trainer))
        seconds = time.perf_counter() - begin
        assert all(step.recalled for step in steps)
        return seconds / len(steps)

    return measure
