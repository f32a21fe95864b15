"""What a study began and read is not taken back, and changes of its plan leave a trace: also after an earlier version."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrstudy.running import history
from lrstudy.study_folder.journal import Journal
from study_files import plan_of

CHOSEN = {"constant": [{"lr": 0.1}], "step": [{"lr": 0.1}], "clr": [{"lr": 0.1}]}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A run of an earlier version: four suggestions of an arm, a freeze that notes configurations only, five seeds read."""
    journal = Journal(tmp_path / "journal")
    journal.open_run()
    for index in range(4):
        journal.write("suggest", arm="step", method="random", index=index, configuration={})
    journal.write("frozen", arms=CHOSEN, deviates=False)
    for seed in range(1000, 1005):
        journal.write(
            "trial", trial_id=f"step-confirm-1-{seed}", status="completed", lineage="", test={"accuracy": 0.9}
        )
    journal.write("trial", trial_id="clr-confirm-1-1007", status="diverged", lineage="", test=None)
    return journal


def test_what_was_begun_stays_and_is_said(journal: Journal) -> None:
    plan, notes = history.with_what_was_begun(plan_of("search.trials=2", "confirm.seeds=[2, 3]"), journal)
    assert plan.study.search.trials == 4
    assert plan.study.confirm.looks == (2, 5)
    assert notes == (
        "search.trials stays 4, whatever the file says now (2): so many have been suggested.",
        "confirm.seeds stays 5, whatever the file says now (3): the test part has been read for so many.",
    )


@pytest.mark.parametrize("overrides", [("search.trials=4", "confirm.seeds=5"), ("search.trials=9", "confirm.seeds=8")])
def test_as_many_or_more_are_taken_as_they_are(journal: Journal, overrides: tuple[str, ...]) -> None:
    plan, notes = history.with_what_was_begun(plan_of(*overrides), journal)
    assert plan.study == plan_of(*overrides).study
    assert notes == ()


def test_a_freeze_of_an_earlier_version_counts_as_the_same_plan(journal: Journal) -> None:
    assert not history.note_freeze(journal, history.planned(plan_of("confirm.seeds=5"), [CHOSEN]))
    assert history.deviations(journal) == []


def test_more_seeds_than_an_earlier_version_read_are_a_deviation(journal: Journal) -> None:
    now = history.planned(plan_of("confirm.seeds=10"), [CHOSEN])
    assert history.note_freeze(journal, now)
    assert not history.note_freeze(journal, now), "a freeze is noted once"
    told = "run 1: confirm.seeds went from 5 to 10, after 5 confirm trials had read the test part"
    assert history.deviations(journal) == [told]


def test_other_configurations_are_named_by_their_arm(journal: Journal) -> None:
    history.note_freeze(journal, history.planned(plan_of("confirm.seeds=5"), [CHOSEN | {"clr": [{"lr": 0.2}]}]))
    assert history.deviations(journal)[0].startswith("run 1: configurations of clr were chosen anew, after 5")


def test_more_searches_are_a_deviation_and_what_they_chose_stands_beside_the_first(journal: Journal) -> None:
    plan = plan_of("confirm.seeds=5", "search.repeats=2")
    assert history.frozen(journal) == [CHOSEN]
    assert history.note_freeze(journal, history.planned(plan, [CHOSEN, CHOSEN]))
    told = "run 1: search.repeats went from 1 to 2, after 5 confirm trials had read the test part"
    assert history.deviations(journal) == [told]
    assert history.frozen(journal) == [CHOSEN, CHOSEN]
    assert not history.note_freeze(journal, history.planned(plan, [CHOSEN, CHOSEN]))
    assert history.note_freeze(journal, history.planned(plan, [CHOSEN, CHOSEN | {"clr": [{"lr": 0.2}]}]))
    assert history.deviations(journal)[1].startswith("run 1: configurations of clr were chosen anew, after 5")


def test_a_deviation_that_an_earlier_version_noted_stays_one(journal: Journal) -> None:
    journal.write("frozen", arms=CHOSEN, deviates=True)
    assert history.deviations(journal)[0].startswith(
        "run 1: configurations were chosen anew, after some confirm trials"
    )
