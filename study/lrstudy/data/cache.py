"""The cache of decoded data: a data set as arrays on disk, looked up by the fingerprint of its source.

An entry `folder/<key>/` holds images.npy, labels.npy, part.npy, group.npy, sources.json and meta.json. The key covers the
source's fingerprint and how images are decoded; the digest covers only the content, and is what a lineage's root contains.
Entries of earlier versions have no sources.json, and need none.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy.data import fetching
from lrstudy.data.labels import Labels, class_counts
from lrstudy.data.open_source import open_source
from lrstudy.data.sources.base import SOURCES, Source
from lrstudy.data.sources.user_function import UserFunction
from lrstudy.data.spec import ByColumn, DataSpec
from lrstudy.models.image_size import Size, size_of
from lrstudy.settings import canonical_json

CACHE_VERSION = 4
"""Increment it whenever the same source and spec would be decoded to other bytes, or the layout of an entry changes."""

log = logging.getLogger(__name__)

_NAMED = ("images", "labels", "part")
"""Arrays that the digest covers. Groups act only through the split, which has its own digest."""
_ARRAYS = (*_NAMED, "group")
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class DataSet:
    """Decoded examples. Arrays are read-only.

    Args:
        images: uint8 (N, channels, height, width), a memory map.
        labels: int64 (N,), indices into `classes`; or uint8 0 and 1 of shape (N, classes) if an example may have
            several.
        classes: Sorted names of the classes.
        part: uint8 (N,), the part that the source assigns: 0 pool, 1 validation, 2 test.
        group: int64 (N,), indices into `groups`; None without a group column.
        groups: Sorted names of the groups; empty without a group column.
        digest: 32 hexadecimal digits over images, labels, parts and class names.
        channels: 1 or 3.
        size: In pixels.
        sources: The file that holds the file or row of each example; None in entries of earlier versions.
        key: The name of the entry.
    """

    images: NDArray[np.uint8]
    labels: Labels
    classes: tuple[str, ...]
    part: NDArray[np.uint8]
    group: NDArray[np.int64] | None
    groups: tuple[str, ...]
    digest: str
    channels: int
    size: Size
    sources: Path | None = None
    key: str = ""

    def groups_of(self, index: NDArray[np.int64]) -> list[str] | None:
        """The names of the groups of the examples at `index`; None without a group column."""
        return None if self.group is None else [self.groups[k] for k in self.group[index].tolist()]

    def sources_of(self, index: NDArray[np.int64]) -> list[str] | None:
        """The files of the examples at `index`, or their rows in the source; None in entries of earlier versions."""
        if self.sources is None:
            return None
        names = json.loads(self.sources.read_bytes())
        return [names[k] for k in index.tolist()]


class DamagedError(Exception):
    """A cache entry is incomplete or has been altered."""


class OutdatedError(DamagedError):
    """A cache entry is whole, but the user's function would return other data today: files that it read have changed."""


def prepare(
    spec: DataSpec,
    folder: Path,
    *,
    verify: bool = False,
    before_decoding: Callable[[], None] | None = None,
    origin: str | None = None,
) -> DataSet:
    """The data set that `spec` describes, from the cache; fetched or decoded first if it is not there, or damaged.

    Sizes, labels and class names are always checked; pixels if the file was modified since they were last read, or with
    `verify`. May be called by many processes at once: one of them decodes, the others wait.

    Args:
        spec: The data set.
        folder: The cache. An entry is added, or rebuilt if it is damaged.
        verify: Whether to check the pixels in any case.
        before_decoding: Called if the data has to be decoded, whether by this process or another one.
        origin: The URL of the decoded data in a bucket, of which the cache holds copies; on return the bucket has it.

    Raises:
        InputError: Something is wrong with the data, or the cache cannot be written.
        StorageError: The disk is full, or the bucket fails.
    """
    source = open_source(spec)
    entry = folder / _key(source, spec)
    data = _prepared(source, spec, entry, verify, before_decoding, origin)
    if origin is not None:
        fetching.publish(origin, entry)
    return data


def _prepared(
    source: Source,
    spec: DataSpec,
    entry: Path,
    verify: bool,
    before_decoding: Callable[[], None] | None,
    origin: str | None,
) -> DataSet:
    """`prepare`, without putting what was decoded into a bucket."""
    try:
        return load(entry, verify=verify)
    except OutdatedError as error:
        why = f"{error}, and is to be decoded anew"
    except DamagedError as error:
        why = (
            f"the decoded data is damaged ({error}) and is to be decoded anew"
            if entry.exists()
            else "it is to be decoded"
        )
    if before_decoding:
        before_decoding()
    from lrstudy.data import building  # imports Pillow, which a warm start does not need

    with building.alone(entry, why) as place:
        try:
            return load(entry, verify=verify)  # another process may have built it meanwhile
        except DamagedError:
            if entry.exists():
                log.warning(f"data: {why}.")
                shutil.rmtree(entry)
        if origin is not None and (fetched := _fetched(origin, entry, place)) is not None:
            return fetched
        building.build(source, spec, place, entry, partial(_describe, spec=spec, source=source))
        return load(entry)


def entry_of(spec: DataSpec, folder: Path) -> Path:
    """The folder that the decoded data set has, or would have, in the cache `folder`.

    Raises InputError if the source cannot be found.
    """
    return folder / _key(open_source(spec), spec)


def opened(folder: Path, key: str, origin: str | None = None) -> DataSet:
    """The data set of an entry by its key alone: the source need not be here, nor what a user's function read.

    An entry that is missing or damaged is fetched from the bucket at `origin`, if there is one; of many processes one
    fetches, the others wait. Raises DamagedError if it is not there either, InputError if the cache cannot be written and
    StorageError if the bucket fails.
    """
    entry = folder / key
    try:
        return load(entry, checks_read=False)
    except DamagedError as error:
        if origin is None:
            raise
        why = f"the decoded data is not on this node yet ({error})"
    from lrstudy.data import building

    with building.alone(entry, why) as place:
        with suppress(DamagedError):
            return load(entry, checks_read=False)
        shutil.rmtree(entry, ignore_errors=True)
        if (data := _fetched(origin, entry, place, checks_read=False)) is None:
            raise DamagedError(f"{origin}/{key} has no whole entry")
        return data


def _fetched(origin: str, entry: Path, place: Path, checks_read: bool = True) -> DataSet | None:
    """The entry as fetched from a bucket through the locked folder `place`, or None if the bucket has none that is whole."""
    if not fetching.fetch(origin, entry.name, place):
        return None
    try:
        read_at_ns = json.loads((place / "meta.json").read_bytes())["files"]["images"]["modified_ns"]
        data = load(place, verify=True, checks_read=checks_read)
        _require_consistent(data)
        os.utime(place / "images.npy", ns=(time.time_ns(), read_at_ns))  # its pixels have just been checked
    except OutdatedError:
        return None
    except (DamagedError, OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        log.warning(f"data: {origin}/{entry.name} is damaged ({error}), and counts as not there.")
        shutil.rmtree(place, ignore_errors=True)
        fetching.withdraw(origin, entry.name)
        return None
    os.rename(place, entry)
    return load(entry, checks_read=checks_read)


def _require_consistent(data: DataSet) -> None:
    """Raise DamagedError unless the arrays fit together: digests say that nothing was altered, not that it made sense."""
    count = len(data.images)
    shapes = {len(data.labels), len(data.part)} | ({len(data.group)} if data.group is not None else set())
    labels_fit = data.labels.ndim == 1 or data.labels.shape[1:] == (len(data.classes),)
    most = 1 if data.labels.ndim == 2 else len(data.classes) - 1
    groups = data.group if data.group is not None else np.zeros(0, np.int64)
    is_consistent = (
        (data.images.dtype.str, data.images.ndim) == ("|u1", 4)
        and data.images.shape[1] in (1, 3)
        and shapes == {count}
        and data.labels.dtype.kind in "iu"
        and data.labels.ndim in (1, 2)
        and labels_fit
        and all(isinstance(name, str) for name in (*data.classes, *data.groups))
        and _is_within(data.labels, most)
        and _is_within(data.part, 2)
        and _is_within(groups, len(data.groups) - 1)
    )
    if not is_consistent:
        raise DamagedError("its arrays do not fit together")


def _is_within(array: NDArray[Any], most: int) -> bool:
    return not array.size or (array.dtype.kind in "iu" and int(array.min()) >= 0 and int(array.max()) <= most)


def load(entry: Path, *, verify: bool = False, checks_read: bool = True) -> DataSet:
    """The data set of one cache entry.

    Raises DamagedError if its content does not match its meta.json, OutdatedError if a file that the user's function read
    is no longer what it was, unless `checks_read` is false.
    """
    images_file = entry / "images.npy"
    try:
        meta = json.loads((entry / "meta.json").read_bytes())
        arrays = {name: _read(entry / f"{name}.npy", meta["files"][name]) for name in _ARRAYS}
        read_at_ns = meta["files"]["images"]["modified_ns"]
        checks_pixels = verify or images_file.stat().st_mtime_ns != read_at_ns
        is_whole = _matches(meta, {name: a for name, a in arrays.items() if name != "images" or checks_pixels})
        sources = entry / SOURCES if SOURCES in meta["files"] else None
        is_whole &= sources is None or _checksum(_bytes(sources)) == meta["files"][SOURCES]["checksum"]
        read = meta.get("read", {}) if checks_read else {}
        changed = next((path for path, stamp in read.items() if _stamp(path) != stamp), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedError(f"{entry}: {error}") from error
    if changed is not None:
        raise OutdatedError(f"the decoded data is older than {changed}, which your function reads")
    if not is_whole:
        raise DamagedError(f"{entry}: the content does not have the recorded digest")
    if checks_pixels:
        with suppress(OSError):  # another user's file, or read-only: the next process will read the pixels again
            os.utime(images_file, ns=(time.time_ns(), read_at_ns))
    channels, height, width = arrays["images"].shape[1:]
    groups = tuple(meta["groups"])
    return DataSet(
        images=arrays["images"],
        labels=arrays["labels"],
        classes=tuple(meta["classes"]),
        part=arrays["part"],
        group=arrays["group"] if groups else None,
        groups=groups,
        digest=meta["digest"],
        channels=channels,
        size=size_of(height, width),
        sources=sources,
        key=entry.name,
    )


def _matches(meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bool:
    """Whether the digest in `meta` is that of its checksums, and these are the checksums of `arrays`."""
    files = meta["files"]
    if meta["digest"] != _digest(meta["classes"], [files[name]["checksum"] for name in _NAMED]):
        return False
    return all(files[name]["checksum"] == _checksum(array) for name, array in arrays.items())


def _bytes(file: Path) -> NDArray[np.uint8]:
    """The content of a file."""
    return np.frombuffer(file.read_bytes(), dtype=np.uint8)


def _key(source: Source, spec: DataSpec) -> str:
    """The name of an entry's folder, 32 hexadecimal digits."""
    image = {"size": spec.image.size, "resize": spec.image.resize, "channels": spec.image.channels}
    columns = {
        "group": spec.group_column,
        "label": spec.label,
        "multilabel": spec.multilabel,
        "parts": _parts_key(spec),
    }
    description = {"version": CACHE_VERSION, "source": source.fingerprint(), "image": image, "columns": columns}
    return blake2b(canonical_json(description), digest_size=16, person=b"lrstudy-cache").hexdigest()


def _parts_key(spec: DataSpec) -> list[object] | None:
    """What decides the stored parts: the columns of test and validation, and whether the other part is given."""
    fractions = (spec.split.test, spec.split.validation)
    if not any(isinstance(fraction, ByColumn) for fraction in fractions):
        return None
    return [asdict(fraction) if isinstance(fraction, ByColumn) else fraction == "given" for fraction in fractions]


def _read(file: Path, recorded: dict[str, Any]) -> NDArray[Any]:
    """An array, images as a memory map. Raises OSError or ValueError unless size, type and shape are as recorded."""
    if file.stat().st_size != recorded["bytes"]:
        raise ValueError(f"{file.name} has {file.stat().st_size} bytes, not {recorded['bytes']}")
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r" if file.stem == "images" else None, allow_pickle=False)
    except Exception as error:  # numpy reads a header as Python's source, and a hostile one fails in many ways
        raise ValueError(f"{file.name} is no array ({type(error).__name__})") from error
    if [array.dtype.str, *array.shape] != [recorded["dtype"], *recorded["shape"]]:
        raise ValueError(f"{file.name} holds {array.dtype} {array.shape}")
    array.setflags(write=False)
    return array


def _stamp(path: str) -> list[int] | None:
    """Size and time of modification of a file, by which a change is noticed; None if it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _describe(
    building: Path, classes: tuple[str, ...], groups: tuple[str, ...], spec: DataSpec, source: Source
) -> dict[str, Any]:
    """The content of meta.json: what the arrays hold, their checksums, and where they came from.

    Args:
        building: The folder of the arrays.
        classes: The names of the classes.
        groups: The names of the groups.
        spec: How the data was asked for.
        source: Where it was read from.
    """
    from PIL import __version__ as pillow

    arrays = {name: np.load(building / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    files = {
        name: {
            "bytes": (building / f"{name}.npy").stat().st_size,
            "dtype": array.dtype.str,
            "shape": array.shape,
            "checksum": _checksum(array),
            "modified_ns": (building / f"{name}.npy").stat().st_mtime_ns,
        }
        for name, array in arrays.items()
    }
    files[SOURCES] = {"checksum": _checksum(_bytes(building / SOURCES))}
    counts = np.stack([class_counts(arrays["labels"][arrays["part"] == part], len(classes)) for part in range(3)])
    return {
        "classes": classes,
        "groups": groups,
        "digest": _digest(classes, [files[name]["checksum"] for name in _NAMED]),
        "counts": dict(zip(("pool", "validation", "test"), counts.tolist(), strict=True)),
        "channels": arrays["images"].shape[1],
        "size": arrays["images"].shape[2],
        "files": files,
        "read": {path: _stamp(path) for path in source.read_files()} if isinstance(source, UserFunction) else {},
        "provenance": {
            "source": spec.source,
            "resize": spec.image.resize,
            "pillow": pillow,
            "cache_version": CACHE_VERSION,
        },
    }


def _checksum(array: NDArray[Any]) -> str:
    """Digest of an array's dtype, shape and elements, 32 hexadecimal digits."""
    digest = blake2b(canonical_json([array.dtype.str, *array.shape]), digest_size=16, person=b"lrstudy-array")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _BLOCK_BYTES):
        digest.update(flat[start : start + _BLOCK_BYTES].data)
    return digest.hexdigest()


def _digest(classes: tuple[str, ...] | list[str], checksums: list[object]) -> str:
    return blake2b(canonical_json([list(classes), checksums]), digest_size=16, person=b"lrstudy-data").hexdigest()
