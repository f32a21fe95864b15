"""Whether a node has room for Ray and for trials: shared memory, disk, open files, and a temporary folder of its own."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrstudy.doctor.findings import Finding
from lrstudy.doctor.nodes import Answer

_MB = 2**20
SHM_WARN_BYTES, SHM_FAIL_BYTES = 256 * _MB, 100 * _MB
"""Ray's object store lies in shared memory, of which lrstudy's own Ray takes 100 MiB; Docker gives 64 MiB by default."""
DISK_WARN_BYTES, DISK_FAIL_BYTES = 5 * 2**30, 512 * _MB
"""Ray stops spilling and warns once a disk is 95% full; decoded images and states take what the study asks for."""
FILES_WARN, FILES_FAIL = 4096, 1024
"""A Ray node opens some hundred files and sockets, and some more for every worker."""


def measure() -> dict[str, Any]:
    """Free bytes of shared memory and of the temporary folder, the limit of open files, and whose Ray's folder is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shm, ray_folder = Path("/dev/shm"), Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray")
    return {
        "shm_bytes": shutil.disk_usage(shm).free if shm.is_dir() else None,
        "disk": str(ray_folder.parent),
        "disk_bytes": shutil.disk_usage(ray_folder.parent).free if ray_folder.parent.is_dir() else 0,
        "files": _number(soft),
        "most_files": _number(hard),
        "ray_folder": str(ray_folder),
        "is_writable": not ray_folder.exists() or os.access(ray_folder, os.W_OK | os.X_OK),
    }


def judge(answers: Sequence[Answer]) -> list[Finding]:
    """Findings for every node that answered."""
    return [finding for answer in answers if not answer.error for finding in _judge(answer.node.name, answer.value)]


def _judge(node: str, found: dict[str, Any]) -> list[Finding]:
    findings = []
    if found["shm_bytes"] is not None:
        advice = "Give the container more (docker run --shm-size=1g; in Kubernetes an emptyDir of medium Memory at /dev/shm)."
        findings.append(_sized(node, "/dev/shm", found["shm_bytes"], SHM_WARN_BYTES, SHM_FAIL_BYTES, advice))
    advice = f"Free space in {found['disk']}, or name another folder of this node as RAY_TMPDIR."
    findings.append(_sized(node, "disk", found["disk_bytes"], DISK_WARN_BYTES, DISK_FAIL_BYTES, advice))
    files, most = found["files"], found["most_files"]
    status = "fail" if files < FILES_FAIL else "warn" if files < FILES_WARN else "ok"
    raise_it = "Before the node is started: ulimit -n " + (
        "$(ulimit -Hn)." if most > files else "65536, which root has to allow."
    )
    findings.append(Finding(node, "open files", status, f"{files:,} at most", "" if status == "ok" else raise_it))  # type: ignore[arg-type]
    if not found["is_writable"]:
        text = f"{found['ray_folder']} belongs to another user: no Ray of this one can start"
        advice = "export RAY_TMPDIR=FOLDER, a short path of a folder of your own on this node."
        findings.append(Finding(node, "Ray's folder", "fail", text, advice))
    return findings


def _sized(node: str, check: str, free: int, warn: int, fail: int, advice: str) -> Finding:
    measured = f"{free / 2**30:.1f} GiB free"
    if free >= warn:
        return Finding(node, check, "ok", measured)
    return Finding(node, check, "fail" if free < fail else "warn", measured, advice)


def _number(limit: int) -> int:
    return 2**31 if limit == resource.RLIM_INFINITY else limit
