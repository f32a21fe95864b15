"""Real Ray nodes on this machine for tests: one `ray start --block` each, with an address of its own on the loopback."""

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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

UP_S, DOWN_S = 90, 20
ATTEMPTS = 3
ROOT = Path(__file__).parents[1]
RAY = [sys.executable, "-P", "-m", "ray.scripts.scripts"]
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "5",
}
"""A node that is gone is noticed within seconds, and one that is drained ends within 5 s and not 30, whatever it runs."""


class RayNodes:
    """A Ray cluster whose nodes are processes of this test; all of them have ended after `close`.

    Every node has its own loopback address, its logs and sockets lie in one short temporary folder of the cluster, and
    Ray's files of other clusters on this machine are not touched.

    Args:
        has_token: Whether the cluster asks for a token.
        host: The address of its head.
    """

    def __init__(self, has_token: bool = True, host: str = "127.0.0.2") -> None:
        self.host = host
        self.folder = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))  # Ray's sockets need a short path
        self.token = self.folder / "token"
        self.token.touch(0o600)
        self.token.write_text(secrets.token_hex(32))
        self.variables = variables(self.token if has_token else None)
        self.port = free_port()
        self.dashboard = free_port()
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._dead: list[subprocess.Popen[bytes]] = []
        self._seen: dict[int, psutil.Process] = {}

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a client that has the cluster's token."""
        return {**os.environ, **self.variables}

    @property
    def head(self) -> subprocess.Popen[bytes]:
        return self._nodes[0]

    def start_head(self, *options: str, has_dashboard: bool = True) -> None:
        dashboard = ["--include-dashboard=true", f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1"]
        own = [
            "--head",
            f"--port={self.port}",
            f"--temp-dir={self.folder}/ray",
            f"--ray-client-server-port={free_port()}",
        ]
        dashboard = dashboard if has_dashboard else ["--include-dashboard=false"]
        self._up(lambda: self._start(self.host, [*own, *dashboard, *options], {}, []), self.host)
        self.wait_for(1)

    def start_worker(
        self, number: int | str, *options: str, variables: dict[str, str] | None = None, within: list[str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a further node at 127.0.0.`number` or at an address, perhaps by a command such as ``unshare``.

        Does not wait for it.
        """
        address = number if isinstance(number, str) else f"127.0.0.{number}"
        return self._start(address, [f"--address={self.address}", *options], variables or {}, within or [])

    def add(
        self, number: int | str, *options: str, variables: dict[str, str] | None = None, within: list[str] | None = None
    ) -> subprocess.Popen[bytes]:
        """`start_worker`, and wait until the node is up."""
        address = number if isinstance(number, str) else f"127.0.0.{number}"
        return self._up(lambda: self.start_worker(number, *options, variables=variables, within=within), address)

    def _up(self, start: Callable[[], subprocess.Popen[bytes]], address: str) -> subprocess.Popen[bytes]:
        """Start a node and wait until it is up.

        On a busy machine a raylet gives up when its agents have not started within 15 s, whatever is set: then once more.
        """
        log = self.folder / f"{address}.log"
        for _ in range(ATTEMPTS):
            node = start()
            while node.poll() is None and "Ray runtime started" not in log.read_text(errors="replace"):
                time.sleep(0.2)
            if node.poll() is None:
                self._remember()
                return node
            self._nodes.remove(node)
        raise AssertionError(self.logs())

    def _start(self, address: str, options: list[str], more: dict[str, str], within: list[str]) -> subprocess.Popen:
        sizes = ["--num-cpus=1", "--object-store-memory=80000000", f"--node-ip-address={address}"]
        sizes += ["--dashboard-agent-listen-port=0"]  # the port that is set by default is another Ray's on this machine
        with (self.folder / f"{address}.log").open("wb") as log:
            process = subprocess.Popen(
                [*within, *RAY, "start", "--block", "--disable-usage-stats", *sizes, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.environment, **more},
                start_new_session=True,
            )
        self._nodes.append(process)
        return process

    def wait_for(self, number: int) -> None:
        """Wait until so many nodes live."""
        end = time.monotonic() + UP_S
        while self.num_living() < number:
            self._remember()
            assert all(node.poll() is None for node in self._nodes), self.logs()
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)

    def num_living(self) -> int:
        """How many nodes the control process knows to live; 0 while it is not there."""
        import grpc
        from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

        headers = [("authorization", f"Bearer {self.token.read_text()}")]
        with grpc.insecure_channel(self.address, [("grpc.enable_http_proxy", 0)]) as channel:
            stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            try:
                reply = stub.GetAllNodeInfo(gcs_service_pb2.GetAllNodeInfoRequest(), metadata=headers, timeout=5)
            except grpc.RpcError:
                return 0
        return sum(node.state == 0 for node in reply.node_info_list)

    def kill(self, node: subprocess.Popen[bytes], name: str) -> None:
        """Kill a node's `raylet`, as if its machine had lost power, or another of its processes; waits for nothing."""
        self._remember()
        for child in psutil.Process(node.pid).children(recursive=True):
            if child.name() == name:
                child.kill()
        self._nodes.remove(node)
        self._dead.append(node)

    def stop(self, node: subprocess.Popen[bytes], left: int) -> None:
        """End one node as its owner would, and wait until so many are left."""
        self._remember()
        node.terminate()
        node.wait(DOWN_S)
        self._nodes.remove(node)
        end = time.monotonic() + UP_S
        while self.num_living() != left:
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-1500:] for path in sorted(self.folder.glob("*.log")))

    def _remember(self) -> None:
        """Note which processes belong to the nodes, by their ids, so that none is left when its parent has died."""
        for node in self._nodes:
            with suppress(psutil.NoSuchProcess):
                for process in [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]:
                    self._seen[process.pid] = process

    def close(self) -> None:
        """Kill all processes of the nodes at once: what they would tidy up lies in the folder that goes with them."""
        self._remember()
        for process in self._seen.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(list(self._seen.values()), timeout=DOWN_S)
        for node in (*self._nodes, *self._dead):
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def variables(token: Path | None) -> dict[str, str]:
    """The environment of a node or client with this token's file, or with none where no token is asked for."""
    if token is None:
        return {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": "", **QUICK}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), **QUICK}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.2", 0))
        return int(found.getsockname()[1])


def doctor(environment: dict[str, str], *arguments: str) -> tuple[int, list[dict]]:
    """The exit code of `lrstudy doctor --json`, and its findings."""
    code = "from lrstudy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json", *arguments],
        env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]
