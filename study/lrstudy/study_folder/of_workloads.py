"""The folder of a study file with a map of workloads: the study of each lies in a folder below it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from lrstudy.errors import Fault, InputError, StorageError
from lrstudy.study_folder.replace_file import replacing

INDEX = "workloads.json"
"""Says that a folder is one, which workloads the file had in the last run, and which it had before and has no longer."""
_WAY_OUT = "Choose another name with --as NAME (training they share is still recalled), or another storage.path."


def write(folder: Path, text: str, name: str, workloads: Sequence[str]) -> None:
    """Write what a run of these workloads leaves here: the index, and the study file's `text`.

    Raises InputError if something else lies in the folder, StorageError if it cannot be written.
    """
    if (folder / "study.lock.json").exists():
        raise InputError(Fault("storage.path", f"{folder} holds a study without `workloads`", advice=_WAY_OUT))
    known = read(folder)
    if not known and folder.is_dir() and any(not child.name.startswith(".") for child in folder.iterdir()):
        problem = f"{folder} exists and is no study's folder (it has no {INDEX})"
        raise InputError(Fault("storage.path", problem, advice=_WAY_OUT))
    earlier = [workload for workload in known if workload not in workloads]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in (("study.yaml", text), (INDEX, _rendered(name, workloads, earlier))):
            with replacing(folder / file) as fresh:
                fresh.write_text(content, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"storage.path: cannot write in {folder}: {error.strerror}.") from error


def read(folder: Path) -> tuple[str, ...]:
    """All workloads of all runs; () if the folder is none of such a file, or its index cannot be read."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return tuple(str(workload) for workload in (*index["workloads"], *index["earlier"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def root(folder: Path) -> Path:
    """The folder of all studies, from that of one of them."""
    return folder.parents[1] if (folder.parent / INDEX).is_file() else folder.parent


def name(folder: Path) -> str:
    """The name of a study, from its folder: ``derm``, or of one of several workloads ``derm/faces``."""
    return folder.relative_to(root(folder)).as_posix()


def folders(root: Path) -> Iterator[Path]:
    """The folders below that of all studies which may be a study's, those of workloads included."""
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        if (folder / INDEX).is_file():
            yield from sorted(path for path in folder.iterdir() if path.is_dir())
        else:
            yield folder


def _rendered(name: str, workloads: Sequence[str], earlier: Sequence[str]) -> str:
    index = {"format": 1, "name": name, "workloads": list(workloads), "earlier": list(earlier)}
    return json.dumps(index, indent=1, ensure_ascii=False)
