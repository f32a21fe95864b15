"""Studies on a Ray cluster of several nodes: same numbers as on one machine, whatever comes and goes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ray_nodes import RayNodes
from serial import SMALL, Serial, study

pytestmark = pytest.mark.slow

WAIT_S = 180.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from lrstudy.cli import main; main()", *arguments]


def run(nodes: RayNodes, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=WAIT_S, check=False, env=nodes.environment()
    )


@pytest.fixture
def nodes():
    with RayNodes() as cluster:
        yield cluster


def write(folder: Path, epochs: int = 4) -> Path:
    file = folder / "study.yaml"
    file.write_text(SMALL.replace("epochs: 4", f"epochs: {epochs}") + "storage: {path: runs}\n")
    return file


def outcome(folder: Path) -> dict:
    """All that a study concludes from, by trial; times and costs aside."""
    trials = pq.read_table(folder / "trials.parquet").to_pylist()
    return {t["trial_id"]: (t["configuration"], t["status"], t["test_metric"], t["lineage"]) for t in trials}


def undisturbed(folder: Path, epochs: int) -> dict:
    """The same study in one process, without Ray."""
    here = folder / "here"
    here.mkdir()
    plan = study(here, SMALL, f"budget.epochs={epochs}").plan()[0]
    trials = Serial(plan, here / "serial").run().trials.values()
    return {
        t.trial_id: (
            json.dumps(t.configuration, sort_keys=True), t.status, (t.test or {}).get("accuracy"), t.records[-1].lineage
        )
        for t in trials
    }  # fmt: skip


def ledger(folder: Path) -> list[dict]:
    return pq.read_table(folder / "ledger.parquet").to_pylist()


def journal(folder: Path, kind: str) -> list[dict]:
    lines = []
    for path in sorted((folder / "journal").glob("*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [line for line in lines if line["kind"] == kind]


def total(rows: list[dict], *categories: str) -> float:
    return sum(row["duration_s"] for row in rows if not categories or row["category"] in categories)


def test_a_study_on_two_nodes_with_clocks_of_their_own_gives_the_numbers_of_one_machine(nodes, tmp_path):
    nodes.add(within=["unshare", "--time", "--monotonic", "100000", "--fork"] if can_shift_clocks() else [])
    file = write(tmp_path)
    done = run(nodes, "run", str(file), "--address", nodes.address, "--json")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "small"
    assert outcome(folder) == undisturbed(tmp_path, 4)
    rows = ledger(folder)
    assert {row["device"] for row in rows if row["category"] == "train"} == {"cpu:0", "cpu:1"}
    (end,) = journal(folder, "end")
    begin = min(line["start"] for line in journal(folder, "slots"))
    assert total(rows) == pytest.approx(2 * (end["at"] - begin))
    assert total(rows, "unaccounted") <= 0.01 * total(rows)
    clocks = {line["clock"] for line in journal(folder, "spans") if "clock" in line}
    assert len(clocks) == int(can_shift_clocks())


def test_a_study_that_loses_a_node_and_gains_another_ends_with_the_same_numbers(nodes, tmp_path):
    lost = nodes.add()
    file = write(tmp_path, epochs=30)
    driver = subprocess.Popen(
        command("run", str(file), "--address", nodes.address, "--json"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=nodes.environment(),
    )  # fmt: skip
    folder = tmp_path / "runs" / "small"
    try:
        wait_for(lambda: len({line["slot"] for line in journal(folder, "spans")}) == 2, driver)
        nodes.kill(lost)
        nodes.add()
        said, errors = driver.communicate(timeout=WAIT_S)
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == 0, errors
    assert json.loads(said)["trials"] == {"completed": 18}
    assert outcome(folder) == undisturbed(tmp_path, 30)
    assert total(ledger(folder), "lost") > 0
    assert [line["slots"] for line in journal(folder, "left")] == [[1]]
    assert [line["first"] for line in journal(folder, "slots")] == [0, 1, 2]
    assert total(ledger(folder), "unaccounted") <= 0.02 * total(ledger(folder))


def test_a_lost_head_is_said_in_one_paragraph_and_the_same_command_goes_on_elsewhere(nodes, tmp_path):
    file = write(tmp_path, epochs=30)
    driver = subprocess.Popen(
        command("run", str(file), "--address", nodes.address, "--json"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=nodes.environment(),
    )  # fmt: skip
    folder = tmp_path / "runs" / "small"
    try:
        wait_for(lambda: journal(folder, "trial"), driver)
        nodes.kill(nodes.head, "gcs_server")
        _, errors = driver.communicate(timeout=WAIT_S)
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith("lrstudy: "), errors
    assert "Everything trained so far is recorded" in last
    done = subprocess.run(command("run", str(file), "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs_recalled"] > 0
    assert outcome(folder) == undisturbed(tmp_path, 30)


def test_trials_stay_on_one_kind_of_device(nodes, tmp_path):
    """The odd node is the larger one, until an earlier run of the study has trained on the other kind."""
    file = write(tmp_path)
    done = run(nodes, "run", str(file), "--address", nodes.address, "--json", "limits.gpu_hours=0.0001")
    assert done.returncode == 0, done.stderr
    nodes.add(num_cpus=2, ATEN_CPU_CAPABILITY="default")
    fresh = run(nodes, "run", str(file), "--address", nodes.address, "--json", "--as", "fresh")
    again = run(nodes, "run", str(file), "--address", nodes.address, "--json")
    assert (fresh.returncode, again.returncode) == (0, 0), fresh.stderr + again.stderr
    for name, num_slots in (("fresh", 2), ("small", 1)):
        folder = tmp_path / "runs" / name
        last = max(row["run"] for row in ledger(folder))
        assert len({row["device"] for row in ledger(folder) if row["run"] == last}) == num_slots
    assert json.loads(again.stdout)["trials"] == {"completed": 18}


def test_what_a_cluster_cannot_give_is_said_before_anything_is_spent(nodes, tmp_path):
    file = write(tmp_path)
    for arguments, words in {
        ("resources.gpu=0.5",): [
            "resources.gpu: expected GPUs in the Ray cluster at",
            "got 1 node without any",
            "doctor",
        ],
        ("resources.cpu=3",): ["resources: expected a node with room for one trial (cpu: 3)", "1 CPU, 0 GPU"],
        ("resources.gpu=1", "resources.accelerator=A100"): ["resources.gpu: expected GPUs"],
    }.items():
        done = run(nodes, "run", str(file), *arguments, "--address", nodes.address)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert all(word in line for word in words), line
    assert not (tmp_path / "runs" / "small").exists()


def test_a_cluster_that_cannot_be_reached_is_said(nodes, tmp_path):
    done = run(nodes, "run", str(write(tmp_path)), "--address", "127.0.0.1:1")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "--address: no Ray cluster could be joined at 127.0.0.1:1" in line


def can_shift_clocks() -> bool:
    tried = subprocess.run(
        ["unshare", "--time", "--monotonic", "1", "--fork", "true"], capture_output=True, check=False
    )
    return tried.returncode == 0


def wait_for(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None, f"ended early: {process.communicate()}"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
