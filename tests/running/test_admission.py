"""Admission without Ray: what is handed out, what is held back, and that neither order nor crashes change a study."""

from __future__ import annotations

import random

import pytest

import serial
from lrstudy.memo.memo import Memo
from lrstudy.running.admission import Admission
from lrstudy.running.trials import Trial
from lrstudy.search import METHODS
from lrstudy.search.stream import Stream
from lrstudy.study_folder.journal import Journal
from serial import SMALL, Serial, study, suggestions

pytestmark = pytest.mark.slow

FINITE = """
lrstudy: 1
name: small
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}, model: small_cnn}
budget: {epochs: 2}
common: {lr: {log: [1e-2, 1], steps: 7}, batch_size: 40}
arms:
  constant:
  step: {milestones: [1]}
search: {method: random, trials: 9, cohort: 2, outstanding: 4}
confirm: {top: 1, seeds: 1}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return study(tmp_path_factory.mktemp("admission")).plan()[0]


@pytest.fixture(scope="module")
def undisturbed(plan, tmp_path_factory):
    runner = Serial(plan, tmp_path_factory.mktemp("undisturbed"))
    return runner, runner.run()


def outcome(admission: Admission):
    """All that a study concludes from, by trial: configuration, status, every metric, test result."""
    return {
        t.trial_id: (t.configuration, t.status, [r.metrics for r in t.records], t.test)
        for t in admission.trials.values()
    }


def test_epochs_trained_are_the_distinct_lineages(undisturbed):
    runner, admission = undisturbed
    distinct = {record.lineage for trial in admission.trials.values() for record in trial.records}
    asked = sum(len(trial.records) for trial in admission.trials.values())
    assert sorted(runner.trained) == sorted(distinct)
    assert len(distinct) < asked


def test_every_arm_gets_equal_trials_cohort_first_on_the_same_common_points(undisturbed):
    _, admission = undisturbed
    by_arm: dict[str, list] = {}
    for trial in admission.trials.values():
        if trial.phase != "confirm":
            by_arm.setdefault(trial.arm, []).append(trial)
    assert {len(trials) for trials in by_arm.values()} == {4}
    points = [[t.configuration["lr"] for t in trials if t.phase == "cohort"] for trials in by_arm.values()]
    assert points[0] == points[1] == points[2]
    assert [t.phase for t in by_arm["clr"]] == ["cohort", "cohort", "tune", "tune"]


def test_confirmation_takes_fresh_seeds_and_alone_reads_the_test_part(undisturbed):
    _, admission = undisturbed
    confirm = [t for t in admission.trials.values() if t.phase == "confirm"]
    assert {t.seed for t in confirm} == {1000, 1001}
    assert all(t.test is not None and t.spec.read_test for t in confirm)
    assert all(t.test is None and not t.spec.read_test for t in admission.trials.values() if t.phase != "confirm")
    for trial in confirm:
        tuned = [t for t in admission.trials.values() if t.arm == trial.arm and t.phase != "confirm"]
        best = max(tuned, key=lambda t: (t.value, -t.index))
        assert trial.configuration == best.configuration


@pytest.mark.parametrize("slots", [2, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_order_and_slots_change_nothing(plan, undisturbed, tmp_path, slots, seed):
    pick = random.Random(seed)
    runner = Serial(plan, tmp_path, slots, lambda n: pick.randrange(n))
    assert outcome(runner.run()) == outcome(undisturbed[1])
    assert len(runner.trained) == len(set(runner.trained)), "a state was trained twice"


@pytest.mark.parametrize("stop_after", [1, 7, 20, 33])
def test_a_driver_killed_at_any_moment_then_run_again_gives_the_same_study(plan, undisturbed, tmp_path, stop_after):
    pick = random.Random(stop_after)
    killed = Serial(plan, tmp_path, 2, lambda n: pick.randrange(n))
    killed.run(stop_after=stop_after)  # neither closed nor told: what a SIGKILL leaves
    again = Serial(plan, tmp_path, 1)
    assert outcome(again.run()) == outcome(undisturbed[1])
    assert set(killed.trained).isdisjoint(again.trained), "a recorded epoch was trained again"


@pytest.fixture(scope="module")
def by_best(tmp_path_factory):
    """A study that selects the best epoch, at rates so high that this is often not the last one."""
    folder = tmp_path_factory.mktemp("best")
    rates = "common.lr={choice: [0.2, 1.0]}"
    plan = study(folder, SMALL, "select=best", rates, "arms=[constant]", "search.trials=2", "search.cohort=2").plan()[0]
    runner = Serial(plan, folder)
    return runner, runner.run()


def confirming(admission: Admission):
    return [trial for trial in admission.trials.values() if trial.phase == "confirm"]


def test_what_is_tested_is_the_state_by_which_the_trial_is_judged(by_best):
    runner, admission = by_best
    trainer = runner.trainers[0]
    assert any(trial.selected < 3 for trial in confirming(admission)), "not the study that this test needs"
    for trial in confirming(admission):
        values = [record.metrics["val_accuracy"] for record in trial.records]
        assert trial.selected == values.index(max(values))
        assert trial.value == max(values)
        trainer.restore(runner.memo.state_of(trial.records[trial.selected]))
        assert trainer.test()[0].metrics["accuracy"] == trial.test["accuracy"]


def test_a_recorded_test_of_the_selected_state_is_recalled_and_one_of_another_state_is_not(by_best):
    runner, admission = by_best
    again = Serial(runner.plan, runner.folder)
    assert all(again.admission._is_recorded(trial) for trial in _walked(again, admission))
    for line in again.admission._noted.values():
        del line["tested"]  # as earlier versions wrote it, which tested the last state whatever was selected
    recorded = {trial.trial_id: again.admission._is_recorded(trial) for trial in _walked(again, admission)}
    assert recorded == {trial.trial_id: trial.selected == 3 for trial in confirming(admission)}
    assert outcome(again.run()) == outcome(admission)
    assert not again.trained


def _walked(runner: Serial, admission: Admission):
    """The confirm trials of a study that ran, as another run makes them; their records are looked up."""
    trials = confirming(admission)
    for trial in trials:
        trial.walk(runner.memo.find)
    return trials


def test_a_rerun_trains_nothing_and_wakes_no_searcher(plan, undisturbed, monkeypatch):
    runner, admission = undisturbed

    def refuse(*arguments):
        raise AssertionError("a searcher was made")

    monkeypatch.setattr("lrstudy.search.stream.make", refuse)
    again = Serial(plan, runner.folder)
    assert outcome(again.run()) == outcome(admission)
    assert not again.trained


@pytest.fixture(scope="module")
def by_method(tmp_path_factory):
    """For every searcher: a plan on a finite space, and the study that one slot gives."""
    found = {}
    for method in METHODS:
        folder = tmp_path_factory.mktemp(method)
        plan = study(folder, FINITE, f"search.method={method}").plan()[0]
        found[method] = (plan, Serial(plan, folder / "memo-1").run())
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("slots", [2, 4])
def test_every_searcher_suggests_the_same_under_shuffled_completion(by_method, tmp_path, method, slots):
    plan, expected = by_method[method]
    pick = random.Random(slots)
    runner = Serial(plan, tmp_path, slots, lambda n: pick.randrange(n))
    assert suggestions(runner.run()) == suggestions(expected)


@pytest.mark.parametrize("method", METHODS)
def test_every_searcher_suggests_the_same_after_a_crash(by_method, tmp_path, method):
    plan, expected = by_method[method]
    pick = random.Random(3)
    Serial(plan, tmp_path, 2, lambda n: pick.randrange(n)).run(stop_after=9)
    assert suggestions(Serial(plan, tmp_path, 2).run()) == suggestions(expected)


@pytest.mark.parametrize("outstanding", [1, 3, 9, 16])
@pytest.mark.parametrize("stop_after", [2, 6, 11, 17])
def test_a_model_suggests_the_same_for_every_window_and_after_every_crash(tmp_path, outstanding, stop_after):
    overrides = ("search.method=optuna", f"search.outstanding={outstanding}", "search.cohort=3")
    plan = study(tmp_path, FINITE, *overrides).plan()[0]
    expected = Serial(plan, tmp_path / "whole").run()
    pick = random.Random(stop_after)
    slots = pick.choice([1, 2, 5])
    Serial(plan, tmp_path / "cut", slots, lambda n: pick.randrange(n)).run(stop_after=stop_after)
    assert suggestions(Serial(plan, tmp_path / "cut", 2).run()) == suggestions(expected)
    told = {trial.trial_id: trial.proposed_by for trial in expected.trials.values() if trial.phase == "tune"}
    assert set(told.values()) <= {"model", "random"}
    assert sum(who == "model" for who in told.values()) >= len(told) - 4, "of 7 rates a model soon knows all"


def test_a_study_of_the_earlier_rule_is_recalled_whole_and_new_suggestions_follow_the_new_one(tmp_path, monkeypatch):
    """Its journal neither says who proposed nor which search it was; a suggestion was asked W results behind."""
    plan = study(tmp_path, FINITE, "search.method=optuna", "search.trials=7", "search.cohort=3").plan()[0]
    with monkeypatch.context() as patched:
        patched.setattr(Stream, "_num_needed", lambda stream, index: index - stream._outstanding + 1)
        before = Serial(plan, tmp_path / "x")
        expected = outcome(before.run())
    journal = before.journal.folder / "0001.jsonl"
    text = journal.read_text()
    for who in ("cohort", "default", "random", "model"):
        text = text.replace(f', "proposed_by": "{who}"', "")
    journal.write_text(text)
    again = Serial(plan, tmp_path / "x")
    assert outcome(again.run()) == expected
    assert not again.trained
    who = {t.index: t.proposed_by for t in again.admission.trials.values() if (t.arm, t.phase) == ("step", "tune")}
    assert who == {3: "random", 4: "random", 5: "random", 6: "random"}, (
        "a model was used from 4 results on, with W of 4"
    )
    more = study(tmp_path, FINITE, "search.method=optuna", "search.trials=9", "search.cohort=3").plan()[0]
    extended = Serial(more, tmp_path / "x")
    extended.run()
    new = {t.index: t.proposed_by for t in extended.admission.trials.values() if (t.arm, t.phase) == ("step", "tune")}
    assert new == who | {7: "model", 8: "model"}


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    """A study with one search per arm, then run again with three."""
    folder = tmp_path_factory.mktemp("repeated")
    text = FINITE.replace("steps: 7", "steps: 31").replace("random, trials: 9", "optuna, trials: 5")
    first = Serial(study(folder, text).plan()[0], folder / "x")
    once = outcome(first.run())
    second = Serial(study(folder, text, "search.repeats=3").plan()[0], folder / "x")
    return once, second, second.run()


def test_more_searches_extend_a_study_and_leave_the_first_as_it_is(repeated):
    once, _, admission = repeated
    found = outcome(admission)
    assert {trial_id: found[trial_id] for trial_id in once} == once
    assert len(found) == 3 * len(once) == admission.protocol.num_planned == admission.plan.num_trials


def test_the_ids_of_later_searches_have_their_number(repeated):
    _, _, admission = repeated
    of_step = {t.trial_id: t.repeat for t in admission.trials.values() if t.arm == "step" and t.index in (0, 4)}
    expected = {"step-optuna-0-0": 0, "step-optuna.1-0-0": 1, "step-optuna.2-4-0": 2}
    assert expected.items() <= of_step.items()
    confirmed = {t.trial_id: t.repeat for t in admission.trials.values() if t.phase == "confirm"}
    assert confirmed == {
        f"{arm}-confirm{number}-1-1000": repeat
        for arm in ("constant", "step")
        for repeat, number in enumerate(("", ".1", ".2"))
    }


def test_repeated_searches_share_the_cohort_and_differ_after_it(repeated):
    _, _, admission = repeated
    later = [trial for trial in admission.trials.values() if trial.repeat and trial.phase == "cohort"]
    assert len(later) == 2 * 2 * 2
    assert all(all(trial.recalled) for trial in later)
    own = {
        repeat: [t.configuration for t in admission.trials.values() if (t.repeat, t.phase) == (repeat, "tune")]
        for repeat in range(3)
    }
    assert own[0] != own[1] != own[2] != own[0]
    assert {t.proposed_by for t in admission.trials.values() if t.phase == "tune"} == {"model"}


def test_each_search_confirms_its_own_winner(repeated):
    _, _, admission = repeated
    for trial in (trial for trial in admission.trials.values() if trial.phase == "confirm"):
        tuned = [t for t in admission.trials.values() if t.search == trial.search and t.phase != "confirm"]
        best = max(tuned, key=lambda t: (t.value, -t.index))
        assert (trial.configuration, trial.index) == (best.configuration, best.index)
        assert trial.proposed_by == best.proposed_by


def test_the_journal_names_later_searches_alone_and_a_study_with_repeats_is_recalled_whole(repeated):
    _, runner, admission = repeated
    lines = [line for line in runner.journal.lines if line["kind"] in ("suggest", "told")]
    assert [len(line.get("repeats", ())) for line in runner.journal.of_kind("frozen")] == [0, 2]
    assert {line.get("repeat", 0) for line in lines} == {0, 1, 2}
    assert {line["run"] for line in lines if "repeat" not in line} == {1}
    again = Serial(admission.plan, runner.folder)
    assert outcome(again.run()) == outcome(admission)
    assert not again.trained
    who = {trial_id: trial.proposed_by for trial_id, trial in admission.trials.items()}
    assert {trial_id: trial.proposed_by for trial_id, trial in again.admission.trials.items()} == who
    assert set(who.values()) == {"cohort", "default", "model"}


def test_a_repeated_configuration_ranks_where_it_was_first_suggested(tmp_path, monkeypatch):
    """A cohort of 3 over 2 rates is A, B, A. Of equal values the lowest index wins; B won, as A counted where it came last."""
    text = SMALL.replace("arms: [constant, step, clr]", "arms: {constant: {lr: {choice: [0.1, 0.2]}}}")
    plan = study(tmp_path, text, "search.trials=3", "search.cohort=3", "budget.epochs=1").plan()[0]
    monkeypatch.setattr(Trial, "value", property(lambda trial: 0.5))
    admission = Serial(plan, tmp_path / "x").run()
    assert {trial.index for trial in admission.trials.values() if trial.phase == "confirm"} == {0}


def test_all_arms_begin_with_their_cohorts_before_any_of_them_waits_for_its_own(tmp_path):
    """What the slots do while an arm's last cohort results are missing: the others' cohorts."""
    plan = study(tmp_path, FINITE, "search.method=optuna", "search.cohort=4").plan()[0]
    admission = Admission(plan, Memo(tmp_path / "memo"), _opened(tmp_path))
    handed = []
    while (trial := admission.next()) is not None:
        handed.append(trial)
    waiting = [trial for trial in admission.trials.values() if trial.status == "waiting"]
    assert {trial.arm for trial in handed + waiting} == {"constant", "step"}
    assert len(handed + waiting) == 2 * 4
    assert {trial.phase for trial in handed + waiting} == {"cohort"}


def _opened(folder) -> Journal:
    journal = Journal(folder / "journal")
    journal.open_run()
    return journal


def test_an_arm_whose_space_is_used_up_ends_early(by_method):
    _, admission = by_method["grid"]
    counts = {
        arm: sum(t.arm == arm and t.phase != "confirm" for t in admission.trials.values())
        for arm in ("constant", "step")
    }
    assert counts == {"constant": 7, "step": 9}, "constant has 7 rates and nothing else to search"
    assert admission.is_done
    assert len(admission.trials) == admission.protocol.num_planned


def test_a_trial_is_held_back_while_another_trains_its_next_state(plan, tmp_path):
    runner = Serial(plan, tmp_path, slots=1)
    admission = runner.admission
    first = admission.next()
    other = {"constant": "step", "step": "constant"}[first.arm]
    (held,) = [t for t in admission.trials.values() if (t.arm, t.index) == (other, first.index)]
    assert first.chain[0] == held.chain[0], "step shares its first epochs with constant"
    while admission.next() is not None:
        assert held.status == "waiting"
    admission.ended(first.trial_id, "failed", "boom")
    assert admission.next() is held, "what its owner gave up is free again"


def test_a_claim_is_released_state_by_state(plan, tmp_path):
    runner = Serial(plan, tmp_path)
    admission = runner.admission
    first = admission.next()
    steps = iter(serial.Walk(first.spec, runner.memo, lambda: runner.trainers[0]))
    waiting = next(t for t in admission.trials.values() if t is not first and t.chain[:2] == first.chain[:2])
    for _ in range(2):
        while admission.next() is not None:
            pass
        assert waiting.status == "waiting"
        step = next(steps)
        admission.stepped(first.trial_id, [step.record])
    assert admission.next() is waiting, "both epochs it shares are recorded, though their trial still runs"


def test_running_trials_store_the_states_that_others_wait_for(plan, tmp_path):
    first = Serial(plan, tmp_path).admission.next()
    assert 2 in first.spec.store_at, "step leaves constant after two of four epochs"


def test_a_failed_trial_is_told_as_a_failure_and_the_study_goes_on(plan, tmp_path):
    runner = Serial(plan, tmp_path)
    admission = runner.admission
    failing = admission.next()
    admission.ended(failing.trial_id, "failed", "MemoryError: out of memory")
    finished = runner.run()
    assert finished.is_done
    assert finished.trials[failing.trial_id].status == "failed"
    told = [
        line for line in runner.journal.of_kind("told") if (line["arm"], line["index"]) == (failing.arm, failing.index)
    ]
    assert [line["cost"] for line in told] == [None]
    again = Serial(plan, tmp_path).run()
    assert again.trials[failing.trial_id].status == "completed", "running again tries it once more"
    assert suggestions(again).keys() == suggestions(finished).keys()


def test_a_diverged_trial_is_recorded_and_never_tuned_to(tmp_path):
    text = SMALL.replace("arms: [constant, step, clr]", "arms: {constant: {lr: {choice: [0.1, 1e18, 1e19]}}}")
    plan = study(tmp_path, text, "search.trials=3", "search.cohort=0").plan()[0]
    admission = Serial(plan, tmp_path / "x").run()
    statuses = {t.configuration["lr"]: t.status for t in admission.trials.values() if t.phase != "confirm"}
    assert statuses == {0.1: "completed", 1e18: "diverged", 1e19: "diverged"}
    assert {t.configuration["lr"] for t in admission.trials.values() if t.phase == "confirm"} == {0.1}


def test_an_arm_without_a_completed_trial_is_not_confirmed(tmp_path):
    text = SMALL.replace("arms: [constant, step, clr]", "arms: {constant: {lr: 1e19}, step: {milestones: [1]}}")
    plan = study(tmp_path, text, "search.trials=2", "search.cohort=1").plan()[0]
    admission = Serial(plan, tmp_path / "x").run()
    assert admission.is_done
    assert {t.arm for t in admission.trials.values() if t.phase == "confirm"} == {"step"}


def test_stopping_hands_out_nothing_more(plan, tmp_path):
    admission = Serial(plan, tmp_path).admission
    assert admission.next() is not None
    admission.stop("limits.wall is reached")
    assert admission.next() is None
    assert not admission.is_done


def test_two_searchers_share_the_cohort(tmp_path):
    plan = study(tmp_path, SMALL, "search.method=[random, grid]", "search.trials=2", "search.cohort=2").plan()[0]
    runner = Serial(plan, tmp_path / "x")
    admission = runner.run()
    second = [t for t in admission.trials.values() if t.method == "grid"]
    assert len(second) == 6
    assert all(all(t.recalled) for t in second)
