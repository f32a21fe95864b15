"""Folders and files that sources are made of."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lrstudy.data.cells import PART_NAMES
from lrstudy.errors import Fault, InputError


def given_parts(folder: Path, names: list[str], ending: str) -> list[tuple[str, int]]:
    """Those of `names` that are parts, the pool first. Raises InputError if two mean the same one."""
    found: dict[int, str] = {}
    for name in names:
        part = PART_NAMES.get(name.lower())
        if part is not None and part in found:
            both = " and ".join(f"{each}{ending}" for each in (found[part], name))
            raise InputError(Fault("data", f"{folder} has both {both}; keep one of them"))
        if part is not None:
            found[part] = name
    return [(found[part], part) for part in sorted(found)]


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, without hidden entries."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except FileNotFoundError:
        raise InputError(Fault("data", f"there is no folder {folder}")) from None
    except NotADirectoryError:
        raise InputError(Fault("data", f"{folder} is a file; expected a folder")) from None
    except OSError as error:
        raise InputError(Fault("data", f"the folder {folder} cannot be read ({error.strerror})")) from None


def stat(root: Path, files: Iterable[Path]) -> list[list[object]]:
    """Path relative to `root`, size and modification time (ns) of each file."""
    rows: list[list[object]] = []
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise InputError(Fault("data", f"{file} cannot be read ({error.strerror})")) from None
        rows.append([file.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns])
    return rows
