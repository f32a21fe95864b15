"""A study file with a map of workloads, run by the command: one study each, killed in the third and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.long

STUDY = """
lrstudy: 1
name: parts
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}, model: small_cnn}
workloads:
  first:
  second: {split: {seed: 1}}
  third: {split: {seed: 2}, subset: 140}
budget: {epochs: 3}
common: {lr: 0.05, batch_size: 20}
arms: {constant: , step: {milestones: [2]}}
search: {method: grid, trials: 1}
confirm: {seeds: 3}
storage: {path: runs}
"""
NAMES = ("first", "second", "third")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from lrstudy.cli import main; main()", *arguments]


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder above the workloads of a study whose driver was killed while the third trained."""
    base = tmp_path_factory.mktemp("workloads")
    (base / "study.yaml").write_text(STUDY)
    below = base / "runs" / "parts"
    driver = subprocess.Popen(
        command("run", str(base / "study.yaml")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    children: list[psutil.Process] = []
    try:
        end = time.monotonic() + 200
        while '"kind": "spans"' not in _journal(below / "third"):
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < end, "the third workload was not begun"
            time.sleep(0.05)
        children = psutil.Process(driver.pid).children(recursive=True)
    finally:
        if driver.poll() is None:
            driver.send_signal(signal.SIGKILL)
        driver.communicate()
        psutil.wait_procs(children, timeout=30)
        for child in children:
            if child.is_running():
                child.kill()
    return below


def _journal(study: Path) -> str:
    return "".join(path.read_text() for path in sorted((study / "journal").glob("*.jsonl")))


@pytest.fixture(scope="module")
def finished(folder) -> tuple[Path, dict]:
    """The same study run again, and what the command said."""
    before = called("status", str(folder), "--json")
    assert json.loads(before.stdout)["complete"] is False
    done = called("run", str(folder.parents[1] / "study.yaml"), "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_study_that_was_killed_in_its_third_workload_goes_on_there(finished):
    _, told = finished
    assert told["complete"] is True
    assert list(told["workloads"]) == list(NAMES)
    assert [told["workloads"][name]["epochs_trained"] for name in NAMES[:2]] == [0, 0]
    assert told["workloads"]["third"]["epochs_trained"] > 0
    assert Path(told["report"]).is_file()


def test_each_workload_is_a_whole_study_and_the_folder_above_has_them_all(finished):
    folder, _ = finished
    trials = pq.read_table(folder / "trials.parquet").to_pylist()
    for name in NAMES:
        lock = json.loads((folder / name / "study.lock.json").read_text())
        assert (lock["name"], lock["complete"]) == (f"parts/{name}", True)
        alone = pq.read_table(folder / name / "trials.parquet").to_pylist()
        assert {trial["workload"] for trial in alone} == {name}
        assert [t["trial_id"] for t in trials if t["workload"] == name] == [t["trial_id"] for t in alone]
    step = next(row for row in pq.read_table(folder / "pooled.parquet").to_pylist() if row["arm"] == "step")
    assert (step["workloads"], step["wins"] + step["ties"] + step["losses"]) == (3, 3)


def test_one_ray_served_all_workloads_and_no_second_of_it_is_missing(finished):
    """The slots of each workload are allocated from the moment that those of the one before are given back."""
    folder, _ = finished
    for name in NAMES[1:2]:
        before = [json.loads(line) for line in _journal(folder / "first").splitlines()]
        after = [json.loads(line) for line in _journal(folder / name).splitlines()]
        ended = next(line["at"] for line in before if line["kind"] == "end")
        begun = next(line["start"] for line in after if line["kind"] == "slots")
        assert ended <= begun < ended + 60


def test_the_third_run_trains_nothing_and_other_commands_know_the_map(finished, tmp_path):
    folder, _ = finished
    file = str(folder.parents[1] / "study.yaml")
    again = called("run", file, "--json")
    assert again.returncode == 0, again.stderr
    assert {one["epochs_trained"] for one in json.loads(again.stdout)["workloads"].values()} == {0}
    valid = json.loads(called("validate", file, "--json").stdout)
    assert list(valid["workloads"]) == list(NAMES)
    plan = called("plan", file)
    assert "3 workloads of parts: 24 trials" in plan.stdout
    assert called("report", str(folder)).stdout.strip() == str(folder / "report" / "index.html")
    assert called("status", str(folder)).stdout.count("parts/") == 3


def test_limits_hold_for_all_workloads_together(finished, tmp_path):
    """With what the earlier runs took the limit is reached: a fourth workload trains nothing."""
    folder, _ = finished
    file = str(folder.parents[1] / "study.yaml")
    more = called("run", file, "workloads.first.subset=120", "limits.wall=1s", "confirm.seeds=4", "--json")
    assert more.returncode == 0, more.stderr
    told = json.loads(more.stdout)["workloads"]
    assert {one["epochs_trained"] for one in told.values()} == {0}
    assert all("limits.wall (1s) is reached" in one["stopped"] for one in told.values())
    assert os.path.isdir(folder)


def test_a_fault_in_the_last_workload_shows_before_the_first_is_trained(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    done = called("run", str(tmp_path / "study.yaml"), "workloads.third.subset=9")
    assert done.returncode == 2
    assert "workloads.third" in done.stderr
    assert not (tmp_path / "runs" / "parts" / "first" / "journal").exists()
