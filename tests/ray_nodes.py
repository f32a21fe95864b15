"""A real Ray cluster of several nodes on this machine: raylets that a test starts, kills and ends by their processes."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

UP_S = 60.0
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "0",
}
"""A node that is gone is noticed within seconds."""


class RayNodes:
    """A head and any number of nodes, each with one CPU unless it is told otherwise; `close` ends what is left of them.

    `variables` are what a client needs in its environment: token mode, and where the token lies.
    """

    def __init__(self, num_cpus: int = 1) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))  # short: sockets have paths of 107 characters
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self._started: list[subprocess.Popen[bytes]] = []
        self._seen: dict[int, psutil.Process] = {}
        self.head = self._start(["--head", f"--port={port}", "--include-dashboard=false"], num_cpus)

    def add(
        self, num_cpus: int = 1, within: Sequence[str] = (), more: Sequence[str] = (), **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start another node, run by the command `within`; returns once it is up."""
        return self._start([f"--address={self.address}", *more], num_cpus, within, variables)

    def kill(self, node: subprocess.Popen[bytes], name: str = "raylet") -> None:
        """Kill a node's raylet, or another of its processes, as a machine that loses power does."""
        for child in self._children(node):
            if child.name() == name:
                child.kill()
        assert name != "raylet" or node.wait(UP_S) is not None

    def environment(self) -> dict[str, str]:
        """The environment of a client."""
        return {**os.environ, **self.variables}

    def close(self) -> None:
        """End all nodes and whatever they have started."""
        for node in reversed(self._started):
            self._children(node)
            node.terminate()
        for node in self._started:
            try:
                node.wait(20)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        for child in self._seen.values():
            if child.is_running():
                child.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RayNodes:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _start(
        self, options: Sequence[str], num_cpus: int, within: Sequence[str] = (), variables: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        log = self.folder / f"{len(self._started)}.log"
        temporary = [f"--temp-dir={self.folder / 'r'}"] if "--head" in options else []
        command = [
            *within, str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats",
            f"--num-cpus={num_cpus}", "--object-store-memory=80000000", *temporary, *options,
        ]  # fmt: skip
        environment = {**self.environment(), **QUICK, **(variables or {})}
        with log.open("wb") as output:
            node = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        self._started.append(node)
        end = time.monotonic() + UP_S
        while "--block" not in log.read_text() and "will now block" not in log.read_text():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        self._children(node)
        return node

    def _children(self, node: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """A node's processes; those seen once are ended with it, whoever their parent is then."""
        try:
            children = psutil.Process(node.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen |= {child.pid: child for child in children}
        return children
