"""What is plugged into Tune, without Ray: a storage that fails in the middle of the bookkeeping ends the study, and does not hang it."""

from __future__ import annotations

import pytest

from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from lrstudy.ray_tune.adapter import AdmissionSearcher
from lrstudy.ray_tune.slots import Node, Slots
from lrstudy.running.admission import Admission
from lrstudy.study_folder.journal import Journal
from study_files import plan_of

FULL = "storage.path: cannot write: No space left on device."


@pytest.fixture
def admission(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.open_run()
    return Admission(plan_of(), Memo(tmp_path / "memo"), journal)


def here(admission, count):
    slots = Slots(admission.journal, "cpu", 1.0)
    slots.sync([Node("", "h", count)], 0.0)
    return slots


def report(**end):
    spans = [[0.0, 1.0, "train", "t"]]
    who = {"worker": "w", "node": "", "clock": "", "host": "h", "process": 1, "trial": "t", "at": 1.0}
    return {**who, "records": [], "spans": spans, "done": bool(end), **end}


def failing(kind, real):
    def write(name, **line):
        if name == kind:
            raise StorageError(FULL)
        return real(name, **line)

    return write


@pytest.mark.parametrize("kind", ["spans", "trial"])
def test_a_journal_that_cannot_be_written_ends_the_study(admission, monkeypatch, kind):
    """The trial went on counting as running: Tune waited for it for ever, and only Ctrl-C helped."""
    searcher = AdmissionSearcher(admission, admission.plan.workload, "", None, here(admission, 1))
    assert "assignment" in searcher.suggest("a")
    monkeypatch.setattr(admission.journal, "write", failing(kind, admission.journal.write))
    searcher.on_trial_complete("a", report(status="failed", error="x"))
    assert admission.failure == FULL
    assert admission.is_over
    assert searcher.suggest("b") == searcher.FINISHED


def test_a_dead_worker_that_cannot_be_noted_ends_the_study(admission, monkeypatch):
    slots = here(admission, 1)
    searcher = AdmissionSearcher(admission, admission.plan.workload, "", None, slots)
    searcher.suggest("a")

    def no_space(trial_id, worker):
        raise StorageError(FULL)

    monkeypatch.setattr(slots, "notice_deaths", no_space)
    searcher.on_trial_complete("a", None, error=True)
    assert admission.is_over
    assert searcher.suggest("b") == searcher.FINISHED


def test_idleness_that_cannot_be_noted_hands_nothing_out(admission, monkeypatch):
    searcher = AdmissionSearcher(admission, admission.plan.workload, "", None, here(admission, 2))
    admission._idle_since = 0.0
    monkeypatch.setattr(admission.journal, "write", failing("idle", admission.journal.write))
    assert searcher.suggest("a") == searcher.FINISHED
    assert admission.failure == FULL
    assert not any(trial.status == "running" for trial in admission.trials.values())
