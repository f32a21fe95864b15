"""A real Ray cluster of several nodes on this machine: raylets that a test starts, kills and ends by their processes."""

from __future__ import annotations

import json
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
RAY = [sys.executable, "-P", "-m", "ray.scripts.scripts"]
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

    Args:
        num_cpus: How many CPUs the head has.
        ip: The head's address.
        more: Further options of the head.
        has_token: Whether the cluster asks for its token.
    """

    def __init__(
        self, num_cpus: int = 1, *, ip: str = "127.0.0.1", more: Sequence[str] = (), has_token: bool = True
    ) -> None:
        self.dashboard: int | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))  # short: sockets have paths of 107 characters
        self.token = self.folder / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        self.variables = token_variables(self.token if has_token else None)
        port = free_port(ip)
        self.address = f"{ip}:{port}"
        self._started: list[subprocess.Popen[bytes]] = []
        self._seen: dict[int, psutil.Process] = {}
        client_port = f"--ray-client-server-port={free_port()}"  # several clusters run on this machine
        head = ["--head", f"--port={port}", f"--node-ip-address={ip}", client_port, "--include-dashboard=false"]
        self.head = self._start([*head, *more], num_cpus)

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

    def stop(self, node: subprocess.Popen[bytes], left: int) -> None:
        """End a node as its owner would, and wait until the control process counts so many."""
        self._children(node)
        node.terminate()
        node.wait(UP_S)
        end = time.monotonic() + UP_S
        while self.num_living() != left:
            assert time.monotonic() < end
            time.sleep(0.2)

    def num_living(self) -> int:
        """How many nodes the control process knows to live."""
        import grpc
        from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

        headers = [("authorization", f"Bearer {self.token.read_text()}")]
        with grpc.insecure_channel(self.address, [("grpc.enable_http_proxy", 0)]) as channel:
            stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            reply = stub.GetAllNodeInfo(gcs_service_pb2.GetAllNodeInfoRequest(), metadata=headers, timeout=30)
        return sum(node.state == 0 for node in reply.node_info_list)

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
            *within, *RAY, "start", "--block", "--disable-usage-stats",
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


def token_variables(token: Path | None) -> dict[str, str]:
    """The environment of a node or client with this token's file, or of one that has and wants none."""
    if token is None:
        return {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": ""}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def free_port(ip: str = "127.0.0.1") -> int:
    with socket.socket() as free:
        free.bind((ip, 0))
        return int(free.getsockname()[1])


def doctor(environment: dict[str, str], *arguments: str) -> tuple[int, list[dict]]:
    """The exit code of `lrstudy doctor --json`, and its findings."""
    code = "from lrstudy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json", *arguments],
        env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]
