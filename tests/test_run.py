"""A run: limits that all runs of a study keep together, and what a driver leaves alone that was taken over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from lrstudy.run import _within_limits
from lrstudy.running.admission import Admission
from lrstudy.running.limits import Limits, Taken, taken
from lrstudy.study_folder.journal import Journal
from prescribed import run_study
from report_studies import SMALL
from study_files import plan_of


@pytest.fixture
def limited(tmp_path):
    """A function that gives admission to the third run of a study: 40 s and, killed after 30 s, 70 s in all on 2 half devices."""

    def make(*limits: str) -> Admission:
        journal = Journal(tmp_path / "journal")
        slots = {"count": 2, "share": 0.5, "device": "cuda", "host": "h"}
        journal.open_run()
        journal.write("slots", start=1000.0, **slots)
        journal.write("end", at=1040.0)
        journal.open_run()
        journal.write("slots", start=20.0, **slots)
        journal.open_run()  # of another boot: its clock begins anew
        journal.write("killed", of=2, at=50.0)
        return Admission(plan_of(*limits), Memo(tmp_path / "memo"), journal)

    return make


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("limits.wall=70s", "limits.wall (70s) is reached, all runs of the study together"),
        ("limits.wall=71s", ""),
        ("limits.gpu_hours=0.0194", "limits.gpu_hours (0.0194) is reached"),
        ("limits.gpu_hours=0.0195", ""),
    ],
)
def test_limits_hold_for_all_runs_together(limited, limit, reason):
    """Each run had the whole limits.wall: a study that was killed at night and run again every morning never stopped."""
    admission = limited(limit)
    Limits(admission.plan.study, admission.journal, Taken()).enforce(admission)
    assert admission.stopped == reason


def test_limits_hold_for_all_workloads_of_a_file_together(limited):
    for elsewhere, reason in ((Taken(29.0, 0.0), ""), (Taken(30.0, 0.0), "limits.wall (100s) is reached")):
        admission = limited("limits.wall=100s")
        Limits(admission.plan.study, admission.journal, elsewhere).enforce(admission)
        assert admission.stopped.startswith(reason)
        assert bool(admission.stopped) == bool(reason)
    admission = limited("limits.gpu_hours=1")
    Limits(admission.plan.study, admission.journal, Taken(0.0, 3530.0)).enforce(admission)
    assert admission.stopped == "limits.gpu_hours (1) is reached"


def test_what_another_workload_took_ends_with_the_last_sign_of_life_of_a_run_that_was_killed(limited, tmp_path):
    """Its journal says nothing of its end, and its clock may be that of another boot."""
    journal = Journal(tmp_path / "other")
    journal.open_run()
    journal.write("slots", start=9e9, count=2, share=0.5, device="cuda", host="h")
    journal.write("spans", worker="w", host="h", slot=0, at=9e9 + 12, spans=[[9e9 + 2, 10.0, "train", "t"]])
    journal.close()
    assert taken(Journal(tmp_path / "other")) == Taken(12.0, 12.0)


def test_a_run_after_the_limit_hands_out_nothing(limited):
    admission = limited("limits.wall=10s")
    first = admission.next()
    assert _within_limits(admission, first, Taken()) is None
    assert first.status == "waiting"
    assert admission.stopped
    assert admission.is_over
    assert admission.next() is None
    free = limited("limits.wall=10h")
    first = free.next()
    assert _within_limits(free, first, Taken()) is first


def test_a_driver_that_was_taken_over_leaves_tables_and_lock_to_the_other(tmp_path: Path):
    """It ended in order, and wrote what it knew over what the other driver had written since."""
    folder, kept = tmp_path / "small", {}

    def is_taken_over(admission: Admission) -> bool:
        if sum(trial.status == "completed" for trial in admission.trials.values()) < 3:
            return False
        lock = folder / "driver.lock"
        lock.write_text(json.dumps(json.loads(lock.read_text()) | {"token": "another"}))
        kept.update({path: path.read_bytes() for path in folder.iterdir() if path.is_file()})
        admission.fail("another driver has taken this study over")
        return True

    with pytest.raises(StorageError, match="another driver has taken this study over"):
        run_study(tmp_path, SMALL, moments={tmp_path / "moment": is_taken_over})
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == kept
