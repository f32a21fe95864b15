from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrstudy.running.ledger_rows import ledger_rows
from lrstudy.study_folder.ledger import CATEGORIES, Span, Worker, joined, slot_lines


def lines(workers, start, end, idle=(), done=None, driver=()):
    """(category, start, end) of a slot's lines."""
    return [(line.category, line.start, line.end) for line in slot_lines(workers, driver, start, end, idle, done)]


def spans(*measured):
    return [Span(start, end - start, category, "t") for category, start, end in measured]


WHOLE = spans(("setup", 2, 5), ("data", 5, 6), ("waiting", 6, 7), ("train", 7, 9), ("evaluate", 9, 10),
              ("between", 10, 12), ("state", 12, 13), ("calibrate", 13, 15))  # fmt: skip
DRIVER = [Span(0, 2, "setup"), Span(15, 1, "between")]


def test_a_slot_is_filled_by_what_its_worker_and_the_driver_measured():
    assert lines([Worker(WHOLE)], 0, 18, done=16, driver=DRIVER) == [
        ("setup", 0, 2), *((span.category, span.start, span.end) for span in WHOLE), ("between", 15, 16),
        ("teardown", 16, 18),
    ]  # fmt: skip


@pytest.mark.parametrize("missing", range(len(WHOLE) + len(DRIVER)))
def test_no_category_is_a_remainder(missing):
    """What a worker did not measure was `waiting` or `setup`, whatever it was: a ledger that can not fail to close."""
    everything = [*WHOLE, *DRIVER]
    hole = everything.pop(missing)
    workers, driver = [Worker([span for span in everything if span in WHOLE])], [s for s in everything if s in DRIVER]
    found = lines(workers, 0, 18, idle=[(0, 0.5)] if hole.start else [], done=16, driver=driver)
    assert [(start, end) for category, start, end in found if category == "unaccounted"] == [(hole.start, hole.end)]
    assert sum(end - start for _, start, end in found) == 18


def test_what_nobody_measured_is_unaccounted_from_end_to_end():
    assert lines([], 10, 20) == [("unaccounted", 10, 20)]
    assert lines([], 10, 20, idle=[(12, 15)], done=18) == [("unaccounted", 10, 18), ("teardown", 18, 20)]


def test_a_slot_that_nothing_was_handed_to_is_idle_and_not_setup():
    driver = [Span(0, 18, "setup")]
    assert lines([], 0, 20, [(3, 18)], 18, driver) == [("setup", 0, 3), ("idle", 3, 18), ("teardown", 18, 20)]


def test_spans_keep_their_trial():
    measured = [Span(0, 1, "train", "a"), Span(1, 1, "between", "b")]
    filled = slot_lines([Worker(measured)], [], 0, 2, [(1.5, 1.75)])
    assert [(line.category, line.trial_id) for line in filled] == [
        ("train", "a"), ("between", "b"), ("idle", ""), ("between", "b"),
    ]  # fmt: skip


def test_idle_intervals_may_overlap_come_in_any_order_and_reach_beyond_what_they_are_in():
    worker = Worker(spans(("train", 0, 2), ("between", 2, 10), ("train", 10, 12)))
    assert lines([worker], 0, 12, idle=[(6, 8), (3, 5), (4, 7)]) == [
        ("train", 0, 2), ("between", 2, 3), ("idle", 3, 8), ("between", 8, 10), ("train", 10, 12),
    ]  # fmt: skip
    assert lines([worker], 0, 12, idle=[(-5, 50)]) == [("train", 0, 2), ("idle", 2, 10), ("train", 10, 12)]


def test_idle_time_is_taken_out_of_between_but_never_out_of_work_boot_or_gaps():
    worker = Worker(spans(("setup", 0, 2), ("train", 2, 4), ("between", 4, 8), ("train", 9, 10)))
    assert lines([worker], 0, 10, idle=[(1, 7), (8, 9)]) == [
        ("setup", 0, 2), ("train", 2, 4), ("idle", 4, 7), ("between", 7, 8), ("unaccounted", 8, 9), ("train", 9, 10),
    ]  # fmt: skip


def test_what_a_worker_measured_counts_before_what_the_driver_did():
    assert lines([Worker(spans(("setup", 3, 6)))], 0, 8, driver=[Span(0, 5, "setup"), Span(5, 3, "between")]) == [
        ("setup", 0, 3), ("setup", 3, 6), ("between", 6, 8),
    ]  # fmt: skip


def test_after_a_death_everything_is_lost_until_the_successor_has_booted():
    dead = Worker(spans(("setup", 0, 2), ("train", 2, 4)), died=True, heard=4)
    successor = Worker(
        spans(("setup", 6, 8), ("between", 8, 8.5), ("data", 8.5, 9), ("train", 9, 10), ("data", 10, 11))
    )
    assert lines([dead, successor], 0, 12, idle=[(4, 12)], done=11) == [
        ("setup", 0, 2), ("train", 2, 4), ("lost", 4, 6), ("lost", 6, 8), ("lost", 8, 8.5), ("lost", 8.5, 9),
        ("train", 9, 10), ("data", 10, 11), ("teardown", 11, 12),
    ]  # fmt: skip


def test_lost_is_what_follows_a_dead_workers_last_report_and_not_a_hole_before_it():
    dead = Worker(spans(("train", 0, 2)), died=True, heard=3)
    successor = Worker(spans(("train", 8, 10)))
    assert lines([dead, successor], 0, 10) == [
        ("train", 0, 2), ("unaccounted", 2, 3), ("lost", 3, 8), ("train", 8, 10),
    ]  # fmt: skip
    without_report = Worker(spans(("train", 0, 2)), died=True)  # as earlier versions left it
    assert lines([without_report, successor], 0, 10) == [("train", 0, 2), ("lost", 2, 8), ("train", 8, 10)]


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


def test_a_successor_that_has_booted_is_kept_and_one_that_has_not_is_lost():
    dead = Worker(spans(("train", 0, 4)), died=True)
    booted = Worker(spans(("setup", 5, 6), ("data", 6, 7)))
    assert lines([dead, booted], 0, 12, [(3, 9)], 10, [Span(7, 3, "between")]) == [
        ("train", 0, 4), ("lost", 4, 5), ("lost", 5, 6), ("lost", 6, 7), ("idle", 7, 9), ("between", 9, 10),
        ("teardown", 10, 12),
    ]  # fmt: skip
    assert lines([dead], 0, 12, idle=[(3, 9)], done=10) == [("train", 0, 4), ("lost", 4, 10), ("teardown", 10, 12)]


def test_a_killed_runs_last_worker_loses_the_time_to_the_kill():
    assert lines([Worker(spans(("setup", 0, 1), ("train", 1, 4)), died=True, heard=4)], 0, 6) == [
        ("setup", 0, 1), ("train", 1, 4), ("lost", 4, 6),
    ]  # fmt: skip


def test_spans_beyond_the_run_are_cut_and_spans_outside_it_dropped():
    worker = Worker(spans(("setup", -3, 1), ("train", 1, 9), ("state", 9, 11), ("train", 20, 30)))
    assert lines([worker], 0, 10) == [("setup", 0, 1), ("train", 1, 9), ("state", 9, 10)]


def test_of_overlapping_spans_the_one_that_starts_first_holds_in_whatever_order_they_come():
    measured = spans(("train", 0, 5), ("evaluate", 3, 7), ("state", 4, 6))
    for ordered in (measured, measured[::-1]):
        assert lines([Worker(ordered)], 0, 7) == [("train", 0, 5), ("evaluate", 5, 7)]


def test_a_workers_bookkeeping_between_two_spans_makes_no_line_of_its_own():
    worker = Worker(spans(("train", 0, 2), ("evaluate", 2.0002, 3)))
    assert lines([worker], 0, 3) == [("train", 0, 2), ("evaluate", 2, 3)]


def test_neighbours_of_one_category_and_trial_are_joined_and_nothing_else_is():
    measured = [Span(0, 1, "state", "a"), Span(1 + 2**-11, 1, "state", "a"), Span(2.5, 1, "state", "a"),
                Span(3.5, 1, "state", "b"), Span(4.5, 1, "train", "b")]  # fmt: skip
    assert joined(measured[::-1]) == [Span(0, 2 + 2**-11, "state", "a"), *measured[2:]]


number = st.floats(0, 1000, allow_nan=False).map(lambda x: round(x, 4))
measured = st.builds(Span, number, st.floats(-1, 300), st.sampled_from(CATEGORIES[:-1]), st.sampled_from(["a", "b"]))
interval = st.tuples(number, number)


@given(
    st.lists(st.builds(Worker, st.lists(measured, max_size=8), st.booleans(), st.none() | number), max_size=4),
    st.lists(measured, max_size=4),
    interval.map(sorted),
    st.lists(interval, max_size=6),
    st.none() | number,
)
def test_whatever_was_measured_the_lines_fill_the_run_exactly(workers, driver, run, idle, done):
    start, end = run
    filled = slot_lines(workers, driver, start, end, idle, done)
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
        for line in ledger_rows(journal, now)
    ]


def test_times_of_the_ledger_count_from_the_start_of_each_run():
    journal = [
        {"kind": "run", "run": 1},
        slots(1, 50.0),
        {"kind": "slot", "run": 1, "slot": 0, "category": "setup", "start": 50.0, "end": 52.0},
        report(1, "w", ("train", 52.0, 55.0)),
        {"kind": "slot", "run": 1, "slot": 0, "category": "between", "start": 55.0, "end": 57.0},
        {"kind": "idle", "run": 1, "start": 55.5, "end": 57.0},
        {"kind": "done", "run": 1, "at": 55.5},
        {"kind": "teardown", "run": 1, "at": 57.0},
        {"kind": "end", "run": 1, "at": 58.0},
        slots(2, 90.0),
    ]
    assert shown(journal, now=93.0) == [
        (1, "cpu:0", "setup", 0.0, 2.0),
        (1, "cpu:0", "train", 2.0, 3.0),
        (1, "cpu:0", "between", 5.0, 0.5),
        (1, "cpu:0", "idle", 5.5, 1.5),
        (1, "cpu:0", "teardown", 7.0, 1.0),
        (2, "cpu:0", "unaccounted", 0.0, 3.0),
    ]


def test_the_journal_of_an_earlier_version_gives_a_ledger_that_says_what_it_did_not_measure():
    journal = [
        slots(1, 50.0),
        report(1, "w", ("setup", 51.0, 52.0), ("train", 52.0, 53.0), ("train", 53.5, 55.0)),
        {"kind": "done", "run": 1, "at": 55.0},
        {"kind": "end", "run": 1, "at": 56.0},
    ]
    assert shown(journal) == [
        (1, "cpu:0", "unaccounted", 0.0, 1.0),
        (1, "cpu:0", "setup", 1.0, 1.0),
        (1, "cpu:0", "train", 2.0, 1.0),
        (1, "cpu:0", "unaccounted", 3.0, 0.5),
        (1, "cpu:0", "train", 3.5, 1.5),
        (1, "cpu:0", "teardown", 5.0, 1.0),
    ]


def test_a_killed_run_ends_at_its_last_sign_of_life_and_its_workers_died():
    journal = [slots(1, 0.0), report(1, "w", ("train", 0.0, 4.0)), {"kind": "killed", "run": 2, "of": 1, "at": 6.0}]
    assert shown(journal) == [(1, "cpu:0", "train", 0.0, 4.0), (1, "cpu:0", "lost", 4.0, 2.0)]


def test_what_a_killed_driver_never_heard_of_is_lost():
    assert shown([slots(1, 0.0), {"kind": "killed", "run": 2, "of": 1, "at": 6.0}]) == [(1, "cpu:0", "lost", 0.0, 6.0)]


def test_a_worker_that_died_without_a_trial_loses_nothing():
    journal = [
        slots(1, 0.0),
        report(1, "w", ("train", 0.0, 4.0)),
        {"kind": "slot", "run": 1, "slot": 0, "category": "between", "start": 4.0, "end": 6.0},
        {"kind": "died", "run": 1, "worker": "w", "at": 6.0, "heard": 6.0},
        {"kind": "teardown", "run": 1, "at": 7.0},
        {"kind": "end", "run": 1, "at": 8.0},
    ]
    assert [category for _, _, category, *_ in shown(journal)] == ["train", "between", "lost", "teardown"]


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
