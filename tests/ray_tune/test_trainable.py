"""A worker measures all of its time, without Ray around it."""

from __future__ import annotations

import time

import pytest

from lrstudy.memo.memo import Memo
from lrstudy.ray_tune.trainable import Assignment, TuneTrial
from lrstudy.running.admission import Admission
from lrstudy.study_folder.journal import Journal
from serial import SMALL, study

PAUSE_S = 0.05


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
