"""Building a cache entry: by one process at a time, and where the last one stopped.

An entry is built in `.building/<key>/` and renamed into its place, so a reader sees a whole entry or none. Who builds holds
a lock that the system takes back when the process dies; others wait, and find the entry there.
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
from lrstudy.data.sources.base import Source
from lrstudy.data.spec import ByColumn, DataSpec, SplitSpec
from lrstudy.errors import Fault, InputError, StorageError, unknown

log = logging.getLogger(__name__)

FOLDER = ".building"
_MOST_NAMES = 5
_SAY_EVERY_S = 10.0
_ABANDONED_S = 7 * 24 * 3600
"""What was left by a build so long ago is removed: its source has changed since, or nobody wants it any more."""


@contextmanager
def alone(entry: Path, why: str) -> Iterator[Path]:
    """The folder to build `entry` in, held by this process; waits, saying so, while another one holds it.

    Raises InputError if nothing can be written there; `why` says what for.
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
    except OSError as error:
        raise InputError(
            Fault("data", f"{why}, but the cache folder {entry.parent} cannot be written ({error.strerror})")
        ) from None
    try:
        yield building
    finally:
        lock.release()


def build(source: Source, spec: DataSpec, building: Path, entry: Path, describe: Callable[..., dict[str, Any]]) -> None:
    """Decode a source in `building`, taking up what a killed process left there, and rename that to `entry`.

    `describe` gives the content of meta.json from the folder and the names of classes and groups. Raises InputError for
    what is wrong with the data, StorageError if the disk is full; what is decoded is then kept.
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
                f"storage.path: cannot keep the decoded data in {entry.parent}: {error.strerror}. What is decoded stays; free space, "
                "then run the same command again."
            ) from error
        if error.errno:
            raise  # the machine's fault; what has no number is pyarrow's, and the data's
        raise _unreadable(spec, error) from error
    except (InputError, StorageError, MemoryError):
        raise
    except Exception as error:
        raise _unreadable(spec, error) from error


def _unreadable(spec: DataSpec, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(Fault("data", f"{spec.source} cannot be read ({type(error).__name__}: {reason})"))


def _write_arrays(source: Source, spec: DataSpec, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write images.npy, labels.npy, part.npy and group.npy; return the names of classes and groups.

    Raises InputError for labels that are no classes, images that do not decode (all are tried, so that the message can
    count them), and images of different sizes or not square if `spec.image.size` is None.
    """
    rows, parts = source.labels()
    labels, classes = encode(rows, spec.label)
    groups, names = _groups(source, spec, len(rows))
    folder.mkdir(exist_ok=True)
    _write_images(source, spec, folder, len(labels))
    part = parts_by_column(source, spec.split, np.array(parts, dtype=np.uint8))
    for name, array in (("labels", labels), ("part", part), ("group", groups)):
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, array)
            _to_disk(file)
    return classes, names


def _write_images(source: Source, spec: DataSpec, folder: Path, count: int) -> None:
    file = ImageFile(folder, count)
    begun, said, before = time.monotonic(), time.monotonic(), file.written
    if before:
        log.info(f"Decoding goes on at image {before:,} of {count:,}.")
    remaining = islice(source.images(), before, None)
    check = _Check(count, file)
    try:
        for name, pixels in decoded(remaining, spec.image, file.shape[0] if file.shape else None):
            check.take(name, pixels)
            if time.monotonic() - said > _SAY_EVERY_S:
                said = time.monotonic()
                left_s = (count - check.arrived) * (said - begun) / (check.arrived - before)
                log.info(f"Decoding {spec.source}: {check.arrived:,} of {count:,} images, about {left_s:.0f} s left.")
    finally:
        file.close()
    try:
        check.finish()
    except InputError:
        shutil.rmtree(folder)  # whatever mends the data also gives it another name
        raise


class _Check:
    """Hands images on to the file and remembers those that cannot be written."""

    def __init__(self, count: int, file: ImageFile) -> None:
        self._count, self._file = count, file
        self.arrived = file.written
        self._num_failed = 0
        self._failed: list[str] = []
        self._shapes: Counter[tuple[int, ...]] = Counter({file.shape: file.written} if file.shape else {})

    def take(self, name: str, pixels: NDArray[np.uint8] | str) -> None:
        """The next image, or why there is none."""
        self.arrived += 1
        if isinstance(pixels, str):
            self._num_failed += 1
            self._failed += [f"{name} ({pixels})"] if len(self._failed) < _MOST_NAMES else []
            return
        self._shapes[pixels.shape] += 1
        if len(self._shapes) == 1 and not self._num_failed:
            self._file.append(pixels)

    def finish(self) -> None:
        """Raise InputError unless every image was written."""
        assert self.arrived == self._count, f"{self._count} labels, {self.arrived} images"
        faults: list[Fault] = []
        if self._num_failed:
            others = self._num_failed - len(self._failed)
            names = ", ".join(self._failed) + (f" and {others} more" if others else "")
            problem = f"{self._num_failed} of {self._count} images cannot be decoded: {names}"
            faults.append(Fault("data", problem))
        sizes = [f"{width} x {height} ({n})" for (_, height, width), n in self._shapes.most_common(_MOST_NAMES)]
        if len(self._shapes) > 1:
            more = ", ..." if len(self._shapes) > len(sizes) else ""
            problem = f"images are stored in {len(self._shapes)} sizes ({', '.join(sizes)}{more})"
            faults.append(Fault("data", f"{problem}; set image.size to give all the same"))
        elif any(height != width for _, height, width in self._shapes):
            problem = f"images are not square but {sizes[0]}; set image.size to make them square"
            faults.append(Fault("data", problem))
        if faults:
            raise InputError(faults)


def parts_by_column(source: Source, split: SplitSpec, parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The given parts, where a split goes by a column replaced by what that says. Raises InputError."""
    parts = parts.copy()
    fractions = ((split.test, TEST), (split.validation, VALIDATION))
    if any(isinstance(fraction, ByColumn) for fraction, _ in fractions):
        for fraction, part in fractions:
            if fraction != "given":
                parts[parts == part] = POOL  # what the source says of a part that the study does not take is no matter
    for field_name, fraction, part in (("test", split.test, TEST), ("validation", split.validation, VALIDATION)):
        if not isinstance(fraction, ByColumn):
            continue
        values = np.array(source.column(fraction.column))
        chosen = values == fraction.value
        if not chosen.any():
            raise InputError(
                unknown(f"split.{field_name}", f"value of {fraction.column}", fraction.value, sorted(set(values))[:20])
            )
        if taken := int((parts[chosen] != POOL).sum()):
            other = "test" if part == VALIDATION else "validation"
            raise InputError(
                Fault(
                    f"split.{field_name}",
                    f"{taken} of the {int(chosen.sum())} examples whose {fraction.column} is {fraction.value} are in the "
                    f"{other} part as well",
                )
            )
        parts[chosen] = part
    return parts


def _groups(source: Source, spec: DataSpec, count: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The number of each example's group, and the groups' sorted names; -1 and none without a column."""
    if spec.group_column is None:
        return np.full(count, -1, dtype="<i8"), ()
    values = source.column(spec.group_column)
    if missing := values.count(""):
        raise InputError(
            Fault(
                "data",
                f"{missing} of {count} rows have no {spec.group_column} (the first is row {values.index('')}); "
                "give each a group of its own, or leave these rows out",
            )
        )
    names, numbers = np.unique(np.array(values), return_inverse=True)
    return numbers.astype("<i8"), tuple(names.tolist())


def _remove_abandoned(folder: Path) -> None:
    """Remove what builds left long ago, unless somebody holds it."""
    for old in folder.iterdir():
        with suppress(Timeout, OSError):  # held, or just now moved to its place
            newest = max((path.stat().st_mtime for path in old.glob("*")), default=old.stat().st_mtime)
            if old.is_dir() and time.time() - newest > _ABANDONED_S:
                with FileLock(old.with_suffix(".lock"), timeout=0):
                    shutil.rmtree(old)


def _save(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        _to_disk(file)


def _to_disk(file: IO[bytes]) -> None:
    """A rename must not outlive the bytes it publishes."""
    file.flush()
    os.fsync(file.fileno())
