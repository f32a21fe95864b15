"""Reading the folders and files that sources consist of."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lrstudy.data.cells import PART_NAMES
from lrstudy.errors import Fault, InputError


def given_parts(folder: Path, names: list[str], ending: str) -> list[tuple[str, int]]:
    """Those of `names` that denote a part, each with its part, pool first. Raises InputError if two denote the same.

    `ending` is appended to names in the message.
    """
    name_of_part: dict[int, str] = {}
    for name in names:
        part = PART_NAMES.get(name.lower())
        if part is None:
            continue
        if part in name_of_part:
            both = " and ".join(f"{each}{ending}" for each in (name_of_part[part], name))
            raise InputError(Fault("data", f"{folder} has both {both}; keep one of them"))
        name_of_part[part] = name
    return [(name_of_part[part], part) for part in sorted(name_of_part)]


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name, without hidden ones. Raises InputError if it cannot be read."""
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
    """Path relative to `root`, size in bytes and modification time in ns of each file. Raises InputError."""
    rows: list[list[object]] = []
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise InputError(Fault("data", f"{file} cannot be read ({error.strerror})")) from None
        rows.append([file.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns])
    return rows
