"""A real S3 server in a process of its own (moto's), and a proxy in front of it that injects faults."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "never-to-be-seen", "AWS_REGION": "us-east-1"}
_UP_S = 60


def environment(endpoint: str) -> dict[str, str]:
    """The variables with which programs find a server at `endpoint`."""
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "LRSTUDY_BUCKET_PATIENCE_S": "5"}


class S3Server:
    """The server, which holds its objects in memory: what was put is gone with the process."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + _UP_S
        while not _answers(self.port):
            assert self.process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.05)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make_bucket(self) -> str:
        """Make a new bucket; returns its URL."""
        name = f"b{uuid.uuid4().hex[:12]}"
        self.request("PUT", f"/{name}")
        return f"s3://{name}"

    def put(self, url: str, key: str, data: bytes) -> None:
        """Put an object past all checks, as somebody else might."""
        self.request("PUT", f"/{url.removeprefix('s3://').partition('/')[0]}/{key}", data)

    def request(self, method: str, path: str, data: bytes = b"") -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body=data, headers={"Content-Length": str(len(data))})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status < 300, text

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Faults:
    """What the proxy does to a request before the server sees it: `of` says by method and path, None for nothing.

    A number is the status of an answer, "hang" is none at all, "drop" closes the line after the server has acted.
    """

    of: Callable[[str, str], int | str | None] = lambda method, path: None
    seen: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def proxy(port: int) -> Iterator[tuple[str, Faults]]:
    """A proxy in front of the server at `port`: its endpoint, and the faults that it injects."""
    faults, released = Faults(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            faults.seen.append((self.command, self.path))
            fault = faults.of(self.command, self.path)
            if fault == "hang":
                released.wait(60)
                self.close_connection = True
                return
            if isinstance(fault, int):
                self._answer(fault, {}, b"<Error><Code>Injected</Code><Message>as the test wants</Message></Error>")
                return
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ("connection",)}
            upstream.request(self.command, self.path, body=data, headers=headers)
            answer = upstream.getresponse()
            body = answer.read()
            upstream.close()
            if fault == "drop":
                self.close_connection = True
                return
            self._answer(answer.status, dict(answer.getheaders()), body)

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for key, value in headers.items():
                if key.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                    self.send_header(key, value)
            self.send_header("Date", self.date_time_string())
            length = headers.get("Content-Length", headers.get("content-length")) if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", faults
    finally:
        released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def server_or_skip() -> S3Server:
    pytest.importorskip("moto.server", reason="moto[server] is in the dev extra")
    return S3Server()
