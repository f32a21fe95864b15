"""What the driver measures of slots: when they had no worker, or a worker without a trial. The rest is the workers'."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lrstudy.ray_tune import slots as slots_module
from lrstudy.ray_tune.slots import Node, Slots
from lrstudy.running.ledger_rows import ledger_rows
from lrstudy.study_folder.clock import identity as clock_identity
from lrstudy.study_folder.journal import Journal


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose devices were allocated at 100 s: its slots, a clock, and who has died."""
    journal = Journal(tmp_path / "journal")
    journal.open_run()
    clock, dead = SimpleNamespace(now=100.0), set()
    monkeypatch.setattr(slots_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(slots_module, "_is_alive", lambda pid: pid not in dead)
    slots = Slots(journal, "cpu", 1.0)
    slots.sync([Node("", "h", 1)], 100.0)

    def handed(trial, at):
        clock.now = at
        assert slots.hand_out(trial) == at

    def report(worker, trial, *measured, at, done=False):
        spans = [[start, end - start, category, trial] for category, start, end in measured]
        slots.observe(
            {
                "worker": worker,
                "host": "h",
                "node": "n",
                "clock": clock_identity(),
                "process": int(worker),
                "trial": trial,
                "at": at,
                "done": done,
                "spans": spans,
            }
        )

    def died(worker, trial, at):
        clock.now = at
        dead.add(int(worker))
        slots.notice_deaths(trial)

    def lines(end):
        journal.write("end", at=end)
        ledger = [(r["category"], 100 + r["start"], r["duration_s"]) for r in ledger_rows(journal.lines, end)]
        assert sum(duration for *_, duration in ledger) == end - 100
        return ledger

    return SimpleNamespace(handed=handed, report=report, died=died, lines=lines, close=slots.close, idle=journal.write)


def test_the_driver_measures_its_set_up_and_what_comes_after_the_last_trial(run):
    run.handed("a", 105.0)
    run.report("1", "a", ("setup", 105, 108), ("train", 108, 110), at=110.0, done=True)
    run.idle("idle", start=111.0, end=114.0)
    run.close(114.0)
    run.close(115.0)  # that of the end, when Ray is gone
    assert run.lines(116.0) == [
        ("setup", 100, 5), ("setup", 105, 3), ("train", 108, 2), ("between", 110, 1), ("idle", 111, 3),
        ("teardown", 114, 2),
    ]  # fmt: skip


def test_what_a_worker_measured_and_never_said_is_unaccounted(run):
    run.handed("a", 105.0)
    run.report("1", "a", ("setup", 105, 108), at=110.0)
    run.report("1", "a", ("train", 112, 114), at=114.0, done=True)
    run.close(114.0)
    assert [line for line in run.lines(115.0) if line[0] == "unaccounted"] == [("unaccounted", 108, 4)]


def test_a_worker_stopped_in_its_work_by_the_end_of_the_run_loses_what_it_had_not_reported(run):
    run.handed("a", 105.0)
    run.report("1", "a", ("setup", 105, 108), ("train", 108, 110), at=110.0)
    run.close(113.0)
    assert run.lines(115.0)[-2:] == [("lost", 110, 3), ("teardown", 113, 2)]


def test_a_dead_workers_slot_is_lost_until_its_successor_works(run):
    run.handed("a", 105.0)
    run.report("1", "a", ("setup", 105, 108), ("train", 108, 110), at=110.0)
    run.died("1", "a", 112.0)
    run.handed("a", 113.0)
    run.report("2", "a", ("setup", 113, 115), ("train", 115, 116), at=116.0, done=True)
    run.close(116.0)
    assert run.lines(117.0)[2:] == [
        ("train", 108, 2), ("lost", 110, 3), ("lost", 113, 2), ("train", 115, 1), ("teardown", 116, 1),
    ]  # fmt: skip


def test_a_worker_that_died_before_its_first_report_costs_what_it_took_to_notice_it(run):
    run.handed("a", 105.0)
    run.died("1", "a", 109.0)
    run.handed("a", 110.0)
    run.report("2", "a", ("setup", 110, 112), ("train", 112, 113), at=113.0, done=True)
    run.close(113.0)
    assert run.lines(113.0) == [
        ("setup", 100, 5), ("lost", 105, 4), ("lost", 109, 1), ("setup", 110, 2), ("train", 112, 1),
    ]  # fmt: skip


def test_a_slot_that_never_had_a_worker_was_being_set_up_or_idle(run):
    run.idle("idle", start=104.0, end=110.0)
    run.close(110.0)
    assert run.lines(111.0) == [("setup", 100, 4), ("idle", 104, 6), ("teardown", 110, 1)]
