"""Decode once: a data set as arrays on disk, found again by what the source looks like.

An entry `folder/<key>/` holds images.npy, labels.npy, part.npy, group.npy and meta.json. It is built beside its place
and renamed into it, so a reader sees a whole entry or none. The key covers the source's fingerprint and
how images are decoded; the digest covers the content alone, and is what a lineage names.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy import faults
from lrstudy.data.labels import Labels, class_counts
from lrstudy.data.sources import Source, open_source
from lrstudy.data.spec import ByColumn, DataSpec
from lrstudy.settings import canonical_json

CACHE_VERSION = 3
"""Raised whenever the same source and spec would be decoded to other bytes, or the entry's layout changes."""

_NAMED = ("images", "labels", "part")
_ARRAYS = (*_NAMED, "group")  # groups shape splits, which have a name of their own
_BLOCK_BYTES = 1 << 24
_ABANDONED_S = 24 * 3600  # a temporary folder this old was left by a process that was killed


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


def prepare(spec: DataSpec, folder: Path, *, verify: bool = False) -> DataSet:
    """The data set that `spec` describes, from the cache in `folder`, decoded first if it is not there.

    An entry that is damaged is rebuilt: sizes, labels and class names are checked always, the pixels only
    with `verify`. Safe to call from many processes at once; each may decode, one result is kept.
    Raises InputError for what is wrong with the data, or a cache that cannot be written.
    """
    source = open_source(spec)
    entry = folder / _key(source, spec)
    for _ in range(3):  # another process may move a damaged entry away just before we open it
        if entry.exists():
            try:
                return load(entry, verify=verify)
            except DamagedError:
                _discard(entry)
        _build(source, spec, entry)
    return load(entry, verify=verify)


def load(entry: Path, *, verify: bool = False) -> DataSet:
    """The data set of one cache entry. Raises DamagedError if it is not what its meta.json says."""
    try:
        meta = json.loads((entry / "meta.json").read_bytes())
        files = meta["files"]
        images, labels, part, group = (_read(entry / f"{name}.npy", files[name]) for name in _ARRAYS)
        whole = meta["digest"] == _digest(meta["classes"], [files[name]["checksum"] for name in _NAMED])
        for name, array in (("labels", labels), ("part", part), ("group", group), ("images", images)):
            if verify or name != "images":
                whole = whole and files[name]["checksum"] == _checksum(array)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{entry}: {error}") from error
    if not whole:
        raise DamagedError(f"{entry}: the content does not have the recorded digest")
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
    shares = (spec.split.test, spec.split.validation)
    if not any(isinstance(share, ByColumn) for share in shares):
        return None
    return [asdict(share) if isinstance(share, ByColumn) else share == "given" for share in shares]


def _read(file: Path, recorded: dict[str, Any]) -> NDArray[Any]:
    if file.stat().st_size != recorded["bytes"]:
        raise ValueError(f"{file.name} has {file.stat().st_size} bytes, not {recorded['bytes']}")
    array: NDArray[Any] = np.load(file, mmap_mode="r" if file.stem == "images" else None, allow_pickle=False)
    if [array.dtype.str, *array.shape] != [recorded["dtype"], *recorded["shape"]]:
        raise ValueError(f"{file.name} holds {array.dtype} {array.shape}")
    array.setflags(write=False)
    return array


def _build(source: Source, spec: DataSpec, entry: Path) -> None:
    """Decode into a temporary folder and rename it to `entry`, unless another process was first."""
    from lrstudy.data.decoding import write_arrays  # needs Pillow, which a warm start does without

    building = _temporary_folder(entry)
    try:
        _write_meta(building, spec, *write_arrays(source, spec, building))
        building.chmod(0o755)  # a temporary folder is closed to others, but a cache may be shared
        os.rename(building, entry)
    except faults.InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return  # another process was first
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
            raise  # the disk's or the machine's fault; what follows is the data's
        reason = " ".join(str(error).split())[:200]
        raise faults.InputError(f"data: {spec.source} cannot be read ({type(error).__name__}: {reason}).") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_meta(building: Path, spec: DataSpec, classes: tuple[str, ...], groups: tuple[str, ...]) -> None:
    """meta.json, written last: what the arrays hold, their checksums, and where they came from."""
    from PIL import __version__ as pillow

    arrays = {name: np.load(building / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    files = {
        name: {
            "bytes": (building / f"{name}.npy").stat().st_size,
            "dtype": array.dtype.str,
            "shape": array.shape,
            "checksum": _checksum(array),
        }
        for name, array in arrays.items()
    }
    counts = np.stack([class_counts(arrays["labels"][arrays["part"] == part], len(classes)) for part in range(3)])
    meta = {
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
    with (building / "meta.json").open("w") as file:
        json.dump(meta, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _temporary_folder(entry: Path) -> Path:
    """A new folder beside `entry`; those of builds that were killed long ago are removed."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        for old in entry.parent.glob(f".{entry.name}.*"):
            if time.time() - old.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    except OSError as error:
        raise faults.InputError(
            f"data: the cache folder {entry.parent} cannot be written ({error.strerror})."
        ) from None


def _discard(entry: Path) -> None:
    """Remove a damaged entry: moved away first, so that nobody meets it half removed."""
    aside = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        os.rename(entry, aside / "damaged")
    except FileNotFoundError:
        pass  # another process did it
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _checksum(array: NDArray[Any]) -> str:
    """Digest of an array's type, shape and elements, 32 hexadecimal digits."""
    digest = blake2b(canonical_json([array.dtype.str, *array.shape]), digest_size=16, person=b"lrstudy-array")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _BLOCK_BYTES):
        digest.update(flat[start : start + _BLOCK_BYTES].data)
    return digest.hexdigest()


def _digest(classes: tuple[str, ...] | list[str], checksums: list[object]) -> str:
    return blake2b(canonical_json([list(classes), checksums]), digest_size=16, person=b"lrstudy-data").hexdigest()
