"""How slow the files are that a worker needs: the environment that it imports from, and the storage.

A worker imports lrstudy and torch when it starts, and Ray's own agents import a thousand modules. From a shared file system
under load that takes minutes, and a raylet gives up after a fixed 15 s of waiting for its agents.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from lrstudy import child_process
from lrstudy.doctor.findings import Finding
from lrstudy.doctor.nodes import Answer
from lrstudy.memo.objects import ObjectStore

IMPORTS = {"lrstudy": "lrstudy.study", "torch": "torch", "Ray's agent": "ray.dashboard.agent"}
RAYLET_WAITS_S = 15.0
IMPORT_WARN_S, AGENT_WARN_S = 20.0, 5.0
"""Seconds in a fresh process. The agent's stands against the raylet's 15 s, of which starting and loaded cores take a share."""
FILE_WARN_S, OBJECT_WARN_S = 0.01, 0.2
"""Seconds to create, look up and remove one small file; to create, read and delete one small object."""
WARN_BYTES_PER_S = 20e6
_NUM_FILES, _NUM_OBJECTS, _LARGE_BYTES = 200, 20, 8 * 2**20
_TIMEOUT_S = 300.0
_ADVICE = (
    "Put the environment on the nodes' own disks (an archive unpacked when the job starts), or in an Apptainer image, which is "
    "one file; the storage may stay where it is."
)


def measure_environment() -> dict[str, Any]:
    """Seconds of imports in fresh processes, first and again, and the speed of the folder that they come from."""
    folder = Path(sysconfig.get_paths()["purelib"])
    _forget(folder / "torch" / "lib")
    imports = {name: [_import(module), _import(module)] for name, module in IMPORTS.items()}
    place = folder if os.access(folder, os.W_OK) else None
    return {
        "folder": sys.prefix,
        "imports": imports,
        "file_s": place and _small_files(place),
        "bytes_per_s": _read(folder),
    }


def measure_storage(location: str) -> dict[str, float]:
    """Seconds per small object and bytes per second of a large one, written and read back. Raises StorageError."""
    store, run = ObjectStore(location), f"doctor/{uuid4().hex}"

    def small() -> None:
        for number in range(_NUM_OBJECTS):
            store.create(f"{run}-{number}", b"x")
            store.get(f"{run}-{number}")
            store.delete(f"{run}-{number}")

    def large() -> None:
        store.create(run, content)
        store.sync(run)

    took_s, content = _timed(small), os.urandom(_LARGE_BYTES)
    try:
        write_s, read_s = _timed(large), _timed(lambda: store.get(run))
    finally:
        store.delete(run)
        with suppress(OSError):
            Path(location, "doctor").rmdir()
    return {"object_s": took_s / _NUM_OBJECTS, "write": _LARGE_BYTES / write_s, "read": _LARGE_BYTES / read_s}


def judge_environment(answers: Sequence[Answer]) -> list[Finding]:
    """Findings for every node that answered."""
    return [finding for answer in answers if not answer.error for finding in _judge(answer.node.name, answer.value)]


def _judge(node: str, found: dict[str, Any]) -> list[Finding]:
    findings = []
    for name, seconds in found["imports"].items():
        if None in seconds:
            findings.append(Finding(node, f"import {name}", "fail", "it cannot be imported", "Repair the environment."))
            continue
        first_s, again_s = seconds
        is_slow = first_s > (AGENT_WARN_S if name == "Ray's agent" else IMPORT_WARN_S)
        text = f"{first_s:.1f} s, and {again_s:.1f} s again"
        if is_slow and name == "Ray's agent":
            text += f"; a raylet waits {RAYLET_WAITS_S:.0f} s for it"
        findings.append(Finding(node, f"import {name}", "warn" if is_slow else "ok", text, _ADVICE if is_slow else ""))
    file_s, speed = found["file_s"], found["bytes_per_s"]
    text = "read-only" if file_s is None else f"{file_s * 1000:.2f} ms to make and remove a small file"
    is_slow = (file_s or 0.0) > FILE_WARN_S or speed < WARN_BYTES_PER_S
    text = f"{found['folder']}: {text}, reads {speed / 1e6:,.0f} MB/s"
    findings.append(Finding(node, "environment", "warn" if is_slow else "ok", text, _ADVICE if is_slow else ""))
    return findings


def judge_storage(answers: Sequence[Answer]) -> list[Finding]:
    """One finding for every node that answered."""
    findings = []
    for answer in answers:
        if answer.error:
            continue  # the check of the storage has said so
        found = answer.value
        text = (
            f"{found['object_s'] * 1000:.1f} ms per small object, writes {found['write'] / 1e6:,.0f} MB/s, "
            f"reads {found['read'] / 1e6:,.0f} MB/s"
        )
        is_slow = found["object_s"] > OBJECT_WARN_S or min(found["write"], found["read"]) < WARN_BYTES_PER_S
        advice = (
            "Trials that recall or store much will wait for it: choose a faster place for storage.path."
            if is_slow
            else ""
        )
        findings.append(Finding(answer.node.name, "storage speed", "warn" if is_slow else "ok", text, advice))
    return findings


def _import(module: str) -> float | None:
    """Seconds until a fresh process has imported a module and ended; None if it cannot."""
    begun = time.monotonic()
    done = child_process.run_python(["-c", f"import {module}"], timeout_s=_TIMEOUT_S)
    return time.monotonic() - begun if done.returncode == 0 else None


def _small_files(folder: Path) -> float:
    """Seconds to create, look up and remove one small file there."""
    with tempfile.TemporaryDirectory(prefix=".lrstudy-doctor-", dir=folder) as place:

        def work() -> None:
            for number in range(_NUM_FILES):
                path = Path(place, str(number))
                path.write_bytes(b"x")
                path.stat()
                path.unlink()

        return _timed(work) / _NUM_FILES


def _read(folder: Path) -> float:
    """Bytes per second of reading some large library of an environment, which the system was asked to forget before."""
    libraries = [path for path in (folder / "torch" / "lib").glob("*.so*") if path.stat().st_size > _LARGE_BYTES]
    largest = max(libraries, key=lambda path: path.stat().st_size, default=Path(sys.executable))
    _forget(largest.parent)
    with largest.open("rb", buffering=0) as file:
        content: list[bytes] = []
        seconds = _timed(lambda: content.append(file.read(4 * _LARGE_BYTES)))
    return len(content[0]) / max(seconds, 1e-9)


def _forget(folder: Path) -> None:
    """Ask the system to drop the files of a folder from its cache, so that they are read anew; it may not."""
    for path in folder.glob("*.so*"):
        with suppress(OSError, AttributeError), path.open("rb") as file:  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun
