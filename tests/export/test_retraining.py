"""An arm's winning configuration as a study of its own, on other data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finished_studies import TINY, finished
from lrstudy.errors import InputError
from lrstudy.export.retraining import write_study
from lrstudy.export.winner import find
from lrstudy.study import Study
from report_studies import edit_lock

pytestmark = pytest.mark.slow

OWN = """
def knee(p: float, E: float, *, lr: float, hold: float = 0.5) -> float:
    return lr if p < hold * E else lr / 10
"""
STUDY = TINY.replace(
    "[constant, step]",
    "{clr: {mode: {choice: [triangular, exp_range]}, gamma: {log: [0.9, 0.99], when: {mode: exp_range}}, step_size: 1},"
    " mine: {policy: './mine.py:knee', hold: {choice: [0.5, 0.7]}},"
    " sgdr_dlr: {stages: two}, staged: {stages: [{train: head, epochs: 1, policy: './mine.py:knee', lr: 0.2},"
    " {train: all, policy: clr, step_size: 1, mode: {choice: [triangular, exp_range]},"
    " gamma: {log: [0.9, 0.99], when: {mode: exp_range}}}]}}",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return finished(tmp_path_factory.mktemp("retraining"), STUDY, files={"mine.py": OWN})


def confirm_trials(path: Path) -> dict[int, list[str]]:
    """The names of the states of the confirm trials that a study file asks for, by seed."""
    plan, _ = Study.from_yaml(path).plan()
    (arm,) = plan.arms.values()
    (configuration,) = plan.cohort[arm.name]
    return {
        seed: plan.spec("", arm, configuration, seed, True, {}).chain()
        for seed in range(1000, 1000 + plan.study.confirm.looks[-1])
    }


@pytest.mark.parametrize("arm", ["clr", "mine", "sgdr_dlr", "staged"])
def test_on_the_same_data_it_is_the_very_training_that_was_confirmed(study, arm):
    rows = pq.read_table(study / "trials.parquet").to_pylist()
    lineages = {row["seed"]: row["lineage"] for row in rows if row["phase"] == "confirm" and row["arm"] == arm}
    path = write_study(find(f"{study}/{arm}"), ["data=digits"])
    assert path == study.parents[1] / f"small-{arm}-digits.yaml"
    assert {seed: chain[-1] for seed, chain in confirm_trials(path).items()} == lineages


def test_there_is_one_training_for_each_seed(study):
    path = write_study(find(f"{study}/clr"), ["data=digits", "confirm.seeds=3"], "three")
    plan, _ = Study.from_yaml(path).plan()
    assert plan.study.name == "three"
    assert plan.study.search.seeds == [1000]
    assert len(confirm_trials(path)) == 3


def test_new_data_and_keys_of_the_workload_are_named_alone(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_study(
        find(f"{study}/clr"), ["data=folder:new/week48", "split.test=0.25", "augment=flip", "budget.epochs=4"]
    )
    assert path.name == "small-clr-week48.yaml"
    written = Study.from_yaml(path).file
    assert written.workload.source.source == f"folder:{tmp_path}/new/week48", "relative to where the command was given"
    assert (written.workload.split.test, written.workload.split.validation) == (0.25, 40)
    assert (written.workload.augment, written.budget.epochs) == ("flip", 4)
    assert written.storage.path == str(study.parent)


def test_columns_of_a_table_stay(study, tmp_path):
    winner = find(f"{study}/clr")
    text = (study / "study.yaml").read_text()
    try:
        (study / "study.yaml").write_text(text.replace("data: digits", "data: {source: 'csv:a.csv', label: kind}"))
        written = Study.from_yaml(write_study(winner, ["data=csv:b.csv"], "columns")).file.workload
    finally:
        (study / "study.yaml").write_text(text)
    assert written.source.label == "kind"
    assert written.source.source.endswith("/b.csv")


def test_a_policy_of_ones_own_is_the_one_that_won(study):
    """The copy that the study keeps, not what the file has become since."""
    digest = find(f"{study}/mine").lock["arms"]["mine"]["definition"]["source"]
    kept = study / "source" / digest
    kept.mkdir(parents=True)
    (kept / "mine.py").write_text(OWN)
    (study.parents[1] / "mine.py").write_text(OWN.replace("lr / 10", "lr / 2"))
    try:
        path = write_study(find(f"{study}/mine"), ["data=digits"], "kept")
        chains = confirm_trials(path)
    finally:
        (study.parents[1] / "mine.py").write_text(OWN)
    rows = pq.read_table(study / "trials.parquet").to_pylist()
    lineages = {row["seed"]: row["lineage"] for row in rows if row["phase"] == "confirm" and row["arm"] == "mine"}
    assert {seed: chain[-1] for seed, chain in chains.items()} == lineages


def test_what_cannot_be_written_is_said(study, tmp_path):
    winner = find(f"{study}/clr")
    for overrides, expected in (
        ([], "train: expected data=NEW, the data to train on, such as data=folder:data/week48"),
        (["week48"], "train: expected key=VALUE, such as data=folder:data/week48; got 'week48'"),
    ):
        with pytest.raises(InputError) as error:
            write_study(winner, overrides)
        assert str(error.value).startswith(expected)
    write_study(winner, ["data=digits"], "taken")
    write_study(winner, ["data=digits"], "taken")
    with pytest.raises(InputError, match=r"taken.yaml: exists with other content. Choose another name with --as NAME."):
        write_study(winner, ["data=digits", "confirm.seeds=9"], "taken")


def test_the_command_trains_and_says_how_to_export(tmp_path):
    study = finished(tmp_path, TINY)
    edit_lock(study, overrides=[])
    command = [sys.executable, "-P", "-c", "from lrstudy.cli import main; main()", "train", f"{study}/constant"]
    done = subprocess.run(
        [*command, "data=digits", "subset=150", "confirm.seeds=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"Wrote {tmp_path}/small-constant-digits.yaml." in done.stdout
    assert "4 epochs asked, 2 distinct; 2 trained now" in done.stdout
    assert f"\n  lrstudy export {tmp_path}/runs/small-constant-digits/constant\n" in done.stdout
