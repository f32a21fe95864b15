"""Whether all nodes share the storage: each writes an object that every other one reads back, and then deletes its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from lrstudy.doctor.findings import Finding
from lrstudy.doctor.nodes import Answer, EveryNode, Node
from lrstudy.memo.objects import ObjectStore

CHECK = "storage"
_FOLDER = "doctor"
_PATIENCE_S = 5.0
"""How long a file may take to appear on another node: NFS asks its server again after 3 s, by default."""
_TIMEOUT_S = 60.0


def write(location: str, run: str) -> tuple[str, float]:
    """Write an object of a name that nobody else has. Returns the name and the seconds that it took.

    Raises StorageError if the storage does not take it, and FileNotFoundError if its folder does not exist: on a node that
    does not share it, it would be made.
    """
    if "://" not in location and not Path(location).is_dir():
        raise FileNotFoundError(f"there is no folder {location}")
    name, begun = f"{_FOLDER}/{run}-{uuid4().hex}", time.monotonic()
    ObjectStore(location).create(name, name.encode())
    return name, time.monotonic() - begun


def unseen(location: str, names: Sequence[str]) -> list[str]:
    """Those of the objects that cannot be read here, or hold something else. Raises StorageError."""
    store, end = ObjectStore(location), time.monotonic() + _PATIENCE_S
    missing = list(names)
    while missing := [name for name in missing if store.get(name) != name.encode()]:
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    return missing


def delete(location: str, names: Sequence[str]) -> bool:
    """Delete objects that were written here. Returns whether they are gone. Raises StorageError."""
    store = ObjectStore(location)
    for name in names:
        store.delete(name)
    if "://" not in location and not any(Path(location, _FOLDER).iterdir()):
        Path(location, _FOLDER).rmdir()
    return not any(store.get(name) for name in names)


def check(everywhere: EveryNode, location: str, only: Sequence[Node] | None = None) -> list[Finding]:
    """One finding per node: whether it writes, sees what all others wrote, and deletes.

    Args:
        everywhere: Runs functions on all nodes.
        location: The storage: a folder, or a URL.
        only: The nodes to ask; by default all.
    """
    run = uuid4().hex[:8]
    wrote = everywhere(write, location, run, timeout_s=_TIMEOUT_S, only=only)
    names = {answer.node: answer.value[0] for answer in wrote if not answer.error}
    findings = [_cannot(answer, location) for answer in wrote if answer.error]
    read = everywhere(unseen, location, list(names.values()), timeout_s=_TIMEOUT_S, only=list(names)) if names else []
    took_s = {answer.node: answer.value[1] for answer in wrote if not answer.error}
    for answer in read:
        findings.append(_seen(answer, {name: node for node, name in names.items()}, location, took_s[answer.node]))
    for node, name in names.items():
        (deleted,) = everywhere(delete, location, [name], timeout_s=_TIMEOUT_S, only=[node])
        if deleted.error or not deleted.value:
            findings.append(
                Finding(
                    node.name, CHECK, "fail", f"cannot delete in {location}: {deleted.error or 'it is still there'}"
                )
            )
    return findings


def _cannot(answer: Answer, location: str) -> Finding:
    advice = f"Every node needs write access to {location} (storage.path): mount it there, or name a bucket."
    return Finding(answer.node.name, CHECK, "fail", f"cannot write in {location}: {answer.error}", advice)


def _seen(answer: Answer, writers: dict[str, Node], location: str, took_s: float) -> Finding:
    """The finding of a node that wrote an object, from what it sees of the others'."""
    node = answer.node.name
    if answer.error:
        return Finding(node, CHECK, "fail", f"cannot read in {location}: {answer.error}")
    if answer.value:
        others = ", ".join(sorted({writers[name].name for name in answer.value}))
        return Finding(
            node,
            CHECK,
            "fail",
            f"{location} is not shared: what {others} wrote there is not seen here",
            "storage.path must lead to the same folder on every node (a network file system), or name a bucket.",
        )
    shared = f"; sees what all {len(writers)} nodes wrote" if len(writers) > 1 else ""
    return Finding(node, CHECK, "ok", f"writes, reads and deletes in {location} ({took_s * 1000:.0f} ms){shared}")
