"""The shell of all targets: what is rendered is checked by shellcheck."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lrstudy_cluster import catalogue, launching, templates

_BESIDE = Path(sys.executable).with_name("shellcheck")
SHELLCHECK = str(_BESIDE) if _BESIDE.exists() else shutil.which("shellcheck")
AWS = ("region=eu-central-1", "ami=ami-0123456789abcdef0", "instance_type=g5.2xlarge", "shared_folder=/mnt/lrstudy")
LAUNCHES = {
    "local": ("mps=true", "setup=['module load cuda']"),
    "aws": AWS,
    "aws on demand": (*AWS, "spot=false", "setup=['export X=1']"),
    "onprem": ("hosts=[10.0.0.1, 10.0.0.2]", "shared_folder=/mnt/lrstudy", "ssh_key=KEY"),
    "job": ("shared_folder=/mnt/lrstudy", "token_file=KEY", "slots=3"),
}


@pytest.mark.skipif(SHELLCHECK is None, reason="needs shellcheck")
@pytest.mark.parametrize("name", LAUNCHES)
def test_the_scripts_of_a_launch_are_good_shell(prepare, tmp_path, name):
    key = tmp_path / "a key"
    key.touch(0o600)
    key.write_text("f00d")
    options = [option.replace("KEY", str(key)) for option in LAUNCHES[name]]
    prepared = prepare(name.split()[0], *options, overrides=["name=a.b-c"])
    written = launching.write(prepared, tmp_path / "out")
    _check([path for path in written if path.suffix == ".sh"])


@pytest.mark.skipif(SHELLCHECK is None, reason="needs shellcheck")
def test_skypilots_scripts_are_good_shell(tmp_path):
    """They are rendered apart, since a job of SkyPilot needs a bucket."""
    for name in ("node.sh", "launch.sh"):
        (tmp_path / name).write_text(templates.fill("skypilot", name, {"setup": ["export X=1"]}))
    _check([tmp_path / "node.sh", tmp_path / "launch.sh"])


def test_every_target_with_a_script_is_checked_here():
    """slurm has a file of its own, and kuberay's only script is the driver's, which all others have."""
    scripted = {name for name in catalogue.names() if list((templates.folder() / name).glob("*.sh"))}
    assert scripted - {name.split()[0] for name in LAUNCHES} <= {"skypilot", "slurm"}


def _check(scripts: list[Path]) -> None:
    assert scripts
    done = subprocess.run([str(SHELLCHECK), *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
