"""The lock of a study, wherever it lies."""

from __future__ import annotations

from lrstudy.storage.place import Storage
from lrstudy.study_folder import bucket_lock, driver_lock
from lrstudy.study_folder.bucket_lock import BucketLock
from lrstudy.study_folder.driver_lock import DriverLock

Lock = DriverLock | BucketLock


def lock_of(storage: Storage, name: str) -> Lock:
    """The driver lock of the study `name`, not taken yet."""
    return BucketLock(storage.study(name)) if storage.is_bucket else DriverLock(storage.studies / name)


def is_held(storage: Storage, name: str) -> bool:
    """Whether a living driver runs the study `name`, as far as its lock tells. Raises StorageError."""
    return (
        bucket_lock.is_held(storage.study(name)) if storage.is_bucket else driver_lock.is_held(storage.studies / name)
    )
