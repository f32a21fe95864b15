"""What is concluded from the measurements of versions, GPUs, clocks, room and files, at the edges of every rule."""

from __future__ import annotations

import pytest

from lrstudy.doctor import clocks, gpus, room, slow_files, versions
from lrstudy.doctor.nodes import Answer, Node

A, B = Node("1", "a"), Node("2", "b", gpus=2)
HERE = {"python": "3.11.7", "lrstudy": "0a1b", "torch": "2.9.0", "ray": "2.60.0"}
DEVICE = {"name": "NVIDIA T4", "memory_bytes": 15 * 2**30, "free_bytes": 14 * 2**30, "works": True}
SEEN = {"present": 0, "driver": "none", "visible": None, "visible_to_parent": None, "gpus": [], "problem": ""}
GIB = 2**30
ROOMY = {
    "shm_bytes": GIB, "disk": "/tmp", "disk_bytes": 99 * GIB, "files": 65536, "most_files": 65536, "ray_folder": "/tmp/ray",
    "is_writable": True,
}  # fmt: skip
IMPORTS = {name: [1.0, 0.5] for name in slow_files.IMPORTS}
QUICK = {"folder": "/env", "imports": IMPORTS, "file_s": 0.0001, "bytes_per_s": 1e9}


def test_equal_versions_are_ok_and_another_one_is_named_with_both():
    same, other = Answer(A, dict(HERE)), Answer(B, {**HERE, "torch": "2.8.0", "lrstudy": "ffff"})
    ok, fail = versions.judge([same, other], HERE)
    assert (ok.status, fail.status, fail.node) == ("ok", "fail", "b")
    assert fail.measured == "lrstudy ffff there, 0a1b here; torch 2.8.0 there, 2.9.0 here"


def test_a_node_without_lrstudy_and_a_silent_one_have_failed():
    (lacking,) = versions.judge([Answer(A, error="lrstudy cannot be used there")], HERE)
    (silent,) = versions.judge([Answer(A, error="no answer within 60 s", is_silent=True)], HERE)
    assert lacking.status == silent.status == "fail"
    assert "one environment" in lacking.advice
    assert "logs of that node's raylet" in silent.advice


def test_the_digest_of_the_source_changes_with_any_file_of_it(tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "room" / "file.py").write_text("a = 1")
    monkeypatch.setattr(versions.lrstudy, "__file__", str(tmp_path / "__init__.py"))
    before = versions.source_digest()
    assert versions.source_digest() == before
    (tmp_path / "room" / "file.py").write_text("a = 2")
    assert versions.source_digest() != before


def test_gpus_that_torch_computes_on_are_named():
    (finding,) = gpus.judge([Answer(B, {**SEEN, "driver": "550.54", "gpus": [DEVICE, DEVICE]})], is_needed=True)
    assert finding.status == "ok"
    assert finding.measured == "NVIDIA T4 (15 GiB, 14 free), NVIDIA T4 (15 GiB, 14 free); driver 550.54"


@pytest.mark.parametrize("seen", [{"problem": "torch 2.9.0 is built without CUDA"}, {"gpus": [DEVICE]}])
def test_gpus_that_torch_cannot_use_have_failed(seen):
    (finding,) = gpus.judge([Answer(B, {**SEEN, **seen})], is_needed=False)
    assert finding.status == "fail"
    assert finding.measured.startswith("the node gives 2 GPUs, but torch ")


def test_a_step_of_slurm_without_gres_is_explained():
    (finding,) = gpus.judge([Answer(A, {**SEEN, "visible": "", "visible_to_parent": "NoDevFiles"})], is_needed=False)
    assert (finding.status, "--gres=gpu:N" in finding.advice) == ("warn", True)


def test_gpus_of_a_machine_that_its_node_does_not_give_are_mentioned():
    (finding,) = gpus.judge([Answer(A, {**SEEN, "present": 4})], is_needed=False)
    assert finding.status == "warn"
    assert finding.measured.startswith("the machine has 4, of which the node gives none")


def test_a_study_that_asks_for_gpus_needs_a_node_that_has_one():
    answers = [Answer(A, SEEN)]
    assert [finding.status for finding in gpus.judge(answers, is_needed=True)] == ["ok", "fail"]
    assert [finding.status for finding in gpus.judge(answers, is_needed=False)] == ["ok"]


def test_gpus_in_somebody_elses_use_are_no_failure():
    (finding,) = gpus.judge(
        [Answer(B, error="no answer within 60 s: its 2 GPUs are taken", is_silent=True)], is_needed=True
    )
    assert finding.status == "warn"


@pytest.mark.parametrize(
    ("offset_s", "trip_s", "status"),
    [(0.0, 0.01, "ok"), (-0.9, 0.01, "ok"), (1.5, 0.01, "warn"), (-12.0, 0.01, "fail"), (12.0, 30.0, "ok")],
)
def test_an_offset_counts_as_far_as_the_round_trip_cannot_explain_it(offset_s, trip_s, status):
    rounds = [
        [Answer(A, [at + trip_s / 2 + offset_s, at], "", at, at + trip_s)] for at in (1000.0, 1000.0 + 2 * trip_s)
    ]
    (finding,) = clocks.judge(rounds)
    assert (finding.status, finding.node) == (status, "a")


@pytest.mark.parametrize(("rate", "word"), [(1.0, ""), (0.9, "slow"), (1.1, "fast")])
def test_a_monotonic_clock_that_runs_wrong_has_failed(rate, word):
    rounds = [[Answer(A, [at, at * rate], "", at, at + 0.01)] for at in (1000.0, 1010.0)]
    (finding,) = clocks.judge(rounds)
    assert finding.status == ("fail" if word else "ok")
    assert word in finding.measured


@pytest.mark.parametrize(
    ("less", "check", "status"),
    [
        ({"shm_bytes": 64 * 2**20}, "/dev/shm", "fail"),
        ({"shm_bytes": 200 * 2**20}, "/dev/shm", "warn"),
        ({"disk_bytes": GIB}, "disk", "warn"),
        ({"disk_bytes": 0}, "disk", "fail"),
        ({"files": 1024}, "open files", "warn"),
        ({"files": 256}, "open files", "fail"),
        ({"is_writable": False}, "Ray's folder", "fail"),
    ],
)
def test_too_little_room_is_found_where_it_is(less, check, status):
    found = room.judge([Answer(A, {**ROOMY, **less})])
    assert [(finding.check, finding.status) for finding in found if finding.status != "ok"] == [(check, status)]
    assert all(finding.advice for finding in found if finding.status != "ok")


def test_enough_room_is_ok_and_this_machine_says_what_it_has():
    assert {finding.status for finding in room.judge([Answer(A, ROOMY)])} == {"ok"}
    assert room.measure().keys() == ROOMY.keys()


@pytest.mark.parametrize(
    ("slow", "check"),
    [
        ({"imports": {**IMPORTS, "torch": [25.0, 3.0]}}, "import torch"),
        ({"imports": {**IMPORTS, "Ray's agent": [6.0, 3.0]}}, "import Ray's agent"),
        ({"file_s": 0.03}, "environment"),
        ({"bytes_per_s": 5e6}, "environment"),
    ],
)
def test_slow_files_warn_and_advise_a_local_environment(slow, check):
    found = slow_files.judge_environment([Answer(A, {**QUICK, **slow})])
    assert [(finding.check, finding.status) for finding in found if finding.status != "ok"] == [(check, "warn")]
    assert all("Apptainer image" in finding.advice for finding in found if finding.status != "ok")


def test_what_a_raylet_waits_for_is_said_where_it_is_at_risk():
    found = slow_files.judge_environment([Answer(A, {**QUICK, "imports": {"Ray's agent": [9.0, 3.0]}})])
    assert found[0].measured == "9.0 s, and 3.0 s again; a raylet waits 15 s for it"


def test_a_module_that_cannot_be_imported_has_failed():
    found = slow_files.judge_environment([Answer(A, {**QUICK, "imports": {"torch": [None, None]}})])
    assert found[0].status == "fail"


def test_slow_storage_warns():
    fast = {"object_s": 0.001, "write": 1e8, "read": 1e8}
    answers = [Answer(A, fast), Answer(A, {**fast, "object_s": 1.0}), Answer(A, {**fast, "write": 1e6})]
    assert [finding.status for finding in slow_files.judge_storage(answers)] == ["ok", "warn", "warn"]


def test_files_are_timed_here_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(slow_files, "IMPORTS", {"json": "json", "none": "no_such_module"})
    found = slow_files.measure_environment()
    assert found["bytes_per_s"] > 0
    assert found["imports"]["json"][0] > 0
    assert found["imports"]["none"] == [None, None]
    speeds = slow_files.measure_storage(str(tmp_path / "storage"))
    assert min(speeds.values()) > 0
    assert list((tmp_path / "storage").iterdir()) == []
