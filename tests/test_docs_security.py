"""The commands of docs/security.md do what the page says, on a real cluster."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs" / "security.md"


def run(commands: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run commands in a shell, with this Python as ``python`` and this lrstudy as ``lrstudy``."""
    start = f'python() {{ "{sys.executable}" "$@"; }}; lrstudy() {{ python -c "from lrstudy.cli import main; main()" "$@"; }}\n'
    return subprocess.run(
        ["sh", "-e", "-c", start + commands],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def with_token() -> list[str]:
    """The commands of the page before and after the start of a cluster with a token."""
    commands, _ = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    return re.split(r"^ray start --head .*\n", commands, flags=re.MULTILINE)


def test_a_token_is_made_for_its_owner_alone_and_another_clusters_is_refused(ray_nodes, tmp_path):
    """The nodes are those of the fixture, which runs `ray start` in the same way, but with a token of its own."""
    made, examined = with_token()
    done = run(made + examined, tmp_path, {"RAY_ADDRESS": ray_nodes.address, "HOME": str(tmp_path)})
    assert done.returncode == 1
    assert f"refuses the token from {tmp_path}/ray-token" in done.stdout
    assert re.fullmatch("[0-9a-f]{64}", (tmp_path / "ray-token").read_text())
    assert stat.S_IMODE((tmp_path / "ray-token").stat().st_mode) == 0o600


@pytest.mark.long
def test_with_the_clusters_token_the_doctor_examines_it(ray_nodes, tmp_path):
    made, examined = with_token()
    export = next(line for line in made.splitlines() if line.startswith("export"))
    shutil.copy(ray_nodes.token, tmp_path / "ray-token")
    done = run(f"{export}\n{examined}", tmp_path, {"RAY_ADDRESS": ray_nodes.address, "HOME": str(tmp_path)})
    assert len(re.findall("^  ok +versions ", done.stdout, flags=re.MULTILINE)) == 2, done.stdout + done.stderr


def test_the_folder_for_ray_is_private(tmp_path):
    _, private = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    done = run(f"{private}\necho $RAY_TMPDIR", tmp_path, {"HOME": str(tmp_path)})
    assert done.stdout.strip() == str(tmp_path / ".lrray")
    assert stat.S_IMODE((tmp_path / ".lrray").stat().st_mode) == 0o700


def test_what_the_page_calls_open_and_closed_is_so(ray_nodes):
    import urllib.error
    import urllib.request

    def status(path: str, port: str = str(ray_nodes.dashboard)) -> int:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code

    assert {path: status(path) for path in ("/", "/api/authentication_mode", "/api/gcs_healthz")} == {
        "/": 200,
        "/api/authentication_mode": 200,
        "/api/gcs_healthz": 200,
    }
    assert {path: status(path) for path in ("/nodes", "/logs/", "/api/jobs/")} == {
        "/nodes": 401,
        "/logs/": 401,
        "/api/jobs/": 401,
    }
    metrics = next((ray_nodes.folder / "ray" / "session_latest").glob("metrics_export_port_*"))
    assert status("/metrics", metrics.read_text()) == 200
    sessions = [path for path in (ray_nodes.folder / "ray").iterdir() if path.is_dir() and not path.is_symlink()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in sessions} == {0o777}
