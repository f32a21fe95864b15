"""Decoded data in a bucket: put there once by a driver, fetched once by every other node.

    memo/data/<key>/{images,labels,part,group}.npy, sources.json, meta.json

meta.json comes last, and makes the entry complete. What is fetched counts only once all its digests are right.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from lrstudy.data.sources.base import SOURCES
from lrstudy.errors import StorageError
from lrstudy.storage.bucket import Bucket

_META = "meta.json"
_FILES = ("images.npy", "labels.npy", "part.npy", "group.npy", SOURCES, _META)
_WORTH_TELLING_BYTES = 100e6

log = logging.getLogger(__name__)


def publish(origin: str, entry: Path) -> None:
    """Put an entry into the bucket at the URL `origin`, unless it is there. Raises StorageError."""
    bucket = Bucket(f"{origin}/{entry.name}")
    if _META in {listed.path for listed in bucket.listing()}:
        return
    num_bytes = sum((entry / name).stat().st_size for name in _FILES)
    if num_bytes > _WORTH_TELLING_BYTES:
        log.info(f"Putting {num_bytes / 1e9:.1f} GB of decoded data into {bucket.url}.")
    for name in _FILES:
        bucket.put(name, entry / name)


def withdraw(origin: str, key: str) -> None:
    """Let an entry of the bucket count as incomplete, because what it holds is damaged. Raises StorageError."""
    Bucket(f"{origin}/{key}").delete(_META)


def fetch(origin: str, key: str, building: Path) -> bool:
    """Fetch the files of an entry into the folder `building`, which is emptied before. Returns False if there is none.

    Only files of known names are fetched, and only into this folder. Raises StorageError.
    """
    bucket = Bucket(f"{origin}/{key}")
    listed = {item.path: item.size_bytes for item in bucket.listing()}
    if any(name not in listed for name in _FILES):
        return False
    num_bytes = sum(listed[name] for name in _FILES)
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        if (free_bytes := shutil.disk_usage(building).free) < num_bytes:
            raise OSError(f"it takes {num_bytes / 1e9:.1f} GB, and {free_bytes / 1e9:.1f} GB are free")
        if num_bytes > _WORTH_TELLING_BYTES:
            log.info(f"Fetching {num_bytes / 1e9:.1f} GB of decoded data from {bucket.url}.")
        for name in _FILES:
            if not bucket.download(name, building / name):
                return False
            with (building / name).open("rb+") as file:
                os.fsync(file.fileno())  # after a crash the entry must not be there without its content
    except OSError as error:
        raise StorageError(
            f"storage.path: cannot keep the decoded data of {bucket.url} in {building.parents[1]}: "
            f"{error.strerror or error}. Free space or set LRSTUDY_CACHE to another folder, then run the same command again."
        ) from error
    return True
