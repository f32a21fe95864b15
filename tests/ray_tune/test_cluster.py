"""Studies on a Ray cluster of several nodes: same numbers as on one machine, whatever comes and goes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ray_nodes import RayNodes
from serial import SMALL, Serial, study

pytestmark = pytest.mark.slow

WAIT_S = 180.0
MINE = """
from pathlib import Path

import torch


def build(num_classes, channels, size):
    scale = float(Path(__file__).with_name("scale.txt").read_text())
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * size * size, num_classes))
    with torch.no_grad():
        model[1].weight.mul_(scale)
    return model


def knee(p: float, E: float, *, lr: float) -> float:
    return lr / 2 if p > E / 2 else lr
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from lrstudy.cli import main; main()", *arguments]


def run(nodes: RayNodes, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=WAIT_S, check=False, env=nodes.environment
    )


@pytest.fixture
def nodes():
    cluster = RayNodes()
    try:
        cluster.start_head(has_dashboard=False)
        yield cluster
    finally:
        cluster.close()


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
    nodes.add(
        3,
        within=["unshare", "--time", "--monotonic", "100000", "--fork", "--kill-child=TERM"]
        if can_shift_clocks()
        else [],
    )
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


@pytest.mark.parametrize("how", ["killed", pytest.param("drained", marks=pytest.mark.long)])
def test_a_study_that_loses_a_node_and_gains_another_ends_with_the_same_numbers(nodes, tmp_path, how):
    lost = nodes.add(3)
    epochs = 60 if how == "killed" else 200  # the study must not end before the loss is noticed
    file = write(tmp_path, epochs)
    folder = tmp_path / "runs" / "small"
    with driving(nodes, file) as driver:
        wait_for(lambda: len({line["slot"] for line in journal(folder, "spans")}) == 2, driver)
        if how == "killed":
            nodes.kill(lost, "raylet")
        else:
            nodes.stop(lost, left=1)
        nodes.add(4)
        said, errors = driver.communicate(timeout=WAIT_S)
    assert driver.returncode == 0, errors
    assert json.loads(said)["trials"] == {"completed": 18}
    assert outcome(folder) == undisturbed(tmp_path, epochs)
    assert total(ledger(folder), "lost") > 0
    assert [line["slots"] for line in journal(folder, "left")] in ([[0]], [[1]])  # Ray gives nodes their names
    assert [line["first"] for line in journal(folder, "slots")] == [0, 1, 2]
    assert total(ledger(folder), "unaccounted") <= 0.02 * total(ledger(folder))


def test_trials_wait_for_a_cluster_to_grow_and_share_what_there_is(nodes, tmp_path):
    """More trials than slots wait for a place, which an autoscaler would see. The workers that are there serve them all."""
    file, folder = write(tmp_path, epochs=20), tmp_path / "runs" / "small"
    with driving(nodes, file, "--slots", "5") as driver:
        wait_for(lambda: journal(folder, "trial"), driver)
        nodes.add(3)
        said, errors = driver.communicate(timeout=WAIT_S)
    assert driver.returncode == 0, errors
    assert json.loads(said)["trials"] == {"completed": 18}
    assert len({line["worker"] for line in journal(folder, "spans")}) <= 2


@pytest.mark.long
def test_code_and_files_of_the_users_reach_a_node_that_does_not_have_them(nodes, tmp_path):
    """The second node sees an empty folder where the study file lies."""
    folder = tmp_path / "study"
    folder.mkdir()
    hidden = f'mount -t tmpfs none {folder} && exec "$@"'
    within = ["unshare", "--mount", "sh", "-c", hidden, "sh"]
    if subprocess.run([*within, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces need root")
    nodes.add(3, within=within, variables={"LRSTUDY_CACHE": str(tmp_path / "cache")})
    (folder / "scale.txt").write_text("2.0")
    (folder / "mine.py").write_text(MINE)
    text = SMALL.replace("model: small_cnn", "model: ./mine.py:build, files: [scale.txt]")
    (folder / "study.yaml").write_text(
        text.replace("arms: [constant, step, clr]", "arms: {constant: , mine: {policy: ./mine.py:knee}}")
    )
    done = run(
        nodes,
        "run",
        str(folder / "study.yaml"),
        f"storage.path={tmp_path / 'runs'}",
        "--address",
        nodes.address,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["trials"]) == {"completed"}
    rows = ledger(tmp_path / "runs" / "small")
    assert {row["device"] for row in rows if row["category"] == "train"} == {"cpu:0", "cpu:1"}
    assert {path.name for path in (tmp_path / "cache" / "files").rglob("*.*")} == {"mine.py", "scale.txt"}


@pytest.mark.long
def test_a_study_goes_on_when_the_link_to_a_node_is_cut(tmp_path):
    """The node lives on, trains what it was given, and nobody hears of it."""
    with other_host() as (here, there, within, link):
        cluster = RayNodes(host=here)
        try:
            cluster.start_head(has_dashboard=False)
            cluster.add(there, within=within)
            file, folder = write(tmp_path, epochs=30), tmp_path / "runs" / "small"
            with driving(cluster, file) as driver:
                wait_for(lambda: len({line["slot"] for line in journal(folder, "spans")}) == 2, driver)
                subprocess.run(["ip", "link", "set", link, "down"], check=True)
                said, errors = driver.communicate(timeout=WAIT_S)
            assert driver.returncode == 0, errors
            assert json.loads(said)["trials"] == {"completed": 18}
            assert outcome(folder) == undisturbed(tmp_path, 30)
            assert len(journal(folder, "left")) == 1
            assert total(ledger(folder), "lost") > 0
        finally:
            cluster.close()


@pytest.mark.long
def test_a_lost_head_is_said_in_one_paragraph_and_the_same_command_goes_on_elsewhere(nodes, tmp_path):
    file = write(tmp_path, epochs=30)
    folder = tmp_path / "runs" / "small"
    with driving(nodes, file) as driver:
        wait_for(lambda: journal(folder, "trial"), driver)
        nodes.kill(nodes.head, "gcs_server")
        _, errors = driver.communicate(timeout=WAIT_S)
    assert driver.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith("lrstudy: "), errors
    assert "Everything trained so far is recorded" in last
    done = subprocess.run(command("run", str(file), "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs_recalled"] > 0
    assert outcome(folder) == undisturbed(tmp_path, 30)


@pytest.mark.long
def test_trials_stay_on_one_kind_of_device(nodes, tmp_path):
    """The odd node is the larger one, until an earlier run of the study has trained on the other kind."""
    file = write(tmp_path)
    done = run(nodes, "run", str(file), "--address", nodes.address, "--json", "limits.gpu_hours=0.0001")
    assert done.returncode == 0, done.stderr
    nodes.add(3, "--num-cpus=2", variables={"ATEN_CPU_CAPABILITY": "default"})
    fresh = run(nodes, "run", str(file), "--address", nodes.address, "--json", "--as", "fresh")
    again = run(nodes, "run", str(file), "--address", nodes.address, "--json")
    assert (fresh.returncode, again.returncode) == (0, 0), fresh.stderr + again.stderr
    for name, num_slots in (("fresh", 2), ("small", 1)):
        folder = tmp_path / "runs" / name
        last = max(row["run"] for row in ledger(folder))
        assert len({row["device"] for row in ledger(folder) if row["run"] == last}) == num_slots
    assert json.loads(again.stdout)["trials"] == {"completed": 18}


@pytest.mark.long
def test_a_study_is_planned_for_the_cluster_that_will_run_it(nodes, tmp_path):
    """On a login node without a GPU every plan of a study with GPUs failed; and one of CPUs took this machine's cores."""
    nodes.add(3)
    nodes.add(4)
    file = write(tmp_path)
    done = run(nodes, "plan", str(file), "--address", nodes.address, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cost"]["slots"] == 3
    assert run(nodes, "validate", str(file), "--address", nodes.address).returncode == 0
    refused = run(nodes, "plan", str(file), "--probe", "--address", nodes.address)
    assert (refused.returncode, refused.stderr.strip()) == (
        2, "lrstudy: --probe: it times updates on this machine, so it goes without --address.",
    )  # fmt: skip
    assert run(nodes, "plan", str(file), "resources.gpu=1", "--address", nodes.address).returncode == 2


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


@contextmanager
def driving(nodes: RayNodes, file: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a study in the background; whatever happens, its driver has ended afterwards."""
    driver = subprocess.Popen(
        command("run", str(file), "--address", nodes.address, "--json", *options),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=nodes.environment,
    )  # fmt: skip
    try:
        yield driver
    finally:
        driver.kill()
        driver.communicate()


@contextmanager
def other_host() -> Iterator[tuple[str, str, list[str], str]]:
    """A network of its own at the end of a cable: both addresses, the command that enters it, and the cable's name here."""
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo up; exec sleep 600"], stdout=subprocess.PIPE)
    try:
        if holder.stdout is None or holder.stdout.readline() != b"up\n":
            pytest.skip("network namespaces need root")
        link, here, there = f"lrs{holder.pid}", "10.77.9.1", "10.77.9.2"
        within = ["nsenter", "--target", str(holder.pid), "--net"]
        for step in (
            ["ip", "link", "add", link, "type", "veth", "peer", "name", "far", "netns", str(holder.pid)],
            ["ip", "address", "add", f"{here}/30", "dev", link],
            ["ip", "link", "set", link, "up"],
            [*within, "ip", "address", "add", f"{there}/30", "dev", "far"],
            [*within, "ip", "link", "set", "far", "up"],
            [*within, "ip", "link", "set", "lo", "up"],
        ):
            subprocess.run(step, check=True)
        yield here, there, within, link
    finally:
        subprocess.run(["ip", "link", "delete", f"lrs{holder.pid}"], check=False, capture_output=True)
        holder.kill()
        holder.wait()


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
