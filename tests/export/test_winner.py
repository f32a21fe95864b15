"""Which trial is taken out of a study, and why none may be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finished_studies import finished
from lrstudy.errors import InputError
from lrstudy.export.winner import find
from report_studies import copied, edit_lock, edit_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return finished(tmp_path_factory.mktemp("winner"))


@pytest.fixture
def changed(study, tmp_path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(study.parent / "memo", tmp_path / "memo")
    return copied(study, tmp_path / "small")


def confirmed(study: Path) -> list[dict]:
    rows = pq.read_table(study / "trials.parquet").to_pylist()
    return [row for row in rows if row["phase"] == "confirm" and row["arm"] == "constant"]


def test_the_winner_is_the_confirmed_trial_that_is_best_on_validation(changed):
    for best in (1000, 1001):

        def favour(trials, best=best):
            trials.loc[trials["phase"] == "confirm", "selected_val_metric"] = 0.3
            trials.loc[(trials["phase"] == "confirm") & (trials["seed"] == best), "selected_val_metric"] = 0.4
            trials.loc[trials["phase"] != "confirm", "selected_val_metric"] = 0.9
            return trials

        edit_table(changed / "trials.parquet", favour)
        assert find(f"{changed}/constant").trial["seed"] == best


def test_a_seed_chooses_another_trial(study):
    seeds = {row["seed"] for row in confirmed(study)}
    assert {find(f"{study}/constant", seed).trial["seed"] for seed in seeds} == seeds == {1000, 1001}
    with pytest.raises(
        InputError, match=r"--seed: expected the seed of a confirmed trial of constant; got 7. Valid: 1000, 1001"
    ):
        find(f"{study}/constant", 7)


def test_the_state_is_that_of_the_selected_epoch(study):
    winner = find(f"{study}/constant/")
    assert winner.trial["selected_lineage"] == winner.trial["lineage"]  # select: final
    assert len(winner.state()) > 10_000
    assert len(winner.predictions()) == 60


def test_an_arm_without_confirmed_trial_is_refused_with_the_reason(changed):
    def without(trials):
        return trials[trials["phase"] != "confirm"]

    def failing(trials):
        trials.loc[trials["phase"] == "confirm", "status"] = "failed"
        return trials

    edit_table(changed / "trials.parquet", failing)
    with pytest.raises(InputError) as error:
        find(f"{changed}/constant")
    assert str(error.value) == (
        f"{changed}/constant: the arm 'constant' has no confirmed trial that is complete (failed). Run the study to its "
        "end first, or look at the errors in its trials.parquet."
    )
    edit_table(changed / "trials.parquet", without)
    with pytest.raises(
        InputError, match=r"the arm 'constant' has no confirmed trial. Run the study to its end with confirm.top"
    ):
        find(f"{changed}/constant")


def test_what_is_no_arm_of_a_study_is_refused_with_names(study, tmp_path):
    for place, expected in (
        (f"{study}/constnat", "there is no arm 'constnat'. Did you mean 'constant'? Valid: constant, step."),
        (str(study), f"expected one of its arms too, as in {study}/constant. Valid: constant, step."),
        ("constant", "expected the folder of a study and one of its arms, such as runs/derm/sgdr."),
        (
            f"{tmp_path}/gone/constant",
            "expected the folder of a study (with study.lock.json in it); there is none here.",
        ),
    ):
        with pytest.raises(InputError) as error:
            find(place)
        assert expected in str(error.value)


def test_a_state_that_is_gone_is_said_with_the_way_out(changed):
    for state in (changed.parent / "memo" / "states").iterdir():
        state.unlink()
    with pytest.raises(InputError, match=r"the state of its selected epoch is not in .*memo any more. .*--as NAME"):
        find(f"{changed}/constant").state()


def test_relative_paths_of_a_study_start_where_it_was_run_from(study, changed, monkeypatch, tmp_path):
    assert find(f"{study}/constant").base == study.parents[1]
    assert json.loads((study / "study.lock.json").read_text())["base"] == str(study.parents[1])
    edit_lock(changed, base=None)  # as an earlier version has left it
    monkeypatch.chdir(tmp_path)
    assert find(f"{changed}/constant").base == tmp_path
