"""The memo: records and states of all training ever done on one storage, shared by its studies.

    records/<xx>/<lineage>     one record (JSON), create-only: its creation is the commit of an epoch
    segments/<digest>.parquet  many records compacted into one file; a compacted name stays taken
    states/<digest>            one state, create-only, named by the digest of its bytes
    anchors/<lineage>          digest of a state that was stored after its record
    calibrations/...           what kinds of updates cost, as measured alone on a device
    damaged/...                what failed its check, moved aside

Every object is written under its final name in one step or not at all, so a killed process leaves
nothing half-visible, and of two processes that train the same epoch one wins and the other adopts.
Whatever a power failure tears is noticed by its digest. Who looks for a record looks at the loose ones
first and at the list of segments after, because compaction publishes a segment before it deletes.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from lrstudy.errors import StorageError
from lrstudy.memo.records import Record

T = TypeVar("T")

SEGMENT_ROWS = 20_000
"""Most records in one segment: bounds the memory that compaction takes."""
_GROUP_ROWS = 200
"""Rows of a segment that are read together: a look-up that is far from all earlier ones takes so long as this."""
_DIGEST = re.compile(rb"[0-9a-f]{32}")


class Memo:
    """Records and states under one location: a folder, or a URL such as ``s3://bucket/prefix``.

    Cheap to construct and picklable; one per process. Not thread-safe, but for `anchor`.
    """

    def __init__(self, location: str | Path) -> None:
        self.location = str(location) if "://" in str(location) else str(Path(location).resolve())
        self._store: Any = None
        self._known: dict[str, Record] = {}
        self._segments: dict[str, _Segment] = {}

    def __getstate__(self) -> dict[str, str]:
        return {"location": self.location}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["location"])  # type: ignore[misc]

    # Records

    def find(self, lineage: str) -> Record | None:
        """The record of an epoch, or None. A damaged record is moved aside and counts as absent."""
        found = self._known.get(lineage) or self._compacted(lineage)
        if found is not None:
            return self.learn(found)
        path = _record_path(lineage)
        data = self._get(path)
        self._refresh_segments()
        if (older := self._compacted(lineage)) is not None:
            return self.learn(older)
        if data is None:
            return None
        record = _parse(lineage, data)
        if record is None:
            self._set_aside(path, data)
            return None
        return self.learn(record)

    def finder(self) -> Callable[[str], Record | None]:
        """`find` over what is there now: for thousands of names most of which are not, each of which would be asked for."""
        loose = {_name(item["path"]) for item in self._list("records/")}
        self._refresh_segments()  # after listing: what was compacted meanwhile is in them

        def find(lineage: str) -> Record | None:
            is_there = lineage in loose or lineage in self._known or self._compacted(lineage) is not None
            return self.find(lineage) if is_there else None

        return find

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
        path = _record_path(record.lineage)
        while not self._create(path, record.to_bytes()):
            if (winner := self.find(record.lineage)) is not None:
                return winner  # else the one in the way was damaged, and is set aside now
        self._refresh_segments()  # a segment published before our record was created comes first
        if (older := self._compacted(record.lineage)) is not None:
            self._delete(path)
            return self.learn(older)
        return self.learn(record)

    def compact(self, at_least: int = 256) -> int:
        """Move records into new segments if there are `at_least` loose ones; returns how many."""
        paths = sorted(item["path"] for item in self._list("records/"))
        if len(paths) < at_least:
            return 0
        return sum(self._compact(paths[start : start + SEGMENT_ROWS]) for start in range(0, len(paths), SEGMENT_ROWS))

    def _compact(self, paths: list[str]) -> int:
        """One segment of the loose records under `paths`; damaged ones stay for `find` to set aside."""
        found: list[tuple[float, str, bytes]] = []
        for path in paths:
            data = self._get(path) or b""
            if (record := _parse(_name(path), data)) is not None:
                found.append((record.created_at, record.lineage, data))
        self._refresh_segments()  # after reading: a name that was compacted before is not compacted again
        if rows := sorted(row for row in found if self._compacted(row[1]) is None):
            self._publish_segment(rows)
        for _, lineage, _ in found:
            self._delete(_record_path(lineage))
        return len(found)

    def _publish_segment(self, rows: list[tuple[float, str, bytes]]) -> None:
        """Write a segment and bring it to the disk, since the loose records are deleted next."""
        table = pa.table({"lineage": [lineage for _, lineage, _ in rows], "record": [data for *_, data in rows]})
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", row_group_size=_GROUP_ROWS)
        data = sink.getvalue()
        path = f"segments/{state_digest(data)}.parquet"
        self._create_exactly(path, data)
        if "://" not in self.location:
            self._io("write", lambda: _sync(Path(self.location, path)))

    # States

    def put_state(self, state: bytes) -> str:
        """Store a state under the digest of its bytes, which is returned."""
        digest = state_digest(state)
        self._create_exactly(f"states/{digest}", state)
        return digest

    def anchor(self, lineage: str, state: bytes) -> None:
        """Store a state for an epoch whose record was committed without one (or has lost it).

        If another process was first, its state stays the one that `state_of` gives.
        """
        path, digest = f"anchors/{lineage}", self.put_state(state).encode()
        while not self._create(path, digest):
            there = self._get(path)
            if there == digest or (there is not None and self._state(there) is not None):
                return
            if there is not None:  # torn, or its state is gone
                self._set_aside(path, there)

    def state_of(self, record: Record) -> bytes | None:
        """The stored state that an epoch ended with, checked against its digest, or None.

        A state that fails the check is moved aside, so that it can be trained and stored again.
        """
        if record.state is not None and (state := self._state(record.state.encode())) is not None:
            return state
        anchored = self._get(f"anchors/{record.lineage}")
        return self._state(anchored) if anchored is not None else None

    def digests_of(self, record: Record) -> set[str]:
        """The digests under which the state that an epoch ended with may lie: the record's own and its anchor's."""
        anchored = self._get(f"anchors/{record.lineage}")
        return {digest for digest in (record.state, anchored.decode(errors="replace") if anchored else None) if digest}

    # Facts

    def fact(self, path: str) -> dict[str, Any] | None:
        """A small map that was kept under `path`, or None. A damaged one is moved aside."""
        data = self._get(path)
        if data is None:
            return None
        try:
            stored = json.loads(data)
            content: dict[str, Any] = stored["fact"]
            if stored["digest"] == _fact_digest(content):
                return content
        except (ValueError, KeyError, TypeError):
            pass
        self._set_aside(path, data)
        return None

    def put_fact(self, path: str, content: Mapping[str, Any]) -> None:
        """Keep a small map of JSON values; if another process was first, its one stays."""
        stored = {"fact": dict(content), "digest": _fact_digest(content)}
        self._create(path, json.dumps(stored, sort_keys=True).encode())

    def evict(self, keep: Iterable[str], limit_bytes: int) -> int:
        """Delete the oldest states until at most `limit_bytes` are left; digests in `keep` stay. Returns bytes freed."""
        kept = set(keep)
        items = self._list("states/")
        excess, freed = sum(item["size"] for item in items) - limit_bytes, 0
        for item in sorted(items, key=lambda item: item["last_modified"]):
            if freed >= excess:
                break
            if _name(item["path"]) not in kept:
                self._delete(item["path"])
                freed += item["size"]
        return freed

    # Storage

    @property
    def store(self) -> Any:
        """The obstore store, opened on first use."""
        if self._store is None:
            if "://" in self.location:
                self._store = self._io("open", lambda: from_url(self.location))
            else:
                self._store = self._io("create", lambda: LocalStore(prefix=Path(self.location), mkdir=True))
        return self._store

    def _refresh_segments(self) -> None:
        """Open the segments that were published since the last look; one that is damaged is moved aside."""
        for path in [item["path"] for item in self._list("segments/")]:
            if path in self._segments or (data := self._get(path)) is None:
                continue
            if path == f"segments/{state_digest(data)}.parquet":
                self._segments[path] = _Segment(data)
            else:
                self._set_aside(path, data)

    def _compacted(self, lineage: str) -> Record | None:
        for segment in self._segments.values():
            if (data := segment.get(lineage)) is not None and (record := _parse(lineage, data)) is not None:
                return record
        return None

    def _state(self, digest: bytes) -> bytes | None:
        if not _DIGEST.fullmatch(digest):
            return None
        path = f"states/{digest.decode()}"
        data = self._get(path)
        if data is None or state_digest(data) == digest.decode():
            return data
        self._set_aside(path, data)
        return None

    def _list(self, prefix: str) -> list[Any]:
        return self._io(
            "list", lambda: [item for batch in obstore.list(self.store, prefix, chunk_size=1000) for item in batch]
        )

    def _get(self, path: str) -> bytes | None:
        try:
            return self._io("read", lambda: bytes(obstore.get(self.store, path).bytes()), may_miss=True)
        except FileNotFoundError:
            return None

    def _create(self, path: str, data: bytes) -> bool:
        """Whether the object was created; False if the name was taken."""
        try:
            self._io("write", lambda: obstore.put(self.store, path, data, mode="create"))
        except AlreadyExistsError:
            return False
        return True

    def _create_exactly(self, path: str, data: bytes) -> None:
        """Create an object that is named by its own bytes; a torn one in its place is moved aside."""
        while not self._create(path, data):
            there = self._get(path)
            if there == data:
                return
            if there is not None:
                self._set_aside(path, there)

    def _delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._io("delete", lambda: obstore.delete(self.store, path), may_miss=True)

    def _set_aside(self, path: str, damaged: bytes) -> None:
        """Move a damaged object out of the way; what another process has put in its place meanwhile goes back."""
        aside = f"damaged/{path}"
        try:
            self._io("move", lambda: obstore.rename(self.store, path, aside), may_miss=True)
        except FileNotFoundError:
            return
        moved = self._get(aside)
        if moved is not None and moved != damaged:
            self._create(path, moved)

    def _io(self, what: str, operation: Callable[[], T], may_miss: bool = False) -> T:
        try:
            return operation()
        except AlreadyExistsError:
            raise
        except (BaseError, OSError) as error:
            if may_miss and isinstance(error, FileNotFoundError):
                raise
            reason = str(error).split("\n\nDebug source")[0]
            raise StorageError(
                f"storage.path: cannot {what} in the memo at {self.location}: {reason}. "
                "What was recorded before is safe; free space or fix permissions, then run the same command again."
            ) from error


class _Segment:
    """The compacted records of one file, found by name; decoded one row group at a time.

    A new Memo opens every segment, though most look up few of its records: of 100,000 the names take 0.1 s to open,
    all of them as Python objects 0.7 s. Rows lie in order of time, so that a walk stays in few groups.
    """

    def __init__(self, data: bytes) -> None:
        self._file = pq.ParquetFile(pa.BufferReader(data))
        names = self._file.read(["lineage"])["lineage"].to_numpy().astype("S")
        self._order = np.argsort(names, kind="stable")
        self._names = names[self._order]
        metadata = self._file.metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._groups: dict[int, Any] = {}

    def get(self, lineage: str) -> bytes | None:
        """The bytes of a record, or None if it is not here."""
        key = np.bytes_(lineage.encode())
        place = int(np.searchsorted(self._names, key))
        if place == len(self._names) or self._names[place] != key:
            return None
        row = int(self._order[place])
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group not in self._groups:
            self._groups[group] = self._file.read_row_group(group, ["record"])["record"]
        return bytes(self._groups[group][row - int(self._starts[group])].as_py())


def _fact_digest(content: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def state_digest(data: bytes) -> str:
    """128-bit BLAKE2b of a state's bytes, 32 hexadecimal digits."""
    return blake2b(data, digest_size=16).hexdigest()


def _parse(lineage: str, data: bytes) -> Record | None:
    """The record of this epoch, or None if the bytes are torn, damaged or another epoch's."""
    record = Record.from_bytes(data)
    return record if record is not None and record.lineage == lineage else None


def _record_path(lineage: str) -> str:
    return f"records/{lineage[:2]}/{lineage}"


def _name(path: str) -> str:
    return path.rsplit("/", 1)[1]


def _sync(path: Path) -> None:
    """Bring a file and its name to the disk."""
    for place in (path, path.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
