"""The memo as it grows: commit, look-up and fetch with 10, 10,000 and 100,000 records, on a folder and on S3."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import obstore
from obstore.store import from_url

from benchmarks.harness import Row, compared
from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record

TITLE = "the memo as it grows"
NOTES = (
    "The ratio is the time with 10 records over the time with more: 1 means that it does not grow. Ten records lie loose; of more, all but",
    "some hundreds are compacted (and each repeat commits 40). A look-up is of a record that this process has not seen, spread over all of",
    "them (so that each reads another part of a segment), in a memo that is open: opening reads the list of names, 0.1 s for 100,000. A fetch",
    "is of a state of 100 KB. S3 is a moto server on this machine, to which the folder's files were copied.",
)
SIZES = (10, 10_000, 100_000)
_PROBES = 40
_STATE = bytes(100_000)


def run(repeats: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        memos = {size: Memo(Path(folder) / str(size)) for size in SIZES}
        for size, memo in memos.items():
            _fill(memo, size)
        rows = _rows("folder", memos, repeats)
        if shutil.which("moto_server") is None:
            print("memo: there is no moto_server (pip install 'moto[server]', in any environment); S3 is left out")
            return rows
        with _moto():
            for size in SIZES:
                _copy(Path(folder) / str(size), f"s3://bench/{size}")
            return rows + _rows("S3", {size: Memo(f"s3://bench/{size}") for size in SIZES}, repeats)


def _rows(where: str, memos: dict[int, Memo], repeats: int) -> list[Row]:
    measured_s: dict[tuple[str, int], list[float]] = {}
    for repeat in range(repeats):
        for size, memo in memos.items():
            fresh = Memo(memo.location)
            for name, seconds in _operations(fresh, size, f"{where} {repeat}"):
                measured_s.setdefault((name, size), []).append(seconds)
    small = min(memos)
    return [
        compared(
            f"{where}, {name}, {size:,} records against {small}",
            measured_s[name, size],
            measured_s[name, small],
            target=0.5,
        )
        for name in ("commit", "look-up", "fetch")
        for size in memos
        if size != small
    ]


def _operations(memo: Memo, size: int, repeat: str) -> Iterator[tuple[str, float]]:
    """Median seconds of each operation."""
    digest = memo.put_state(_STATE)
    new = [_record(f"new {repeat} {k}", digest) for k in range(_PROBES)]
    yield "commit", median(_seconds(lambda r=record: memo.commit(r)) for record in new)
    other = Memo(memo.location)
    other.find(_name("warm"))  # lists the segments once
    step = max(1, size // _PROBES)
    names = [_name(k) for k in range(0, size, step)][:_PROBES]
    yield "look-up", median(_seconds(lambda n=name: other.find(n)) for name in names)
    yield "fetch", median(_seconds(lambda r=record: other.state_of(r)) for record in new)


def _seconds(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _fill(memo: Memo, size: int) -> None:
    """Records as a study leaves them: compacted, but for the last few hundred."""
    digest = memo.put_state(_STATE)
    for k in range(size):
        memo.commit(_record(k, digest))
        if k % 20_000 == 19_999 or k == size - 200:
            memo.compact()


def _copy(folder: Path, url: str) -> None:
    """A memo's files into a bucket, as they are: committing 100,000 records there would take ten minutes."""
    store = from_url(url)
    for path in folder.rglob("*"):
        if path.is_file():
            obstore.put(store, path.relative_to(folder).as_posix(), path)


def _record(key: object, state: str) -> Record:
    return Record(
        lineage=_name(key), parent=_name(f"parent of {key}"), root=_name("root"), epoch=0, settings=_name("settings"), state=state,
        diverged=False, metrics={"train_loss": 0.5, "val_loss": 0.5, "val_accuracy": 0.9}, batch_size=32, updates=10,
        examples=320, train_s=1.0, eval_s=0.1, state_s=0.01, device_kind="cpu: a", device_share=1.0, device_s=1.1, host="here",
        created_at=time.time(), origin={"study": "s", "run": 0, "trial": str(key)},
    )  # fmt: skip


def _name(key: object) -> str:
    return blake2b(str(key).encode(), digest_size=16).hexdigest()


@contextmanager
def _moto() -> Iterator[None]:
    """A moto server on a free port of the loopback, with a bucket; ended by its own id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["moto_server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        for _ in range(200):
            with suppress(URLError, ConnectionError):
                urlopen(f"{endpoint}/moto-api/", timeout=2).close()
                break
            time.sleep(0.1)
        urlopen(Request(f"{endpoint}/bench", method="PUT"), timeout=10).close()
        os.environ |= {
            "AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }  # fmt: skip
        yield
    finally:
        server.terminate()
        server.wait(timeout=20)
