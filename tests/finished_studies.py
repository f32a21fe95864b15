"""Studies that have run, with tables, lock, predictions and states, made in this process: no Ray."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from lrstudy.config.text import located
from lrstudy.memo.memo import Memo
from lrstudy.planning import study_lock
from lrstudy.running.tables import TableWriter
from lrstudy.study import Study
from lrstudy.study_folder import predictions
from lrstudy.training.trainer import Trainer
from serial import Serial

TINY = """
lrstudy: 1
name: small
workload: {data: digits, subset: 200, split: {test: 60, validation: 40}, model: small_cnn}
budget: {epochs: 2}
common: {lr: {log: [1e-2, 1], steps: 7}, batch_size: 20}
arms: [constant, step]
search: {method: random, trials: 2, cohort: 1}
confirm: {top: 1, seeds: 2}
storage: {path: runs}
"""


def finished(
    folder: Path, text: str = TINY, *overrides: str, files: Mapping[str, str] | None = None, is_complete: bool = True
) -> Path:
    """Run a study named `small` to its end; its file, beside `files`, and its storage are in `folder`. Returns its folder.

    `is_complete` is what its lock says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"study.yaml": text, **(files or {})}.items():
        (folder / name).write_text(content)
    study = Study.from_yaml(folder / "study.yaml", overrides)
    plan, _ = study.plan()
    serial = Serial(plan, Path(study.storage.location))
    admission = serial.run()
    trainer = serial.trainers[0]
    for trial in admission.trials.values():
        if trial.phase == "confirm":
            _predict(trainer, serial.memo, study.folder, trial)
    TableWriter(admission, study.folder).write(time.monotonic())
    (study.folder / "study.yaml").write_text(text)
    lock = study_lock.render(plan, located(overrides), is_complete, {"torch": "a test's"}, base=folder)
    (study.folder / "study.lock.json").write_text(lock)
    return study.folder


def _predict(trainer: Trainer, memo: Memo, folder: Path, trial) -> None:
    state = memo.state_of(trial.records[trial.selected])
    assert state is not None
    trainer.restore(state)
    evaluation, part = trainer.test(trial.spec.untriggered()[trial.selected].recipe)
    assert evaluation.logits is not None
    predictions.write(
        folder,
        trial.trial_id,
        trial.arm,
        part.index,
        part.labels.numpy(),
        evaluation.logits.numpy(),
        trainer.test_groups(),
        trainer.workload.classes,
        trainer.test_sources(),
    )
