from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrstudy.running.tables import ledger_lines
from lrstudy.study_folder.ledger import CATEGORIES, Span, Worker, slot_lines


def lines(workers, start, end, idle=(), done=None):
    """(category, start, end) of a slot's lines."""
    filled = slot_lines(workers, start, end, idle, end if done is None else done)
    return [(line.category, line.start, line.end) for line in filled]


def spans(*measured):
    return [Span(start, end - start, category, "t") for category, start, end in measured]


def test_a_run_without_workers_is_setup_then_teardown():
    assert lines([], 10, 20, done=18) == [("setup", 10, 18), ("teardown", 18, 20)]
    assert lines([Worker([])], 10, 20, done=18) == [("setup", 10, 18), ("teardown", 18, 20)]


def test_a_slot_that_nothing_was_handed_to_is_idle_and_not_setup():
    assert lines([], 0, 20, idle=[(3, 18)], done=18) == [("setup", 0, 3), ("idle", 3, 18), ("teardown", 18, 20)]


def test_a_worker_fills_its_slot_with_what_it_measured():
    worker = Worker(spans(("setup", 2, 5), ("data", 5, 6), ("train", 6, 9), ("evaluate", 9, 10), ("state", 10, 10.5)))
    assert lines([worker], 0, 12, done=10.5) == [
        ("setup", 0, 2),
        ("setup", 2, 5),
        ("data", 5, 6),
        ("train", 6, 9),
        ("evaluate", 9, 10),
        ("state", 10, 10.5),
        ("teardown", 10.5, 12),
    ]


def test_spans_keep_their_trial():
    filled = slot_lines([Worker([Span(0, 1, "train", "a"), Span(1, 1, "between", "b")])], 0, 2, [(1.5, 1.75)], 2)
    assert [(line.category, line.trial_id) for line in filled] == [
        ("train", "a"), ("between", "b"), ("idle", ""), ("between", "b"),
    ]  # fmt: skip


def test_a_gap_is_waiting_and_idle_where_there_was_nothing_to_hand_out():
    worker = Worker(spans(("train", 0, 2), ("train", 10, 12)))
    assert lines([worker], 0, 12) == [("train", 0, 2), ("waiting", 2, 10), ("train", 10, 12)]
    assert lines([worker], 0, 12, idle=[(4, 7)]) == [
        ("train", 0, 2), ("waiting", 2, 4), ("idle", 4, 7), ("waiting", 7, 10), ("train", 10, 12),
    ]  # fmt: skip


def test_idle_time_that_reaches_beyond_a_gap_is_cut_at_its_edges():
    worker = Worker(spans(("train", 0, 2), ("train", 10, 12)))
    assert lines([worker], 0, 12, idle=[(1, 3), (9, 11)]) == [
        ("train", 0, 2), ("idle", 2, 3), ("waiting", 3, 9), ("idle", 9, 10), ("train", 10, 12),
    ]  # fmt: skip
    assert lines([worker], 0, 12, idle=[(-5, 50)]) == [("train", 0, 2), ("idle", 2, 10), ("train", 10, 12)]


def test_idle_intervals_may_overlap_and_come_in_any_order():
    worker = Worker(spans(("train", 0, 2), ("train", 10, 12)))
    assert lines([worker], 0, 12, idle=[(6, 8), (3, 5), (4, 7)]) == [
        ("train", 0, 2), ("waiting", 2, 3), ("idle", 3, 8), ("waiting", 8, 10), ("train", 10, 12),
    ]  # fmt: skip


def test_idle_time_is_taken_out_of_between_but_never_out_of_work_or_boot():
    worker = Worker(spans(("setup", 0, 2), ("train", 2, 4), ("between", 4, 8), ("train", 8, 9)))
    assert lines([worker], 0, 9, idle=[(1, 7)]) == [
        ("setup", 0, 2), ("train", 2, 4), ("idle", 4, 7), ("between", 7, 8), ("train", 8, 9),
    ]  # fmt: skip


def test_after_a_death_everything_is_lost_until_the_successor_has_booted():
    dead = Worker(spans(("setup", 0, 2), ("train", 2, 4)), died=True)
    successor = Worker(spans(("setup", 6, 8), ("data", 8, 9), ("train", 9, 10), ("data", 10, 11)))
    assert lines([dead, successor], 0, 12, idle=[(4, 12)], done=11) == [
        ("setup", 0, 2),
        ("train", 2, 4),
        ("lost", 4, 6),
        ("lost", 6, 8),
        ("lost", 8, 9),
        ("train", 9, 10),
        ("data", 10, 11),
        ("teardown", 11, 12),
    ]


def test_a_pause_in_the_successors_boot_is_lost_too():
    dead = Worker(spans(("train", 0, 4)), died=True)
    successor = Worker(spans(("setup", 5, 6), ("data", 7, 8), ("train", 8, 9)))
    assert lines([dead, successor], 0, 9) == [
        ("train", 0, 4), ("lost", 4, 5), ("lost", 5, 6), ("lost", 6, 7), ("lost", 7, 8), ("train", 8, 9),
    ]  # fmt: skip


def test_loading_a_state_is_a_successors_first_work():
    dead = Worker(spans(("train", 0, 4)), died=True)
    successor = Worker(spans(("setup", 5, 6), ("state", 6, 7), ("setup", 7, 8), ("train", 8, 9)))
    assert lines([dead, successor], 0, 9) == [
        ("train", 0, 4), ("lost", 4, 5), ("lost", 5, 6), ("state", 6, 7), ("setup", 7, 8), ("train", 8, 9),
    ]  # fmt: skip


def test_a_successor_that_has_booted_waits_and_one_that_has_not_is_lost():
    dead = Worker(spans(("train", 0, 4)), died=True)
    booted = Worker(spans(("setup", 5, 6), ("data", 6, 7)))
    assert lines([dead, booted], 0, 12, idle=[(3, 9)], done=10) == [
        ("train", 0, 4), ("lost", 4, 5), ("lost", 5, 6), ("lost", 6, 7), ("idle", 7, 9), ("waiting", 9, 10),
        ("teardown", 10, 12),
    ]  # fmt: skip
    assert lines([dead, Worker([])], 0, 12, idle=[(3, 9)], done=10) == [
        ("train", 0, 4),
        ("lost", 4, 10),
        ("lost", 10, 12),
    ]


def test_a_slot_of_which_nothing_was_measured_in_time_is_setup_whoever_died_in_it():
    assert lines([Worker([], died=True), Worker(spans(("train", 20, 30)))], 0, 10) == [("setup", 0, 10)]


def test_a_killed_runs_last_worker_loses_the_time_to_the_kill():
    assert lines([Worker(spans(("train", 1, 4)), died=True)], 0, 6) == [
        ("setup", 0, 1),
        ("train", 1, 4),
        ("lost", 4, 6),
    ]


def test_spans_beyond_the_run_are_cut_and_spans_outside_it_dropped():
    worker = Worker(spans(("setup", -3, 1), ("train", 1, 9), ("state", 9, 11), ("train", 20, 30)))
    assert lines([worker], 0, 10) == [("setup", 0, 1), ("train", 1, 9), ("state", 9, 10)]
    assert lines([Worker(spans(("train", 20, 30)))], 0, 10, done=8) == [("setup", 0, 8), ("teardown", 8, 10)]


def test_of_overlapping_spans_the_one_that_starts_first_holds_in_whatever_order_they_come():
    measured = spans(("train", 0, 5), ("evaluate", 3, 7), ("state", 4, 6))
    for ordered in (measured, measured[::-1]):
        assert lines([Worker(ordered)], 0, 7) == [("train", 0, 5), ("evaluate", 5, 7)]


def test_a_workers_bookkeeping_between_two_spans_makes_no_line_of_its_own():
    worker = Worker(spans(("train", 0, 2), ("evaluate", 2.0002, 3)))
    assert lines([worker], 0, 3) == [("train", 0, 2), ("evaluate", 2, 3)]


number = st.floats(0, 1000, allow_nan=False).map(lambda x: round(x, 4))
measured = st.builds(Span, number, st.floats(-1, 300), st.sampled_from(CATEGORIES), st.sampled_from(["a", "b"]))
interval = st.tuples(number, number)


@given(
    st.lists(st.builds(Worker, st.lists(measured, max_size=8), st.booleans()), max_size=4),
    interval.map(sorted),
    st.lists(interval, max_size=6),
    number,
)
def test_whatever_was_measured_the_lines_fill_the_run_exactly(workers, run, idle, done):
    start, end = run
    filled = slot_lines(workers, start, end, idle, done)
    assert all(line.duration_s > 0 and line.category in CATEGORIES for line in filled)
    at = start
    for line in filled:
        assert line.start == pytest.approx(at, abs=1e-9)  # neither gap nor overlap
        at = line.end
    assert at == pytest.approx(end, abs=1e-9)
    assert sum(line.duration_s for line in filled) == pytest.approx(end - start, abs=1e-9)


# The ledger of a whole journal


def slots(run, start, count=1):
    return {"kind": "slots", "run": run, "count": count, "start": start, "share": 0.5, "device": "cpu", "host": "h"}


def report(run, worker, *measured, slot=0):
    measured_spans = [[start, end - start, category, "t"] for category, start, end in measured]
    return {"kind": "spans", "run": run, "worker": worker, "host": "h", "slot": slot, "spans": measured_spans}


def shown(journal, now=100.0):
    return [
        (line["run"], line["device"], line["category"], line["start"], line["duration_s"])
        for line in ledger_lines(journal, now)
    ]


def test_times_of_the_ledger_count_from_the_start_of_each_run():
    journal = [
        {"kind": "run", "run": 1},
        slots(1, 50.0),
        report(1, "w", ("train", 52.0, 55.0)),
        {"kind": "done", "run": 1, "at": 55.0},
        {"kind": "end", "run": 1, "at": 56.0},
        slots(2, 90.0),
    ]
    assert shown(journal, now=93.0) == [
        (1, "cpu:0", "setup", 0.0, 2.0),
        (1, "cpu:0", "train", 2.0, 3.0),
        (1, "cpu:0", "teardown", 5.0, 1.0),
        (2, "cpu:0", "setup", 0.0, 3.0),
    ]


def test_a_killed_run_ends_at_its_last_sign_of_life_and_its_workers_died():
    journal = [slots(1, 0.0), report(1, "w", ("train", 0.0, 4.0)), {"kind": "killed", "run": 2, "of": 1, "at": 6.0}]
    assert shown(journal) == [(1, "cpu:0", "train", 0.0, 4.0), (1, "cpu:0", "lost", 4.0, 2.0)]


def test_a_worker_that_was_replaced_in_its_slot_died():
    journal = [
        slots(1, 0.0, count=2),
        report(1, "a", ("train", 0.0, 4.0)),
        report(1, "other", ("train", 0.0, 10.0), slot=1),
        report(1, "b", ("setup", 6.0, 8.0), ("train", 8.0, 10.0)),
        {"kind": "end", "run": 1, "at": 10.0},
    ]
    assert shown(journal) == [
        (1, "cpu:0", "train", 0.0, 4.0),
        (1, "cpu:0", "lost", 4.0, 2.0),
        (1, "cpu:0", "lost", 6.0, 2.0),
        (1, "cpu:0", "train", 8.0, 2.0),
        (1, "cpu:1", "train", 0.0, 10.0),
    ]


def test_a_run_that_only_recalled_has_no_lines():
    assert shown([{"kind": "run", "run": 1}, {"kind": "done", "run": 1, "at": 5.0}]) == []


def test_a_slot_whose_worker_died_before_its_first_report_is_lost():
    assert slot_lines([Worker((), died=True)], 0.0, 5.0, [], 5.0) == [Span(0.0, 5.0, "lost")]
