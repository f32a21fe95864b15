"""Decode once: a data set as arrays on disk, found again by what the source looks like.

An entry `folder/<key>/` holds images.npy, labels.npy, part.npy, group.npy and meta.json. The key covers the source's
fingerprint and how images are decoded; the digest covers the content alone, and is what a lineage names.
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

from lrstudy.data.labels import Labels, class_counts
from lrstudy.data.open_source import open_source
from lrstudy.data.sources.base import Source
from lrstudy.data.spec import ByColumn, DataSpec
from lrstudy.settings import canonical_json

CACHE_VERSION = 4
"""Raised whenever the same source and spec would be decoded to other bytes, or the entry's layout changes."""

log = logging.getLogger(__name__)

_NAMED = ("images", "labels", "part")
_ARRAYS = (*_NAMED, "group")  # groups shape splits, which have a name of their own
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class DataSet:
    """Decoded examples. Arrays are read-only; `images` is a memory map.

    `images` is uint8 of shape (N, channels, size, size); `labels` int64 of shape (N,), indices into the
    sorted `classes`, or uint8 0 and 1 of shape (N, classes) where an example may have several; `part` uint8 of shape
    (N,): 0 pool, 1 given for validation, 2 given for test; `group` int64 of shape (N,), indices into `groups`, or None.
    `digest` (32 hexadecimal digits) covers images, labels, parts and the class names.
    """

    images: NDArray[np.uint8]
    labels: Labels
    classes: tuple[str, ...]
    part: NDArray[np.uint8]
    group: NDArray[np.int64] | None
    groups: tuple[str, ...]
    digest: str
    channels: int
    size: int


class DamagedError(Exception):
    """A cache entry is incomplete or was altered."""


def prepare(
    spec: DataSpec, folder: Path, *, verify: bool = False, before_decoding: Callable[[], None] | None = None
) -> DataSet:
    """The data set that `spec` describes, from the cache in `folder`, decoded first if it is not there.

    An entry that is damaged is rebuilt. Sizes, labels and class names are checked always; the pixels if the file was
    touched since they were last read, or with `verify`. Safe to call from many processes at once: one decodes.
    `before_decoding` is called if it is to be decoded, by this process or another one.
    Raises InputError for what is wrong with the data, or a cache that cannot be written, StorageError for a full disk.
    """
    source = open_source(spec)
    entry = folder / _key(source, spec)
    try:
        return load(entry, verify=verify)
    except DamagedError as error:
        why = (
            f"the decoded data is damaged ({error}) and is to be decoded anew"
            if entry.exists()
            else "it is to be decoded"
        )
    if before_decoding:
        before_decoding()
    from lrstudy.data import building  # needs Pillow, which a warm start does without

    with building.alone(entry, why) as place:
        try:
            return load(entry, verify=verify)  # another process has built it meanwhile
        except DamagedError:
            if entry.exists():
                log.warning(f"data: {why}.")
                shutil.rmtree(entry)
        building.build(source, spec, place, entry, partial(_describe, spec=spec))
        return load(entry)


def load(entry: Path, *, verify: bool = False) -> DataSet:
    """The data set of one cache entry. Raises DamagedError if it is not what its meta.json says."""
    try:
        meta = json.loads((entry / "meta.json").read_bytes())
        files = meta["files"]
        images, labels, part, group = (_read(entry / f"{name}.npy", files[name]) for name in _ARRAYS)
        whole = meta["digest"] == _digest(meta["classes"], [files[name]["checksum"] for name in _NAMED])
        checked = {"labels": labels, "part": part, "group": group}
        if verify or (entry / "images.npy").stat().st_mtime_ns != files["images"]["modified_ns"]:
            checked["images"] = images
        whole = whole and all(files[name]["checksum"] == _checksum(array) for name, array in checked.items())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{entry}: {error}") from error
    if not whole:
        raise DamagedError(f"{entry}: the content does not have the recorded digest")
    if "images" in checked:
        with suppress(OSError):  # of somebody else, or read-only: then it is read again the next time
            os.utime(entry / "images.npy", ns=(time.time_ns(), files["images"]["modified_ns"]))
    channels, size = images.shape[1:3]
    groups = tuple(meta["groups"])
    return DataSet(
        images, labels, tuple(meta["classes"]), part, group if groups else None, groups, meta["digest"], channels, size
    )


def _key(source: Source, spec: DataSpec) -> str:
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
    """What of the split shapes the parts that are stored: columns that parts go by, and whether the other is given."""
    fractions = (spec.split.test, spec.split.validation)
    if not any(isinstance(fraction, ByColumn) for fraction in fractions):
        return None
    return [asdict(fraction) if isinstance(fraction, ByColumn) else fraction == "given" for fraction in fractions]


def _read(file: Path, recorded: dict[str, Any]) -> NDArray[Any]:
    if file.stat().st_size != recorded["bytes"]:
        raise ValueError(f"{file.name} has {file.stat().st_size} bytes, not {recorded['bytes']}")
    array: NDArray[Any] = np.load(file, mmap_mode="r" if file.stem == "images" else None, allow_pickle=False)
    if [array.dtype.str, *array.shape] != [recorded["dtype"], *recorded["shape"]]:
        raise ValueError(f"{file.name} holds {array.dtype} {array.shape}")
    array.setflags(write=False)
    return array


def _describe(building: Path, classes: tuple[str, ...], groups: tuple[str, ...], spec: DataSpec) -> dict[str, Any]:
    """meta.json: what the arrays hold, their checksums, and where they came from."""
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
    counts = np.stack([class_counts(arrays["labels"][arrays["part"] == part], len(classes)) for part in range(3)])
    return {
        "classes": classes,
        "groups": groups,
        "digest": _digest(classes, [files[name]["checksum"] for name in _NAMED]),
        "counts": dict(zip(("pool", "validation", "test"), counts.tolist(), strict=True)),
        "channels": arrays["images"].shape[1],
        "size": arrays["images"].shape[2],
        "files": files,
        "provenance": {
            "source": spec.source,
            "resize": spec.image.resize,
            "pillow": pillow,
            "cache_version": CACHE_VERSION,
        },
    }


def _checksum(array: NDArray[Any]) -> str:
    """Digest of an array's type, shape and elements, 32 hexadecimal digits."""
    digest = blake2b(canonical_json([array.dtype.str, *array.shape]), digest_size=16, person=b"lrstudy-array")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _BLOCK_BYTES):
        digest.update(flat[start : start + _BLOCK_BYTES].data)
    return digest.hexdigest()


def _digest(classes: tuple[str, ...] | list[str], checksums: list[object]) -> str:
    return blake2b(canonical_json([list(classes), checksums]), digest_size=16, person=b"lrstudy-data").hexdigest()
