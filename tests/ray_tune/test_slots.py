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


# Several nodes


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Two nodes with a slot each from 100 s on; node b's clock is 1,000 s ahead, and its reports take 0.25 s or more."""
    journal = Journal(tmp_path / "journal")
    journal.open_run()
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(slots_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    slots = Slots(journal, "cpu", 1.0)
    slots.sync([Node("a", "ha", 1), Node("b", "hb", 1)], 100.0)

    def report(worker, node, trial, *measured, at, after=0.0, done=False):
        """A report of spans in the driver's time, sent at `at` and heard `after` seconds later."""
        ahead = 1000.0 if node == "b" else 0.0
        clock.now = at + after
        slots.observe(
            {
                "worker": worker, "node": node, "host": f"h{node}", "process": 1, "trial": trial, "at": at + ahead, "done": done,
                "clock": clock_identity() if node == "a" else "another boot",
                "spans": [[start + ahead, end - start, category, trial] for category, start, end in measured],
            }
        )  # fmt: skip

    def rows(end):
        journal.write("end", at=end)
        found: dict[str, list] = {}
        for row in ledger_rows(journal.lines, end):
            found.setdefault(row["device"], []).append((row["category"], 100 + row["start"], row["duration_s"]))
        return found

    def hand_out(trial, at):
        clock.now = at
        slots.hand_out(trial)

    return SimpleNamespace(slots=slots, report=report, rows=rows, hand_out=hand_out, clock=clock, journal=journal)


def test_what_a_host_with_another_clock_measured_is_on_the_drivers_within_the_fastest_report(cluster):
    cluster.hand_out("t", 102.0)
    cluster.report("w", "b", "t", ("setup", 103, 105), ("train", 105, 107), at=107.0, after=0.5)
    cluster.report("w", "b", "t", ("train", 107, 109), at=109.0, after=0.25, done=True)
    cluster.slots.close(112.0)
    (lines,) = [rows for device, rows in cluster.rows(113.0).items() if device == "cpu:1"]
    assert lines == [
        ("setup", 100, 2), ("setup", 102, 1.25), ("setup", 103.25, 2), ("train", 105.25, 2), ("train", 107.25, 2),
        ("between", 109.25, 2.75), ("teardown", 112, 1),
    ]  # fmt: skip


def test_a_worker_gets_a_slot_of_its_own_node(cluster):
    cluster.hand_out("t", 102.0)
    cluster.report("w", "b", "t", ("setup", 102, 103), at=103.0)
    cluster.hand_out("u", 102.0)
    cluster.report("v", "a", "u", ("setup", 102, 103), at=103.0)
    assert [line["slot"] for line in cluster.journal.of_kind("spans")] == [1, 0]


def test_slots_end_with_their_node_and_what_its_worker_did_is_lost(cluster):
    cluster.hand_out("t", 100.0)
    cluster.report("w", "b", "t", ("setup", 100, 103), ("train", 103, 104), at=104.0, after=0.0)
    cluster.slots.sync([Node("a", "ha", 1)], 110.0)
    cluster.slots.notice_deaths("t", "w")  # Tune says so later
    cluster.slots.close(112.0)
    rows = cluster.rows(112.0)
    assert rows["cpu:1"] == [("setup", 100, 3), ("train", 103, 1), ("lost", 104, 6)]
    assert rows["cpu:0"] == [("setup", 100, 12)], "nothing of it is booked on the node that is left"
    assert cluster.slots.has_lost(cluster.slots.node_of("w"))
    assert not cluster.slots.has_lost(cluster.slots.node_of("never heard of"))


def test_a_node_that_joins_brings_slots_from_then_on(cluster):
    assert cluster.slots.wanted == 2
    cluster.slots.sync([Node("a", "ha", 1), Node("b", "hb", 1), Node("c", "hc", 3)], 105.0)
    assert cluster.slots.wanted == 5
    cluster.slots.close(110.0)
    rows = cluster.rows(110.0)
    assert [rows[f"cpu:{slot}"] for slot in (2, 3, 4)] == [[("setup", 105, 5)]] * 3


def test_a_limit_takes_fewer_slots_and_follows_workers_to_the_node_where_they_are(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.open_run()
    slots = Slots(journal, "cpu", 1.0, limit=2)
    slots.sync([Node("a", "ha", 2), Node("b", "hb", 2)], 0.0)
    assert [(line["host"], line["count"]) for line in journal.of_kind("slots")] == [("ha", 2)]
    slots.hand_out("t")
    slots.observe({"worker": "w", "node": "b", "host": "hb", "process": 1, "trial": "t", "at": 1.0, "done": False,
                   "clock": clock_identity(), "spans": []})  # fmt: skip
    assert [line["slots"] for line in journal.of_kind("left")] == [[0]]
    assert [(line["host"], line["first"], line["count"]) for line in journal.of_kind("slots")] == [
        ("ha", 0, 2),
        ("hb", 2, 1),
    ]
    assert slots.wanted == 2


def test_a_cluster_without_nodes_yet_wants_what_it_shall_grow_to(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.open_run()
    assert Slots(journal, "cuda", 1.0, limit=8).wanted == 8
    assert Slots(journal, "cuda", 1.0).wanted == 1
