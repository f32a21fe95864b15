"""Tokens lie in files of their owner alone, and a run shows its token nowhere."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from lrstudy.errors import InputError
from lrstudy.ray_tune import cluster_token
from serial import SMALL


@pytest.fixture(autouse=True)
def _no_token(monkeypatch, tmp_path):
    """A user who has none."""
    for name in (cluster_token.TOKEN, cluster_token.PATH, cluster_token.MODE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_token_is_taken_from_where_ray_takes_it(monkeypatch, tmp_path):
    (tmp_path / ".ray").mkdir()
    cluster_token.write(tmp_path / ".ray" / "auth_token", "home")
    assert cluster_token.find().text == "home"
    cluster_token.write(tmp_path / "named", "named\n")
    monkeypatch.setenv(cluster_token.PATH, str(tmp_path / "named"))
    assert cluster_token.find() == cluster_token.ClusterToken("named", str(tmp_path / "named"))
    monkeypatch.setenv(cluster_token.TOKEN, "said")
    assert cluster_token.find() == cluster_token.ClusterToken("said", "RAY_AUTH_TOKEN")


def test_a_token_is_not_shown_by_its_holder():
    assert "secret" not in repr(cluster_token.ClusterToken("secret", "file"))


def test_a_missing_token_says_what_is_expected():
    with pytest.raises(InputError, match="there is no token: neither RAY_AUTH_TOKEN nor RAY_AUTH_TOKEN_PATH is set"):
        cluster_token.find()
    with pytest.raises(InputError, match=r"of mode 0600\. How to make one: docs/security\.md"):
        cluster_token.find()


def test_a_named_file_that_is_missing_or_empty_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(cluster_token.PATH, str(tmp_path / "named"))
    with pytest.raises(InputError, match=f"cannot read the token in {tmp_path}/named: No such file"):
        cluster_token.find()
    cluster_token.write(tmp_path / "named", " \n")
    with pytest.raises(InputError, match="named is empty"):
        cluster_token.find()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_open_is_refused(monkeypatch, tmp_path, mode):
    path = tmp_path / "named"
    cluster_token.write(path, "text")
    path.chmod(mode)
    monkeypatch.setenv(cluster_token.PATH, str(path))
    with pytest.raises(InputError, match=rf"{path} may be read by others \(mode {mode:04o}\).*chmod 600"):
        cluster_token.find()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "named"
    cluster_token.write(path, "text")
    os.chown(path, 65534, -1)
    monkeypatch.setenv(cluster_token.PATH, str(path))
    with pytest.raises(InputError, match="belongs to another user"):
        cluster_token.find()


def test_a_file_is_written_for_its_owner_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        cluster_token.write(tmp_path / "token", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        cluster_token.write(tmp_path / "token", "other")


def test_a_fresh_token_is_private_and_leaves_nothing_behind(monkeypatch):
    monkeypatch.setenv(cluster_token.TOKEN, "of another cluster")
    before = dict(os.environ)
    with cluster_token.fresh():
        path = Path(os.environ[cluster_token.PATH])
        assert os.environ[cluster_token.MODE] == "token"
        assert cluster_token.TOKEN not in os.environ
        assert re.fullmatch("[0-9a-f]{64}", path.read_text())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with cluster_token.fresh():
            assert Path(os.environ[cluster_token.PATH]).read_text() != path.read_text()
        assert os.environ[cluster_token.PATH] == str(path)
    assert not path.parent.exists()
    assert dict(os.environ) == before


@pytest.mark.slow
def test_a_run_has_a_token_and_shows_it_nowhere(tmp_path):
    """Neither files that a run leaves, nor its output, nor its processes' arguments and environments have the token."""
    file, ray_folder = tmp_path / "study.yaml", Path("/tmp") / f"rt{os.getpid()}"
    file.write_text(f"{SMALL}storage: {{path: runs}}\n")
    driver = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from lrstudy.cli import main; main()",
            "run",
            str(file),
            "arms=[constant]",
            "search.trials=2",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "RAY_TMPDIR": str(ray_folder)},
        start_new_session=True,
    )
    try:
        token, seen = _watch(driver)
        output = driver.communicate(timeout=200)[0]
        assert driver.returncode == 0, output
        left = [path for folder in (tmp_path, ray_folder) for path in folder.rglob("*") if path.is_file()]
        assert any(path.name == "study.lock.json" for path in left)
        assert any("session_" in str(path) for path in left), "Ray's own logs are looked at too"
        assert [path for path in left if token.encode() in path.read_bytes()] == []
        assert token.encode() not in output
        assert len(seen) > 5
        assert not any(token in text for text in seen)
        assert not (tmp_path / ".ray").exists(), "Ray has left a token in the user's home"
    finally:
        _end(driver)
        subprocess.run(["rm", "-rf", str(ray_folder)], check=True)


def _watch(driver: subprocess.Popen) -> tuple[str, set[str]]:
    """The token of a driver's Ray, and arguments and environments of its processes while a worker trains."""
    token, seen, end = "", set(), time.monotonic() + 120
    while time.monotonic() < end and driver.poll() is None:
        for process in psutil.Process(driver.pid).children(recursive=True):
            with suppress(psutil.Error, OSError, IndexError):  # a process that ends has no arguments any more
                variables, arguments = process.environ(), process.cmdline()
                seen.add(f"{arguments} {variables}")
                token = token or Path(variables[cluster_token.PATH]).read_text()
                if arguments[0].startswith("ray::Tune"):
                    return token, seen
        time.sleep(0.1)
    raise AssertionError("no worker was seen")


def _end(driver: subprocess.Popen) -> None:
    if driver.poll() is None:
        for child in psutil.Process(driver.pid).children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        driver.kill()
        driver.communicate()
