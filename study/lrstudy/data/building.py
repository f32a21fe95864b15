"""Building a cache entry: by one process at a time, resuming where an interrupted one stopped.

An entry is built in `.building/<key>/` and then renamed, so a reader sees a complete entry or none. The process that
builds holds a lock, which the operating system releases if the process dies; other processes wait and then find the
entry.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from lrstudy.data.cells import POOL, TEST, VALIDATION
from lrstudy.data.decoding import decoded
from lrstudy.data.image_file import PROGRESS, ImageFile
from lrstudy.data.labels import encode
from lrstudy.data.sources.base import SOURCES, Source
from lrstudy.data.spec import ByColumn, DataSpec, SplitSpec
from lrstudy.errors import Fault, InputError, StorageError, unknown

log = logging.getLogger(__name__)

FOLDER = ".building"
_MOST_NAMES = 5
"""Names or sizes that a message lists at most."""
_REPORT_EVERY_S = 10.0
_ABANDONED_S = 7 * 24 * 3600
"""An unfinished build of this age is removed: its source has changed since, or nobody needs it any more."""


@contextmanager
def alone(entry: Path, why: str) -> Iterator[Path]:
    """The folder in which to build `entry`, locked by this process; logs a line and waits while another one holds it.

    Raises InputError, which begins with `why`, if the cache folder cannot be written.
    """
    building = entry.parent / FOLDER / entry.name
    try:
        building.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(building.with_suffix(".lock"), mode=0o666)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("Another process is decoding this data; waiting for it.")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its file system has no locks: mount it with them"
        raise InputError(
            Fault("data", f"{why}, but the cache folder {entry.parent} cannot be written ({reason})")
        ) from None
    try:
        yield building
    finally:
        lock.release()


def build(source: Source, spec: DataSpec, building: Path, entry: Path, describe: Callable[..., dict[str, Any]]) -> None:
    """Decode a source into the folder `building`, resuming what a killed process left there, and rename it to `entry`.

    Args:
        source: The source, which `spec` describes.
        spec: How to decode the images, and which label, groups and parts to take.
        building: The folder that `alone` has locked; it may not exist yet.
        entry: The folder of the finished entry, on the same file system; must not exist.
        describe: Called with the folder and the names of classes and groups; returns the content of meta.json.

    Raises:
        InputError: Something is wrong with the data.
        StorageError: The disk is full. Whatever has been decoded is kept.
    """
    _remove_abandoned(building.parent)
    try:
        meta = describe(building, *_write_arrays(source, spec, building))
        _save(building / "meta.json", json.dumps(meta, indent=1).encode())
        (building / PROGRESS).unlink()
        os.rename(building, entry)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"storage.path: cannot keep the decoded data in {entry.parent}: {error.strerror}. "
                "What is decoded stays; free space, then run the same command again."
            ) from error
        if error.errno:
            raise  # a failing machine; pyarrow raises OSError without a number for damaged data
        raise _unreadable(spec, error) from error
    except (InputError, StorageError, MemoryError):
        raise
    except Exception as error:
        raise _unreadable(spec, error) from error


def _unreadable(spec: DataSpec, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(Fault("data", f"{spec.source} cannot be read ({type(error).__name__}: {reason})"))


def _write_arrays(source: Source, spec: DataSpec, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write images.npy, labels.npy, part.npy, group.npy and sources.json; return the names of classes and groups.

    Raises InputError for labels that are not classes, images that do not decode (all are tried, so that the message can
    count them), and images of different sizes if `spec.image.size` is None.
    """
    rows, parts = source.labels()
    labels, classes = encode(rows, spec.label)
    groups, group_names = _groups(source, spec, len(rows))
    folder.mkdir(exist_ok=True)
    _write_images(source, spec, folder, len(labels))
    names = source.names()
    assert len(names) == len(labels), f"{len(labels)} labels, {len(names)} names"
    _save(folder / SOURCES, json.dumps(names, ensure_ascii=False).encode())
    part = parts_by_column(source, spec.split, np.array(parts, dtype=np.uint8))
    for name, array in (("labels", labels), ("part", part), ("group", groups)):
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, array)
            _flush_to_disk(file)
    return classes, group_names


def _write_images(source: Source, spec: DataSpec, folder: Path, num_images: int) -> None:
    """Decode the images that images.npy does not hold yet, and append them. Raises InputError, see `_write_arrays`."""
    file = ImageFile(folder, num_images)
    if file.written:
        log.info(f"Decoding goes on at image {file.written:,} of {num_images:,}.")
    remaining = islice(source.images(), file.written, None)
    writer, progress = _ImageWriter(file, num_images), _Progress(spec.source, file.written, num_images)
    try:
        for name, pixels in decoded(remaining, spec.image, file.shape[0] if file.shape else None):
            writer.add(name, pixels)
            progress.report(writer.num_seen)
    finally:
        file.close()
    if faults := writer.faults():
        shutil.rmtree(folder)  # correcting the data or image.size changes the key: nobody would resume this
        raise InputError(faults)


class _Progress:
    """Logs every few seconds how far decoding is and how long it will take."""

    def __init__(self, source: str, num_before: int, num_images: int) -> None:
        self._source, self._num_before, self._num_images = source, num_before, num_images
        self._begun = self._reported = time.monotonic()

    def report(self, num_seen: int) -> None:
        """Log a line if the last one is old enough."""
        now = time.monotonic()
        if now - self._reported > _REPORT_EVERY_S:
            self._reported = now
            left_s = (self._num_images - num_seen) * (now - self._begun) / (num_seen - self._num_before)
            log.info(
                f"Decoding {self._source}: {num_seen:,} of {self._num_images:,} images, about {left_s:.0f} s left."
            )


class _ImageWriter:
    """Appends images to the file until one cannot be written; counts the faults of all of them."""

    def __init__(self, file: ImageFile, num_images: int) -> None:
        self._file, self._num_images = file, num_images
        self.num_seen = file.written
        self._num_failed = 0
        self._failed: list[str] = []
        self._shapes: Counter[tuple[int, ...]] = Counter({file.shape: file.written} if file.shape else {})

    def add(self, name: str, pixels: NDArray[np.uint8] | str) -> None:
        """Take the next image, or the reason why it could not be decoded."""
        self.num_seen += 1
        if isinstance(pixels, str):
            self._num_failed += 1
            if len(self._failed) < _MOST_NAMES:
                self._failed.append(f"{name} ({pixels})")
            return
        self._shapes[pixels.shape] += 1
        if len(self._shapes) == 1 and not self._num_failed:
            self._file.append(pixels)

    def faults(self) -> list[Fault]:
        """Why not every image was written; empty if all were."""
        assert self.num_seen == self._num_images, f"{self._num_images} labels, {self.num_seen} images"
        problems = [self._undecodable(), self._unequal()]
        return [Fault("data", problem) for problem in problems if problem]

    def _undecodable(self) -> str:
        if not self._num_failed:
            return ""
        num_others = self._num_failed - len(self._failed)
        names = ", ".join(self._failed) + (f" and {num_others} more" if num_others else "")
        return f"{self._num_failed} of {self._num_images} images cannot be decoded: {names}"

    def _unequal(self) -> str:
        sizes = [f"{width} x {height} ({n})" for (_, height, width), n in self._shapes.most_common(_MOST_NAMES)]
        if len(self._shapes) > 1:
            more = ", ..." if len(self._shapes) > len(sizes) else ""
            shown = ", ".join(sizes) + more
            return f"images are stored in {len(self._shapes)} sizes ({shown}); set image.size to give all the same"
        return ""


def parts_by_column(source: Source, split: SplitSpec, parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of the source's parts, uint8 (N,), in which the parts that a split takes from a column follow that column.

    If any part goes by a column, the source's own assignment is kept only for parts that the split takes as `given`.
    Raises InputError for a column or value that does not exist, or an example that would be in both parts.
    """
    parts = parts.copy()
    fractions = {"test": (split.test, TEST), "validation": (split.validation, VALIDATION)}
    if any(isinstance(fraction, ByColumn) for fraction, _ in fractions.values()):
        for fraction, part in fractions.values():
            if fraction != "given":
                parts[parts == part] = POOL
    for name, (fraction, part) in fractions.items():
        if isinstance(fraction, ByColumn):
            _assign_by_column(source, name, fraction, part, parts)
    return parts


def _assign_by_column(source: Source, name: str, chosen_by: ByColumn, part: int, parts: NDArray[np.uint8]) -> None:
    """Set `parts`, in place, to `part` (called `name`) where the column has the value. Raises InputError."""
    values = np.array(source.column(chosen_by.column))
    is_chosen = values == chosen_by.value
    field = f"split.{name}"
    if not is_chosen.any():
        raise InputError(unknown(field, f"value of {chosen_by.column}", chosen_by.value, sorted(set(values))[:20]))
    if num_taken := int((parts[is_chosen] != POOL).sum()):
        other = "test" if part == VALIDATION else "validation"
        raise InputError(
            Fault(
                field,
                f"{num_taken} of the {int(is_chosen.sum())} examples whose {chosen_by.column} is {chosen_by.value} are "
                f"in the {other} part as well",
            )
        )
    parts[is_chosen] = part


def _groups(source: Source, spec: DataSpec, num_examples: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Each example's group as an index into the sorted names of groups; -1 and no names without a group column."""
    if spec.group_column is None:
        return np.full(num_examples, -1, dtype="<i8"), ()
    values = source.column(spec.group_column)
    if num_missing := values.count(""):
        raise InputError(
            Fault(
                "data",
                f"{num_missing} of {num_examples} rows have no {spec.group_column} (the first is row "
                f"{values.index('')}); give each a group of its own, or leave these rows out",
            )
        )
    names, numbers = np.unique(np.array(values), return_inverse=True)
    return numbers.astype("<i8"), tuple(names.tolist())


def _remove_abandoned(folder: Path) -> None:
    """Remove what interrupted builds left long ago, unless a process has it locked."""
    for old in folder.iterdir():
        with suppress(Timeout, OSError):  # locked, or renamed in this moment
            newest = max((path.stat().st_mtime for path in old.glob("*")), default=old.stat().st_mtime)
            if old.is_dir() and time.time() - newest > _ABANDONED_S:
                with FileLock(old.with_suffix(".lock"), timeout=0):
                    shutil.rmtree(old)


def _save(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        _flush_to_disk(file)


def _flush_to_disk(file: IO[bytes]) -> None:
    """After a crash the entry must not be there without its content, so this comes before the rename."""
    file.flush()
    os.fsync(file.fileno())
