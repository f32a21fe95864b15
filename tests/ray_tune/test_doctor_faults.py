"""`lrstudy doctor` on three real nodes: two that are alike, and one in a mount namespace that has nearly every fault."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import lrstudy
from ray_nodes import doctor
from serial import SMALL

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        os.getuid() != 0 or not shutil.which("unshare"), reason="a node without the storage needs a mount namespace"
    ),
]


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


def test_another_version_of_lrstudy_is_found_on_the_node_that_has_it(examined):
    found = of(examined[1], "versions")
    assert {node: finding["status"] for node, finding in found.items()} == {"2": "ok", "3": "ok", "4": "fail"}
    assert found["4"]["measured"].startswith("lrstudy ")


def test_a_storage_that_one_node_does_not_share_is_found_on_all(examined):
    found = of(examined[1], "storage")
    assert {finding["status"] for finding in found.values()} == {"fail"}
    assert "127.0.0.4" in found["2"]["measured"]
    assert "127.0.0.2" in found["4"]["measured"]


def test_gpus_that_ray_gives_and_torch_cannot_use_are_found(examined):
    found = of(examined[1], "GPUs")
    assert {node: finding["status"] for node, finding in found.items()} == {"2": "ok", "3": "fail", "4": "warn"}
    assert found["3"]["measured"].startswith("the node gives 1 GPU, but torch")
    assert "--gres" in found["4"]["advice"]


def test_clocks_limits_and_files_of_every_node_are_measured(examined):
    clocks, files = of(examined[1], "clocks"), of(examined[1], "open files")
    assert {finding["status"] for finding in clocks.values()} == {"ok"}
    assert clocks.keys() == {"2", "3", "4"}
    assert files["4"]["status"] == "warn"
    assert of(examined[1], "import torch").keys() == of(examined[1], "storage speed").keys() == {"2", "3", "4"}
    assert examined[0] == 1
