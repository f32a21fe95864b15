"""A real Ray head on this machine, closed by a token, with its dashboard; ended by its process."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A Ray head: the address of its dashboard, and the file with its token (None: it has none)."""

    address: str
    token: Path | None


@contextmanager
def ray_head(folder: Path, is_open: bool = False) -> Iterator[Head]:
    """Start a head without GPUs; with `is_open` it takes work from anybody."""
    token = folder / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    gcs, dashboard = _free_port(), _free_port()
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(RAY).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
    }
    environment |= {"RAY_AUTH_MODE": "disabled" if is_open else "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as short:  # sockets have short names
        command = [RAY, "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}"]
        command += ["--dashboard-agent-listen-port=0"]  # else a second Ray on the machine has no agent that starts jobs
        command += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--num-cpus=2", "--num-gpus=0"]
        command += [f"--temp-dir={short}", "--object-store-memory=100000000"]
        with (folder / "ray.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            head = Head(f"http://127.0.0.1:{dashboard}", None if is_open else token)
            _wait_until_up(head, process, folder / "ray.log")
            yield head
        finally:
            _end(process.pid)
            process.wait(30)


def _wait_until_up(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not _answers(f"{head.address}/api/jobs/"):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return True


def _end(pid: int) -> None:
    """End a head as its users do, by SIGTERM to `ray start --block`; what it leaves behind is killed."""
    try:
        head = psutil.Process(pid)
        below = head.children(recursive=True)
        head.terminate()
        head.wait(20)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        below.append(head)
    for process in below:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
