"""Proves in seconds that a storage can be used as studies use it, before anything is decoded or spent."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lrstudy.errors import Fault, InputError, StorageError
from lrstudy.storage.bucket import Bucket, Version, is_refusal
from lrstudy.storage.place import WHERE, is_url

FOLDER = ".probe"
_PATIENCE_S, _REQUEST_S = 5.0, 5.0


class Unfit(InputError):
    """The storage answers, but does not keep what studies rely on."""


def check(location: str) -> dict[str, float]:
    """Try every kind of access that a study needs, on an object of its own that is deleted again.

    Creating what is not there, refusing to create what is, replacing a known version and no other, reading, listing,
    deleting; in a folder also locking.

    Args:
        location: The absolute path of a folder, which is made if it does not exist, or a checked URL.

    Returns:
        The seconds that each of them took, by its name.

    Raises:
        InputError: The folder cannot be written; the bucket does not exist or refuses; no credentials are found; or the
            storage does not do what is needed.
        StorageError: The bucket cannot be reached, or is at fault. That is known after some 15 s at most.
    """
    if not is_url(location):
        return _check_folder(Path(location))
    try:
        return _check_bucket(location)
    except StorageError as error:
        if is_refusal(error):
            raise InputError(Fault("", str(error))) from error
        raise


def _check_bucket(url: str) -> dict[str, float]:
    bucket, path = Bucket(url, _PATIENCE_S, _REQUEST_S), f"{FOLDER}/{uuid.uuid4().hex}"
    took: dict[str, float] = {}
    try:
        with _timed(took, "create"):
            first = bucket.create_version(path, b"first") or _version_of(bucket, path, b"first")
        if not first:
            raise _unfit(url, "says that an object exists which nobody has created")
        with _timed(took, "refuse"):
            if bucket.create(path, b"second"):
                raise _unfit(url, "creates an object that exists already")
        with _timed(took, "replace"):
            second = bucket.replace(path, b"second", first)
        if not second or bucket.replace(path, b"third", first):
            raise _unfit(url, "does not replace exactly the version of an object that it is asked to")
        with _timed(took, "read"):
            if bucket.get(path) != b"second":
                raise _unfit(url, "does not return what was written last")
        with _timed(took, "list"):
            if path not in {listed.path for listed in bucket.listing(FOLDER)}:
                raise _unfit(url, "does not list what was written")
    except BaseException:
        with suppress(StorageError):
            bucket.delete(path)
        raise
    with _timed(took, "delete"):
        bucket.delete(path)
    return took


def _version_of(bucket: Bucket, path: str, data: bytes) -> Version | None:
    """The version of an object with this content: the answer to a put may be lost on a bad line."""
    found = bucket.find(path)
    return found.version if found is not None and found.data == data else None


def _check_folder(folder: Path) -> dict[str, float]:
    path, took = folder / f"{FOLDER}.{uuid.uuid4().hex}", dict[str, float]()
    fresh, lock = path.with_suffix(".fresh"), path.with_suffix(".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with _timed(took, "create"):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            with _timed(took, "refuse"), suppress(FileExistsError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                raise _unfit(str(folder), "creates a file that exists already")
            with _timed(took, "replace"):
                fresh.write_bytes(b"second")
                fresh.replace(path)
            with _timed(took, "read"):
                if path.read_bytes() != b"second":
                    raise _unfit(str(folder), "does not return what was written last")
            with _timed(took, "list"):
                if path.name not in os.listdir(folder):
                    raise _unfit(str(folder), "does not list what was written")
            with _timed(took, "lock"):
                _require_locks(lock, folder)
            with _timed(took, "delete"):
                path.unlink()
        finally:
            for left in (path, fresh, lock):
                left.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            Fault(
                WHERE,
                f"cannot write in {folder}: {error.strerror}",
                advice="Expected a folder that you may write to.",
            )
        ) from None
    return took


def _require_locks(path: Path, folder: Path) -> None:
    """Raise Unfit if files cannot be locked, or a lock locks nobody out."""
    try:
        with FileLock(path, timeout=0, is_singleton=False):
            try:
                with FileLock(path, timeout=0, is_singleton=False):
                    raise _unfit(str(folder), "lets two hold one lock")
            except Timeout:
                return
    except (NotImplementedError, OSError) as error:
        raise _unfit(str(folder), f"has no locks for files ({error})") from None


def _unfit(location: str, problem: str) -> Unfit:
    return Unfit(
        Fault(
            WHERE,
            f"{location} {problem}, so studies cannot be kept there",
            advice="Expected a folder on a local disk or on NFS that is mounted with locks, a bucket of S3 or Google "
            "Cloud Storage, or of a service that has conditional puts as they do.",
        )
    )


@contextmanager
def _timed(took: dict[str, float], what: str) -> Iterator[None]:
    begin = time.monotonic()
    try:
        yield
    finally:
        took[what] = time.monotonic() - begin
