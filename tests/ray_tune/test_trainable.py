"""A worker measures all of its time, without Ray around it."""

from __future__ import annotations

import time

import pytest

from lrstudy.memo.memo import Memo
from lrstudy.ray_tune.trainable import Assignment, TuneTrial
from lrstudy.running.admission import Admission
from lrstudy.study_folder.journal import Journal
from lrstudy.training.trainer import Trainer
from serial import SMALL, study

PAUSE_S = 0.05


@pytest.mark.slow
def test_a_confirm_trial_reports_its_state_on_the_training_part_and_charges_the_pass_as_evaluation(tmp_path):
    plan = study(tmp_path, SMALL).plan()[0]
    arm = plan.arms["constant"]
    spec = plan.spec("constant-confirm-1-1000", arm, arm.space.default(), 1000, True, {})
    memo = Memo(tmp_path / "memo")
    worker = TuneTrial({"assignment": Assignment(spec, "constant", plan.workload, memo.location, str(tmp_path))})
    reports = [worker.step()]
    while not reports[-1]["done"]:
        reports.append(worker.step())
    assert reports[-1]["status"] == "completed", reports[-1]
    trainer, test = Trainer(plan.workload), dict(reports[-1]["test"])
    trainer.restore(memo.state_of(memo.find(reports[-1]["records"][-1]["lineage"])))
    fitted = trainer.evaluate_training()
    assert {name: value for name, value in test.items() if name.startswith("train_")} == {
        "train_loss": fitted.loss,
        **{f"train_{name}": value for name, value in fitted.metrics.items()},
    }
    assert test["accuracy"] == trainer.test()[0].metrics["accuracy"] != test["train_accuracy"]
    evaluated = [span for report in reports for span in report["spans"] if span[2] == "evaluate"]
    assert evaluated[-1][0] + evaluated[-1][1] <= reports[-1]["at"]
    assert [record["metrics"]["train_accuracy"] for report in reports for record in report["records"]]


@pytest.mark.slow
def test_a_worker_measures_all_of_its_time(tmp_path):
    """The time between two reports was in no span, and the ledger called it waiting, whatever it was."""
    plan = study(tmp_path, SMALL).plan()[0]
    journal = Journal(tmp_path / "journal")
    journal.open_run()
    admission = Admission(plan, Memo(tmp_path / "memo"), journal)
    reports, worker = [], None
    for _ in range(2):
        trial = admission.next()
        memo = admission.memo.location
        config = {"assignment": Assignment(trial.spec, trial.arm, plan.workload, memo, str(tmp_path))}
        if worker is None:
            begun = time.monotonic()
            worker = TuneTrial(config)
        else:
            worker.reset_config(config)
        while not reports or not reports[-1]["done"] or reports[-1]["trial"] != trial.trial_id:
            time.sleep(PAUSE_S)
            reports.append(worker.step())
        time.sleep(PAUSE_S)
    spans = sorted(span for report in reports for span in report["spans"])
    at = spans[0][0]
    assert begun <= at < begun + PAUSE_S / 2, (
        "setup begins with the worker's first instruction; the driver knows the rest"
    )
    for start, duration, *_ in spans:
        assert start - at < PAUSE_S / 2, "a hole"
        at = max(at, start + duration)
    assert reports[-1]["at"] - at < PAUSE_S / 2
    durations = {
        name: sum(d for _, d, category, _ in spans if category == name) for name in ("setup", "waiting", "between")
    }
    assert durations["setup"] > 0
    assert min(durations["waiting"], durations["between"]) >= PAUSE_S, durations
