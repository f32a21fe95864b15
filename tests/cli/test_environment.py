"""`lrstudy doctor` on this machine, and `lrstudy prepare`."""

from __future__ import annotations

import json
import pickle
import socket

import numpy as np
import pytest

from lrstudy.cli import _main
from lrstudy.doctor import slow_files
from serial import SMALL


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A small study; what takes seconds to import is not timed."""
    monkeypatch.setattr(slow_files, "IMPORTS", {"json": "json"})
    file = tmp_path / "study.yaml"
    file.write_text(f"{SMALL}storage: {{path: runs}}\n")
    return file


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A study of CIFAR-10 in torchvision's layout, tiny; torchvision takes its checksums on trust."""
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: (tmp_path / "sets" / self.base_folder).is_dir())
    file = tmp_path / "study.yaml"
    data = "{source: cifar10, root: sets}"
    file.write_text(SMALL.replace("data: digits, subset: 120, split: {test: 0.5, validation: 40}", f"data: {data}"))

    def put() -> None:
        folder = tmp_path / "sets" / CIFAR10.base_folder
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (20, 3072), np.uint8)
        batch = pickle.dumps({"data": pixels, "labels": [k % 10 for k in range(20)]})
        names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
        for name in names:
            (folder / name).write_bytes(batch)
        labels = [f"class {number}" for number in range(10)]
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": labels}))
        monkeypatch.setattr(CIFAR10, "train_list", [[name, None] for name in names[:5]])
        monkeypatch.setattr(CIFAR10, "test_list", [[names[5], None]])
        monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: setattr(self, "classes", labels))

    return file, put


def test_the_doctor_finds_this_machine_and_a_small_study_sound(study, capsys):
    code = _main(["doctor", str(study), "--json"])
    found = json.loads(capsys.readouterr().out)
    status = {finding["check"]: finding["status"] for finding in found["findings"]}
    assert code == (0 if found["ok"] else 1)
    assert {
        "data",
        "versions",
        "storage",
        "GPUs",
        "/dev/shm",
        "disk",
        "open files",
        "environment",
        "clocks",
    } <= status.keys()
    assert status["data"] == status["versions"] == status["storage"] == "ok"
    assert list((study.parent / "runs").iterdir()) == []


def test_the_doctor_prints_a_line_per_check(study, capsys):
    _main(["doctor", str(study)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "All nodes"
    assert "  ok    data" in lines[1]
    assert lines[-1].count(",") == 2


def test_data_that_is_missing_is_a_failed_check(study, capsys):
    assert _main(["doctor", str(study), "workload.data=folder:/nowhere", "--json"]) == 1
    (finding,) = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["check"] == "data"]
    assert finding["status"] == "fail"
    assert "/nowhere" in finding["measured"]


@pytest.mark.parametrize("arguments", [["--address", "nowhere"], ["missing.yaml"], ["--nope"], ["workload.data=nope"]])
def test_a_wrong_argument_of_the_doctor_exits_2(arguments, capsys):
    assert _main(["doctor", *arguments]) == 2


def test_prepare_decodes_once_and_says_what_a_node_must_see(study, capsys):
    assert _main(["prepare", str(study)]) == 0
    first = capsys.readouterr().out
    assert first.startswith("digits: 1,797 examples, decoded.\n")
    assert f"Every node must see, under the same path: {study.parent}/runs." in first
    assert _main(["prepare", str(study)]) == 0
    assert "fetched and decoded before" in capsys.readouterr().out
    assert _main(["doctor", str(study)]) in (0, 1)
    assert "digits is here and decoded" in capsys.readouterr().out


def test_what_is_there_is_prepared_without_a_network(cifar, capsys, monkeypatch):
    file, put = cifar
    put()
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("the network was used"))
    assert _main(["prepare", str(file), "--json"]) == 0
    fetched = json.loads(capsys.readouterr().out)
    assert (fetched["num_examples"], fetched["is_new"], fetched["fetched_bytes"]) == (120, True, 0)
    assert fetched["reads"] == str(file.parent / "sets")
    assert fetched["entry_bytes"] > 120 * 3072


def test_a_download_that_fails_is_one_paragraph(cifar, capsys, monkeypatch):
    file, _ = cifar
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert _main(["prepare", str(file)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("lrstudy: data: cifar10 cannot be read from")
    assert "The download failed: is there a network?" in said
    assert "\n" not in said
