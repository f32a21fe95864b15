"""Whole studies in a bucket, on a real server: the same tables as in a folder, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from lrstudy import cli
from lrstudy.memo.memo import Memo
from lrstudy.planning import study_lock
from lrstudy.storage.bucket import Bucket
from lrstudy.study import Study
from s3_server import environment, proxy, server_or_skip
from serial import SMALL, Serial, study

pytestmark = pytest.mark.slow


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from lrstudy.cli import main; main()", *arguments]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=280, check=False, env={**os.environ, **variables}
    )


def write(folder: Path, storage: str, text: str = SMALL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "study.yaml"
    file.write_text(f"{text}storage: {{path: {storage}}}\n")
    return file


def outcome(folder: Path) -> dict:
    """All that a study concludes from, by trial and epoch; times and costs aside."""
    losses: dict[str, list] = {}
    for epoch in pq.read_table(folder / "epochs.parquet").to_pylist():
        losses.setdefault(epoch["trial_id"], []).append((epoch["lineage"], epoch["train_loss"], epoch["val_loss"]))
    return {
        t["trial_id"]: (t["configuration"], t["status"], t["test_metric"], losses.get(t["trial_id"]))
        for t in pq.read_table(folder / "trials.parquet").to_pylist()
    }


def kill_all(process: subprocess.Popen) -> None:
    """As when a driver's machine is lost."""
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.communicate()


@pytest.mark.long
def test_a_study_that_is_killed_goes_on_from_another_node_to_the_tables_that_a_folder_gives(s3, tmp_path, monkeypatch):
    storage = f"{s3}/runs"
    file = write(tmp_path, storage)
    with subprocess.Popen(
        command("run", str(file)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "LRSTUDY_CACHE": str(tmp_path / "node-1")}, start_new_session=True,
    ) as driver:  # fmt: skip
        try:
            memo = Memo(f"{storage}/memo")
            while len(memo._objects.listing("records")) < 5:
                assert driver.poll() is None, driver.communicate()
        finally:
            kill_all(driver)
    # A node that has never seen this study; the killed driver's process is gone, so nobody waits for it.
    done = run("run", str(file), "--json", LRSTUDY_CACHE=str(tmp_path / "node-2"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["complete"]
    assert said["epochs_recalled"] >= 5
    assert said["report"] == f"{storage}/small/report/index.html"
    assert not (tmp_path / "node-2").is_relative_to(Path.home())

    (tmp_path / "folder").mkdir()
    plan = study(tmp_path / "folder").plan()[0]
    admission = Serial(plan, tmp_path / "folder" / "serial").run()
    in_folder = {
        t.trial_id: (
            json.dumps(t.configuration, sort_keys=True), t.status, (t.test or {}).get("accuracy"),
            [(r.lineage, r.metrics["train_loss"], r.metrics["val_loss"]) for r in t.records],
        )
        for t in admission.trials.values()
    }  # fmt: skip
    monkeypatch.setenv("LRSTUDY_CACHE", str(tmp_path / "node-3"))
    tables = Study.load(f"{storage}/small")
    assert outcome(tables.folder) == in_folder

    listed = {item.path for item in Bucket(f"{storage}/small").listing()}
    assert {"study.yaml", "study.lock.json", "journal/0001.jsonl", "journal/0002.jsonl", "report/index.html"} <= listed
    assert "driver.lock" not in listed
    assert not [path for path in listed if "-0000" in path], "the parts of both runs' journals are joined"
    for item in Bucket(storage).listing():
        assert b"never-to-be-seen" not in (Bucket(storage).get(item.path) or b""), item.path

    status = run("status", f"{storage}/small", "--json", LRSTUDY_CACHE=str(tmp_path / "node-4"))
    assert json.loads(status.stdout)["complete"], status.stderr
    assert status.stderr == ""
    page = run("report", f"{storage}/small", LRSTUDY_CACHE=str(tmp_path / "node-4"))
    assert page.stdout.startswith(f"{storage}/small/report/index.html (a copy: {tmp_path / 'node-4'}"), page.stderr


TINY = """
lrstudy: 1
name: small
workload: {data: "folder:IMAGES", split: {test: 0.25, validation: 0.25}, model: small_cnn}
budget: {epochs: 1}
common: {lr: 0.1, batch_size: 2}
arms: [constant]
search: {method: random, trials: 1, cohort: 1}
confirm: {top: 0}
"""


@pytest.fixture
def images(tmp_path) -> Path:
    import numpy as np

    from image_files import image

    for k in range(16):
        image(tmp_path / "images" / "ab"[k % 2] / f"{k}.png", np.full((8, 8), 10 * k, np.uint8))
    return tmp_path / "images"


def test_a_worker_on_another_node_needs_no_source(s3, tmp_path, images, monkeypatch):
    file = write(tmp_path, f"{s3}/runs", TINY.replace("IMAGES", str(images)))
    monkeypatch.setenv("LRSTUDY_CACHE", str(tmp_path / "driver"))
    workload = Study.from_yaml(file).plan()[0].workload
    shutil.rmtree(images)
    monkeypatch.setenv("LRSTUDY_CACHE", str(tmp_path / "worker"))
    from lrstudy.training.trainer import Trainer

    assert Trainer(workload).train_part is not None
    assert (tmp_path / "worker" / "data" / workload.data_key / "images.npy").exists()


def test_a_bucket_that_refuses_is_said_before_anything_is_decoded(s3, s3_server, tmp_path, images):
    file = write(tmp_path, f"{s3}/runs", TINY.replace("IMAGES", str(images)))
    with proxy(s3_server.port) as (endpoint, faults):
        faults.of = lambda method, path: 403 if method == "PUT" else None
        done = run("run", str(file), AWS_ENDPOINT_URL=endpoint, LRSTUDY_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"lrstudy: storage.path: cannot write in the bucket at {s3}/runs: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "cache" / "data").exists()


@pytest.mark.long
def test_a_server_that_dies_in_the_middle_ends_the_run_with_one_paragraph_and_the_same_command_goes_on(
    tmp_path, images, monkeypatch
):
    """The server holds its objects in memory, so what comes back is an empty bucket: nothing partial may be believed."""
    server = server_or_skip()
    port, revived = server.port, None
    try:
        variables = {**environment(server.endpoint), "LRSTUDY_BUCKET_PATIENCE_S": "3"}
        bucket = server.make_bucket()
        file = write(
            tmp_path, f"{bucket}/runs", TINY.replace("IMAGES", str(images)).replace("epochs: 1", "epochs: 5000")
        )
        with subprocess.Popen(
            command("run", str(file)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **variables}, start_new_session=True,
        ) as driver:  # fmt: skip
            try:
                for name, value in variables.items():
                    monkeypatch.setenv(name, value)
                memo = Memo(f"{bucket}/runs/memo")
                while len(memo._objects.listing("records")) < 3:
                    assert driver.poll() is None, driver.communicate()
                server.stop()
                _, said = driver.communicate(timeout=200)
            finally:
                if driver.poll() is None:
                    kill_all(driver)
        assert driver.returncode == 1, said
        assert "storage.path: cannot" in said
        assert "Traceback" not in said
        from s3_server import S3Server

        revived = S3Server(port)
        revived.request("PUT", f"/{bucket.removeprefix('s3://')}")
        done = run("run", str(file), "budget.epochs=2", "--json", **variables)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["complete"]
    finally:
        server.stop()
        if revived is not None:
            revived.stop()


HOSTILE = {
    "trials.parquet": b"PAR1 no table PAR1",
    "study.lock.json": b"[" * 100_000,
    "epochs.parquet": b"\x80\x04.",
    "journal/0001.jsonl": b'{"kind": "told", "arm": ["x"]}\n[]\n\x80\n{"kind": "frozen", "arms": 5}\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_of_a_study_is_one_paragraph_and_no_traceback(s3, tmp_path, name, capsys):
    """A study that has run, as far as one needs to look at it, and one file of it that somebody else has put there."""
    file = write(tmp_path, f"{s3}/runs", SMALL.replace("trials: 4", "trials: 2"))
    plan = Study.from_yaml(file).plan()[0]
    bucket = Bucket(f"{s3}/runs/small")
    bucket.put("study.lock.json", study_lock.render(plan, (), False, {}).encode())
    bucket.put(name, HOSTILE[name])
    for command_line in (("status", f"{s3}/runs/small"), ("plan", str(file)), ("report", f"{s3}/runs/small")):
        code = cli._main(list(command_line))
        said = capsys.readouterr().err
        assert code in (0, 1, 2)
        assert len(said.strip().splitlines()) <= 2, said
