"""Running a study in this process, one trial after another in a chosen order, with the real trainer: no Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lrstudy.memo.memo import Memo
from lrstudy.planning.plan import Plan
from lrstudy.running import range_tests
from lrstudy.running.admission import Admission
from lrstudy.running.trials import Trial
from lrstudy.study import Study
from lrstudy.study_folder.journal import Journal
from lrstudy.training.trainer import Trainer
from lrstudy.trial.walk import TrialEpoch, Walk

SMALL = """
lrstudy: 1
name: small
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}, model: small_cnn}
budget: {epochs: 4}
common: {lr: {log: [1e-2, 1], steps: 7}, batch_size: 20}
arms: [constant, step, clr]
search: {method: random, trials: 4, cohort: 2}
confirm: {top: 1, seeds: 2}
"""


def study(tmp_path: Path, text: str = SMALL, *overrides: str) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return Study.from_yaml(path, [f"storage.path={tmp_path / 'runs'}", *overrides])


class Serial:
    """Runs what admission hands out on `slots` simulated slots; `order` picks which running trial steps next."""

    def __init__(self, plan: Plan, folder: Path, slots: int = 1, order: Callable[[int], int] = lambda n: 0) -> None:
        self.folder = folder
        self.journal = Journal(folder / "small" / "journal")
        self.journal.open_run()
        self.memo = Memo(folder / "memo")
        self.admission = Admission(plan, self.memo, self.journal)
        self.plan, self.slots, self.order = plan, slots, order
        self.trainers: list[Trainer] = [Trainer(plan.workload) for _ in range(slots)]
        self.trained: list[str] = []
        self.steps: list[TrialEpoch] = []

    def run(self, stop_after: int | None = None) -> Admission:
        running: list[tuple[Trial, Trainer, Walk, object]] = []
        free = list(self.trainers)
        while True:
            while (waiting := self.admission.next_test()) is not None:
                range_tests.measure(waiting, self.plan.workload, Memo(self.memo.location), lambda: self.trainers[0])
                self.admission.tested(waiting)
            while free and (trial := self.admission.next()) is not None:
                trainer = free.pop()
                walk = Walk(trial.spec, Memo(self.memo.location), lambda trainer=trainer: trainer)
                running.append((trial, trainer, walk, iter(walk)))
            if not running:
                assert self.admission.is_done or self.admission.stopped, "deadlock"
                return self.admission
            position = self.order(len(running))
            trial, trainer, walk, steps = running[position]
            step = next(steps, None)  # type: ignore[call-overload]
            if step is not None:
                self.steps.append(step)
                if not step.recalled:
                    self.trained.append(step.record.lineage)
                self.admission.stepped(trial.trial_id, step.records)
                if stop_after is not None and len(self.trained) >= stop_after:
                    self.admission.stop("test")
                    return self.admission
                continue
            running.pop(position)
            free.append(trainer)
            if trial.records[-1].diverged:
                self.admission.ended(trial.trial_id, "diverged")
                continue
            test = None
            if trial.spec.read_test:
                holder, _, _ = walk.bring_to_selected()
                evaluation, _ = holder.test(walk.selected_recipe)  # type: ignore[attr-defined]
                test = {"loss": evaluation.loss, **evaluation.metrics}
                if (other := holder.test_otherwise(walk.selected_recipe)) is not None:  # type: ignore[attr-defined]
                    test |= {other[0]: other[1].metrics[self.plan.study.metric]}
                fitted = holder.evaluate_training(walk.selected_recipe)  # type: ignore[attr-defined]
                test |= {"train_loss": fitted.loss, **{f"train_{k}": v for k, v in fitted.metrics.items()}}
            self.admission.ended(trial.trial_id, "completed", test=test)


def suggestions(admission: Admission) -> dict[str, Sequence[object]]:
    return {t.trial_id: (t.configuration, t.phase) for t in admission.trials.values()}  # type: ignore[dict-item]
