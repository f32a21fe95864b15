"""docs/debugging.md is true: its recipes run on a small study, and what it says of Ray is so in the installed one."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lrstudy.ray_tune.connection import _ENVIRONMENT

PAGE = (Path(__file__).parents[1] / "docs" / "debugging.md").read_text()
STUDY = """
lrstudy: 1
name: skin
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}, model: small_cnn}
budget: {epochs: 2}
common: {lr: {choice: [0.1, 1e19]}, batch_size: 20}
arms: [constant]
search: {method: grid, trials: 2, cohort: 0}
confirm: {seeds: 2}
storage: {path: runs}
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def run(folder: Path, *command: str) -> str:
    """What a command prints that ends well, in a folder and with our commands on the path."""
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with skin.yaml, which has run: one trial of two diverged."""
    folder = tmp_path_factory.mktemp("debugging")
    (folder / "skin.yaml").write_text(STUDY)
    run(folder, "lrstudy", "run", "skin.yaml")
    return folder


@pytest.mark.slow
def test_the_commands_run(folder: Path) -> None:
    for block in blocks("sh"):
        if "jq" in block and not shutil.which("jq"):
            continue
        run(folder, "bash", "-euo", "pipefail", "-c", block)


@pytest.mark.slow
def test_the_python_runs_and_a_trial_trained_alone_gives_what_is_recorded(folder: Path) -> None:
    said = run(folder, sys.executable, "-c", "\n".join(blocks("python")))
    assert "the loss was not finite in epoch 0" in said
    assert said.count("as recorded") == 2
    assert "DIFFERS" not in said


def test_the_variables_are_those_that_are_set_and_ray_reads_them() -> None:
    shown = dict(re.findall(r"^\| `([A-Z0-9_]+)=(\w+)` \|", PAGE, flags=re.MULTILINE))
    assert shown == _ENVIRONMENT
    text = ray_source("tune", "train", "air", "_common", "_private")
    assert [name for name in shown if name not in text] == ["PYTHONSAFEPATH"], "which Python itself reads"


def test_what_is_patched_exists_in_the_installed_ray() -> None:
    controller = ray_source("tune/execution")
    for name in ("def _maybe_reuse_cached_actor(self, trial", "self._trial_to_actor", "self._actor_cache ="):
        assert name in controller
    assert "self._tune_controller = tune_controller" in controller
    assert "def increase_max(self, key: T, by: int = 1)" in ray_source("tune/utils")
    assert "def print_to_stdstream(" in (_ray() / "_private" / "worker.py").read_text()


def ray_source(*folders: str) -> str:
    return "".join(path.read_text() for folder in folders for path in sorted((_ray() / folder).rglob("*.py")))


def _ray() -> Path:
    """Where Ray is installed, without importing it."""
    found = importlib.util.find_spec("ray")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent
