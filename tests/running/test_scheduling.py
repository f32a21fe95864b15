"""Who trains next, on simulated slots: nothing deadlocks, nothing is trained twice, and states that others need come first."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.many_slots import counted
from benchmarks.simulation import Outcome, simulate

from lrstudy.memo.memo import Memo
from lrstudy.running.admission import Admission
from lrstudy.settings import Settings
from lrstudy.study_folder.journal import Journal
from study_files import SMALL, plan_of

ARMS = """
lrstudy: 1
name: small
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}}
budget: {epochs: 8}
common: {lr: {choice: [0.02, 0.1]}, batch_size: 20}
arms:
  constant:
  step: {milestones: {choice: [[4, 6], [2], [6], [4]]}, gamma: {choice: [0.1, 0.5]}}
  batch_increase: {milestones: {choice: [[4, 6], [2], [6], [4]]}, factor: 2, cap: null}
  sgdr: {t0: {choice: [2, 4]}, t_mult: {choice: [1, 2]}, min_ratio: 0}
  plateau: {patience: {choice: [0, 1]}, factor: 0.5}
search: {method: grid, trials: 16, cohort: 0}
confirm: {top: 1, seeds: 2}
"""


def seconds(settings: Settings) -> float:
    return 1.0 + settings.num_updates / 10


def simulated(
    tmp_path: Path, slots: int, deaths: float = 0.0, seed: int = 0, text: str = ARMS, *overrides: str
) -> Outcome:
    return simulate(plan_of(*overrides, text=text, slots=slots), tmp_path, slots, seconds, deaths, seed)


@pytest.mark.parametrize("slots", [1, 2, 8, 64])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("deaths", [0.0, 0.05])
def test_no_state_is_trained_twice_and_nothing_deadlocks_also_when_workers_die(tmp_path, slots, seed, deaths):
    """`simulate` fails on a deadlock. Reactive trials train on unclaimed once triggered, so they are left out of the count."""
    found = simulated(
        tmp_path, slots, deaths, seed, ARMS.replace("  plateau: {patience: {choice: [0, 1]}, factor: 0.5}\n", "")
    )
    assert len(found.trained) == found.distinct < found.asked
    assert found.lost > 0 or not deaths


@pytest.mark.parametrize("slots", [2, 8])
def test_reactive_trials_end_too_and_share_until_they_are_triggered(tmp_path, slots):
    found = simulated(tmp_path, slots, 0.02)
    assert found.distinct <= len(found.trained) < found.asked


def test_every_searcher_ends_on_any_number_of_slots(tmp_path):
    for slots in (1, 16):
        for method in ("random", "hyperopt", "optuna"):
            place = tmp_path / f"{slots}{method}"
            found = simulated(place, slots, 0.02, 1, SMALL, f"search.method={method}")
            assert len(found.trained) == found.distinct


@pytest.mark.parametrize("outstanding", [1, 2, 5, 9, 16])
def test_what_a_model_suggests_depends_on_neither_slots_nor_deaths(tmp_path, outstanding):
    overrides = ["search={method: optuna, trials: 9, cohort: 3}", f"search.outstanding={outstanding}"]

    def suggested(slots: int, deaths: float) -> dict[tuple[str, int], object]:
        place = tmp_path / f"{slots}-{deaths}"
        simulated(place, slots, deaths, slots, SMALL, *overrides)
        lines = Journal(place / "journal").of_kind("suggest")
        return {(line["arm"], line["index"]): (line["configuration"], line["proposed_by"]) for line in lines}

    expected = suggested(1, 0.0)
    assert len(expected) >= 3 * 7
    for slots in (2, 5, 16):
        for deaths in (0.0, 0.1):
            assert suggested(slots, deaths) == expected


def test_what_others_wait_for_is_trained_first(tmp_path):
    """Two rates, the last arm with both constants' chains: one slot begins with the chain that most trials need."""
    text = ARMS.replace("  constant:\n", "").replace("confirm: {top: 1, seeds: 2}", "confirm: {top: 0}")
    text = text.replace("  plateau: {patience: {choice: [0, 1]}, factor: 0.5}\n", "") + "compare: {control: step}\n"
    plan = plan_of(text=text)
    found = simulate(plan, tmp_path, 1, seconds)
    wanted = [
        name
        for arm in plan.arms.values()
        for point in arm.space.grid()
        for name in plan.spec("", arm, point, 0, False, {}).chain()
    ]
    assert wanted.count(found.trained[0]) == max(wanted.count(name) for name in set(wanted))


def test_many_slots_are_kept_busy(tmp_path):
    """Wall time against what no schedule could beat: the longest chain, or the work divided by the slots."""
    assert simulated(tmp_path / "2", 2).over_bound < 1.1
    assert simulated(tmp_path / "8", 8).over_bound < 1.7


def test_a_large_batch_of_trials_is_looked_up_in_one_list_of_the_records(tmp_path):
    """At the start on 1,000 slots 8,000 trials wait; two requests for each, one after the other, take minutes on a bucket."""
    overrides = ("common.lr={log: [1e-3, 1.0], steps: 400}", "search.trials=120", "search.outstanding=30")
    plan = plan_of(*overrides, slots=2)
    journal = Journal(tmp_path / "journal")
    journal.open_run()
    with counted() as requests:
        admission = Admission(plan, Memo(tmp_path / "memo"), journal)
        trial = admission.next()
    assert trial is not None
    assert len(admission.trials) > 300
    assert sum(requests.values()) < 10
