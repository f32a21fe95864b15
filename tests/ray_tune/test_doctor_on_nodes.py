"""`lrstudy doctor` on real nodes: two that are alike, and a third in a mount namespace that has nearly every fault."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lrstudy
from ray_nodes import variables
from serial import SMALL

pytestmark = pytest.mark.slow

needs_root = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("unshare"), reason="a node without the storage needs a mount namespace"
)


def doctor(environment: dict[str, str], *arguments: str) -> tuple[int, list[dict]]:
    """The exit code of `lrstudy doctor --json`, and its findings."""
    code = "from lrstudy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json", *arguments],
        env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


def of(findings: list[dict], check: str) -> dict[str, dict]:
    """The findings of a check by the end of their node's address."""
    return {finding["node"][-2:-1]: finding for finding in findings if finding["check"] == check}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("study") / "study.yaml"
    file.write_text(f"{SMALL}storage: {{path: runs}}\n")
    return file


@pytest.fixture(scope="module")
def examined(ray_nodes, study, tmp_path_factory):
    """The findings on all three nodes. The third has a storage and an lrstudy of its own, few files, and no GPU by SLURM."""
    storage, other = study.parent / "runs", tmp_path_factory.mktemp("other")
    storage.mkdir()
    shutil.copytree(Path(lrstudy.__file__).parent, other / "lrstudy")
    (other / "lrstudy" / "settings.py").open("a").write("# changed\n")
    prepared = f'mount -t tmpfs none {storage} && ulimit -n 2000 && exec "$@"'
    bad = ray_nodes.start_worker(
        4,
        variables={"PYTHONPATH": str(other), "CUDA_VISIBLE_DEVICES": "NoDevFiles"},
        within=["unshare", "--mount", "sh", "-c", prepared, "sh"],
    )
    try:
        ray_nodes.wait_for(3)
        yield doctor(ray_nodes.environment, str(study), "resources.gpu=0.5", "--address", ray_nodes.address)
    finally:
        ray_nodes.stop(bad, left=2)
        assert list(storage.iterdir()) == [], "the doctor has left something in the storage"


@needs_root
def test_another_version_of_lrstudy_is_found_on_the_node_that_has_it(examined):
    found = of(examined[1], "versions")
    assert {node: finding["status"] for node, finding in found.items()} == {"2": "ok", "3": "ok", "4": "fail"}
    assert found["4"]["measured"].startswith("lrstudy ")


@needs_root
def test_a_storage_that_one_node_does_not_share_is_found_on_all(examined):
    found = of(examined[1], "storage")
    assert {finding["status"] for finding in found.values()} == {"fail"}
    assert "127.0.0.4" in found["2"]["measured"]
    assert "127.0.0.2" in found["4"]["measured"]


@needs_root
def test_gpus_that_ray_gives_and_torch_cannot_use_are_found(examined):
    found = of(examined[1], "GPUs")
    assert {node: finding["status"] for node, finding in found.items()} == {"2": "ok", "3": "fail", "4": "warn"}
    assert found["3"]["measured"].startswith("the node gives 1 GPUs, but torch")
    assert "--gres" in found["4"]["advice"]


@needs_root
def test_clocks_limits_and_files_of_every_node_are_measured(examined):
    clocks, files = of(examined[1], "clocks"), of(examined[1], "open files")
    assert {finding["status"] for finding in clocks.values()} == {"ok"}
    assert clocks.keys() == {"2", "3", "4"}
    assert files["4"]["status"] == "warn"
    assert of(examined[1], "import torch").keys() == of(examined[1], "storage speed").keys() == {"2", "3", "4"}
    assert examined[0] == 1


CHECK = """
import sys
from lrstudy.doctor.examine import Needs, preflight
from lrstudy.ray_tune.every_node import connected, every_node
with connected(sys.argv[1]):
    preflight(every_node, Needs(sys.argv[2]))
"""


def test_the_preflight_lets_a_run_start_only_on_sound_nodes(ray_nodes, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CHECK, ray_nodes.address, str(tmp_path)],
        env=ray_nodes.environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: GPUs on" in last
    assert "the node gives 1 GPUs, but torch" in last
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("token", "measured"),
    [("wrong", "refuses the token from"), (None, "there is no token"), ("others", "may be read by others (mode 0644)")],
)
def test_a_token_that_does_not_do_is_a_failed_check(ray_nodes, tmp_path, token, measured):
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(ray_nodes.token.read_text() if token == "others" else "0" * 64)
    file.chmod(0o644 if token == "others" else 0o600)
    environment = {**os.environ, **variables(file), "HOME": str(tmp_path)}
    if token is None:
        environment["RAY_AUTH_TOKEN_PATH"] = ""
    code, (finding,) = doctor(environment, "--address", ray_nodes.address)
    assert (code, finding["check"], finding["status"]) == (1, "token", "fail")
    assert measured in finding["measured"]


def test_a_cluster_that_is_not_there_is_a_failed_check(tmp_path):
    code, (finding,) = doctor({**os.environ}, "--address", "127.0.0.2:9")
    assert (code, finding["check"]) == (1, "address")
    assert finding["measured"].startswith("cannot reach the Ray cluster at 127.0.0.2:9")
