"""The memo: records and states of all training ever done on one storage, shared by its studies.

    records/<xx>/<lineage>     one record (JSON), create-only: its creation is the commit of an epoch
    segments/<digest>.parquet  many records compacted into one file; a compacted name stays taken
    states/<digest>            one state, create-only, named by the digest of its bytes
    anchors/<lineage>          digest of a state that was stored after its record
    damaged/...                what failed its check, moved aside

Every object is written under its final name in one step or not at all, so a killed process leaves
nothing half-visible, and of two processes that train the same epoch one wins and the other adopts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from lrstudy.records import Record

T = TypeVar("T")


class StorageError(RuntimeError):
    """The storage does not take or give data: full, read-only, unreachable."""


class Memo:
    """Records and states under one location: a folder, or a URL such as ``s3://bucket/prefix``.

    Cheap to construct and picklable; one per process. Not thread-safe.
    """

    def __init__(self, location: str | Path) -> None:
        self.location = str(location)
        self._store: Any = None
        self._known: dict[str, Record] = {}
        self._segments: dict[str, dict[str, bytes]] = {}
        self._anchors: dict[str, str] = {}
        self._is_listed = False

    def __getstate__(self) -> dict[str, str]:
        return {"location": self.location}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["location"])  # type: ignore[misc]

    # Records

    def find(self, lineage: str) -> Record | None:
        """The record of an epoch, or None. A damaged record is moved aside and counts as absent."""
        if lineage in self._known:
            return self._known[lineage]
        if not self._is_listed:
            self._refresh_segments()
        data = self._compacted(lineage) or self._get(_record_path(lineage))
        if data is None:
            return None
        record = Record.from_bytes(data)
        if record is None or record.lineage != lineage:
            self._set_aside(_record_path(lineage))
            return None
        return self.learn(record)

    def known(self, lineage: str) -> Record | None:
        """The record of an epoch if this process has seen it; does not look at the storage."""
        return self._known.get(lineage)

    def learn(self, record: Record) -> Record:
        """Remember a record that another process has committed; returns it."""
        self._known[record.lineage] = record
        return record

    def commit(self, record: Record) -> Record:
        """Publish an epoch whose state, if it has one, was stored before. Returns the record that holds.

        That is the given one or, if another process was first, the winner's, whose state is to be adopted.
        Raises StorageError when the storage does not take it; then nothing was published.
        """
        while not self._create(_record_path(record.lineage), record.to_bytes()):
            if (winner := self.find(record.lineage)) is not None:
                return winner  # else the one in the way was damaged, and is set aside now
        self._refresh_segments()  # a segment published before our record was created comes first
        if (older := self._compacted(record.lineage)) is not None:
            self._delete(_record_path(record.lineage))
            return self.learn(Record.from_bytes(older) or record)
        return self.learn(record)

    def compact(self, at_least: int = 256) -> int:
        """Move records into one new segment if there are `at_least` loose ones; returns how many."""
        paths = [
            item["path"] for batch in self._io("list", lambda: obstore.list(self.store, "records/")) for item in batch
        ]
        if len(paths) < at_least:
            return 0
        found = {path: self._get(path) for path in sorted(paths)}
        rows = [(path, data) for path, data in found.items() if data and Record.from_bytes(data)]
        table = pa.table(
            {"lineage": [path.rsplit("/", 1)[1] for path, _ in rows], "record": [data for _, data in rows]}
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        self._create(f"segments/{state_digest(sink.getvalue())}.parquet", sink.getvalue())
        for path, _ in rows:
            self._delete(path)
        return len(rows)

    # States

    def put_state(self, state: bytes) -> str:
        """Store a state under the digest of its bytes, which is returned."""
        digest = state_digest(state)
        self._create(f"states/{digest}", state)
        return digest

    def anchor(self, lineage: str, state: bytes) -> None:
        """Store a state for an epoch whose record was committed without one (or has lost it)."""
        digest = self.put_state(state)
        self._create(f"anchors/{lineage}", digest.encode())

    def state_of(self, record: Record) -> bytes | None:
        """The stored state that an epoch ended with, checked against its digest, or None.

        A state that fails the check is moved aside, so that it can be trained and stored again.
        """
        for digest in (record.state, self._anchor(record.lineage)):
            if digest is None:
                continue
            data = self._get(f"states/{digest}")
            if data is not None and state_digest(data) == digest:
                return data
            if data is not None:
                self._set_aside(f"states/{digest}")
        return None

    def evict(self, keep: Iterable[str], limit_bytes: int) -> int:
        """Delete the oldest states until at most `limit_bytes` are left; digests in `keep` stay. Returns bytes freed."""
        kept = set(keep)
        items = [item for batch in self._io("list", lambda: obstore.list(self.store, "states/")) for item in batch]
        excess, freed = sum(item["size"] for item in items) - limit_bytes, 0
        for item in sorted(items, key=lambda item: item["last_modified"]):
            if freed >= excess:
                break
            if item["path"].rsplit("/", 1)[1] not in kept:
                self._delete(item["path"])
                freed += item["size"]
        return freed

    # Storage

    @property
    def store(self) -> Any:
        """The obstore store, opened on first use."""
        if self._store is None:
            if "://" in self.location:
                self._store = from_url(self.location)
            else:
                self._store = self._io("create", lambda: LocalStore(prefix=Path(self.location).resolve(), mkdir=True))
        return self._store

    def _refresh_segments(self) -> None:
        self._is_listed = True
        listed = self._io("list", lambda: obstore.list(self.store, "segments/"))
        for path in [item["path"] for batch in listed for item in batch]:
            if path not in self._segments:
                table = pq.read_table(io.BytesIO(self._get(path) or b""))
                names, records = table["lineage"].to_pylist(), table["record"].to_pylist()
                self._segments[path] = dict(zip(names, records, strict=True))

    def _compacted(self, lineage: str) -> bytes | None:
        return next((rows[lineage] for rows in self._segments.values() if lineage in rows), None)

    def _anchor(self, lineage: str) -> str | None:
        data = self._get(f"anchors/{lineage}")
        return data.decode(errors="replace") if data else None

    def _get(self, path: str) -> bytes | None:
        try:
            return self._io("read", lambda: bytes(obstore.get(self.store, path).bytes()))
        except FileNotFoundError:
            return None

    def _create(self, path: str, data: bytes) -> bool:
        """Whether the object was created; False if the name was taken."""
        try:
            self._io("write", lambda: obstore.put(self.store, path, data, mode="create"))
        except AlreadyExistsError:
            return False
        return True

    def _delete(self, path: str) -> None:
        try:
            self._io("delete", lambda: obstore.delete(self.store, path))
        except FileNotFoundError:
            pass

    def _set_aside(self, path: str) -> None:
        try:
            self._io("move", lambda: obstore.rename(self.store, path, f"damaged/{path}"))
        except FileNotFoundError:
            pass

    def _io(self, what: str, operation: Callable[[], T]) -> T:
        try:
            return operation()
        except (AlreadyExistsError, FileNotFoundError):
            raise
        except (BaseError, OSError) as error:
            reason = str(error).split("\n\nDebug source")[0]
            raise StorageError(
                f"storage.path: cannot {what} in the memo at {self.location}: {reason}. "
                "What was recorded before is safe; free space or fix permissions, then run the same command again."
            ) from error


def state_digest(data: bytes) -> str:
    """128-bit BLAKE2b of a state's bytes, 32 hexadecimal digits."""
    return blake2b(data, digest_size=16).hexdigest()


def _record_path(lineage: str) -> str:
    return f"records/{lineage[:2]}/{lineage}"
