"""Replacing a file atomically: a reader sees its old content or its new one, never a part of either."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path, *, has_one_writer: bool = False, durable: bool = False) -> Iterator[Path]:
    """Give a path to write new content to; on leaving the block that takes the place of `path`.

    If the block raises, the file stays as it is and what was written is removed. A killed process leaves it beside the
    file, under a hidden name.

    Args:
        path: The file, in a folder that exists; it need not exist itself.
        has_one_writer: Whether no two processes ever write it at once. They then share one hidden name, so that what a
            killed one left goes with the next replacement; otherwise each process has its own.
        durable: Whether to flush the content to the disk before it takes its place. Otherwise the file may be empty or
            torn after a power failure.

    Yields:
        The path to write to, in the same folder.
    """
    fresh = path.with_name(f".{path.name}.{'fresh' if has_one_writer else os.getpid()}")
    try:
        yield fresh
        if durable:
            with fresh.open("rb+") as file:
                os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
