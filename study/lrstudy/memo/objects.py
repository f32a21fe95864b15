"""A create-only object store: files in a folder, or objects in a bucket, each written once under its final name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore

from lrstudy.errors import StorageError
from lrstudy.storage.bucket import MULTIPART_BYTES, Bucket, Listed
from lrstudy.storage.place import is_url


class ObjectStore:
    """Objects under one location, created once and never rewritten.

    An object appears under its final name whole and in one step, and of all writers of one name exactly one creates
    it. Only `sync` waits for the disk, so a power failure may lose an object or leave it torn. Readers must therefore
    verify what they read, against its name (`get_addressed`) or a digest in it, and set aside what is damaged.

    Any number of threads and processes may call any method at once. Every method raises StorageError when the storage
    fails. Constructing a store touches nothing; its folder is made on first use.

    Symbolic links below the location are not followed: what is behind them is not the store's to read, to write or to
    delete. A listing leaves them out, and every other method raises StorageError. The location itself may be a link.

    Args:
        location: A folder, or a URL such as ``s3://bucket/prefix``. Paths of objects are relative to it, with ``/``.
    """

    def __init__(self, location: str | Path) -> None:
        self._bucket = Bucket(str(location)) if is_url(location) else None
        self.location = str(location) if self._bucket else str(Path(location).resolve())
        self._opened: Any = None

    def __reduce__(self) -> tuple[type[ObjectStore], tuple[str]]:
        return type(self), (self.location,)

    def get(self, path: str) -> bytes | None:
        """The bytes of an object, unchecked, or None if there is none."""
        if self._bucket:
            return self._bucket.get(path)
        with self._translated("read"):
            self._require_no_link(path)
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except FileNotFoundError:
                return None

    def create(self, path: str, data: bytes) -> bool:
        """Create an object. Returns False, and changes nothing, if the name is taken."""
        if self._bucket:
            return self._bucket.create(path, data)
        with self._translated("write"):
            self._require_no_link(path)
            try:
                obstore.put(self._store, path, data, mode="create")
            except AlreadyExistsError:
                return False
            return True

    def create_addressed(self, folder: str, data: bytes, suffix: str = "") -> str:
        """Create an object that is named by its content, unless it exists; returns ``<folder>/<digest><suffix>``.

        If what exists under that name is damaged, it is set aside: on return the object holds `data`.
        """
        path = f"{folder}/{content_digest(data)}{suffix}"
        if self._bucket and len(data) > MULTIPART_BYTES:
            self._bucket.put(path, data)  # in parts, which cannot be create-only; who comes second puts the same bytes
            return path
        while not self.create(path, data):
            existing = self.get(path)
            if existing == data:
                break
            if existing is not None:
                self.set_aside(path, existing)
        return path

    def get_addressed(self, path: str) -> bytes | None:
        """The bytes of an object that is named by its content, or None; a damaged one is set aside."""
        data = self.get(path)
        if data is None or Path(path).stem == content_digest(data):
            return data
        self.set_aside(path, data)
        return None

    def listing(self, folder: str) -> list[Listed]:
        """All complete objects below a folder, in no particular order."""
        if self._bucket:
            return self._bucket.listing(folder)
        with self._translated("list"):
            batches = obstore.list(self._store, folder, chunk_size=1000)
            listed = [Listed(item["path"], item["size"], item["last_modified"]) for batch in batches for item in batch]
        return [item for item in listed if not self._link(item.path)]

    def delete(self, path: str) -> None:
        """Delete an object, if it is there."""
        if self._bucket:
            self._bucket.delete(path)
            return
        with self._translated("delete"), suppress(FileNotFoundError):
            self._require_no_link(path)
            obstore.delete(self._store, path)

    def set_aside(self, path: str, damaged: bytes) -> None:
        """Move an object in which the caller has read the bytes `damaged` to ``damaged/<path>``, which frees its name.

        If the object moved is another one, by which a faster process has replaced the damaged one, it is put back.
        Until then its name is free, and whoever takes it keeps it.
        """
        if self._bucket:
            self._bucket.set_aside(path, damaged)
            return
        aside = f"damaged/{path}"
        with self._translated("move"):
            self._require_no_link(path)
            self._require_no_link(aside)
            try:
                obstore.rename(self._store, path, aside)
            except FileNotFoundError:
                return
        moved = self.get(aside)
        if moved is not None and moved != damaged:
            self.create(path, moved)

    def sync(self, path: str) -> None:
        """Flush an object and its folder to the disk. Does nothing for a URL: what a bucket acknowledges is stored."""
        if self._bucket:
            return
        file = Path(self.location, path)
        with self._translated("write"):
            for place in (file, file.parent):
                descriptor = os.open(place, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    @property
    def _store(self) -> Any:
        """The obstore store of a folder, opened on first use."""
        if self._opened is None:
            with self._translated("create"):
                self._opened = LocalStore(prefix=Path(self.location), mkdir=True)
        return self._opened

    def _require_no_link(self, path: str) -> None:
        """Raise StorageError if an object, or a folder on the way to it, is a symbolic link."""
        if link := self._link(path):
            raise StorageError(
                f"storage.path: {link} is a link, and links in the memo are not followed. Remove it, or put what it leads "
                "to in its place; storage.path itself may be a link."
            )

    def _link(self, path: str) -> str:
        """The first symbolic link on the way to an object, itself included; empty if there is none."""
        place = self.location
        for part in path.split("/"):
            place = os.path.join(place, part)
            if os.path.islink(place):
                return place
        return ""

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        """Raise failures of the storage as StorageError: what failed, where, why, and what to do about it."""
        try:
            yield
        except (BaseError, OSError) as error:
            reason = str(error).split("\n\nDebug source")[0]
            raise StorageError(
                f"storage.path: cannot {action} in the memo at {self.location}: {reason}. "
                "What was recorded before is safe; free space or fix permissions, then run the same command again."
            ) from error


def content_digest(data: bytes) -> str:
    """128-bit BLAKE2b of some bytes, 32 hexadecimal digits."""
    return blake2b(data, digest_size=16).hexdigest()
