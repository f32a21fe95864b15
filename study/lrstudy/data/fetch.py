"""Brings a data set to this machine and into the cache, so that machines without a network find it there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lrstudy import user_code
from lrstudy.data.cache import entry_of, prepare
from lrstudy.data.open_source import open_source
from lrstudy.data.sources.torchvision_sets import TorchvisionSet
from lrstudy.data.spec import DataSpec
from lrstudy.storage.place import Storage


@dataclass(frozen=True)
class Fetched:
    """What was done, and what lies where now.

    Attributes:
        source: The data, as the study file names it.
        num_examples: How many examples it has.
        fetched_bytes: How much was downloaded now.
        reads: The file or folder that the data comes from, if it comes from one. Whoever opens the decoded data also
            compares that file, or the folder's list of files, with what was decoded.
        reads_bytes: What `reads` takes on disk.
        is_new: Whether the data was decoded now; it was there before otherwise.
        entry: The folder of the decoded data.
        entry_bytes: What `entry` takes on disk.
    """

    source: str
    num_examples: int
    fetched_bytes: int
    reads: Path | None
    reads_bytes: int
    is_new: bool
    entry: Path
    entry_bytes: int


def fetch(spec: DataSpec, storage: Storage) -> Fetched:
    """Download the data set if it is one that torchvision can, and decode it into the storage; what is there is kept.

    Raises InputError if the data cannot be downloaded or read, StorageError if the disk is full.
    """
    spec, decoded = replace(spec, download=True), []
    reads = _reads(spec)
    before_bytes = _size(reads)
    data = prepare(spec, storage.data_cache, origin=storage.data_origin, before_decoding=lambda: decoded.append(True))
    entry = entry_of(spec, storage.data_cache)
    return Fetched(
        source=spec.source,
        num_examples=len(data.labels),
        fetched_bytes=max(0, _size(reads) - before_bytes) if isinstance(open_source(spec), TorchvisionSet) else 0,
        reads=reads,
        reads_bytes=_size(reads),
        is_new=bool(decoded),
        entry=entry,
        entry_bytes=_size(entry),
    )


def _reads(spec: DataSpec) -> Path | None:
    """The file or folder that a source reads; None for data that a package or a function brings."""
    source = open_source(spec)
    if isinstance(source, TorchvisionSet):
        return source.folder
    if user_code.is_reference(spec.source):
        return Path(spec.source.rpartition(":")[0])
    return Path(spec.source.partition(":")[2]) if ":" in spec.source else None


def _size(place: Path | None) -> int:
    """The bytes of a file, or of all files below a folder; 0 if there is none."""
    if place is None:
        return 0
    files: Iterable[Path] = place.rglob("*") if place.is_dir() else [place]
    return sum(path.stat().st_size for path in files if path.is_file())
