"""The memo: records and states of all training ever done on one storage, shared by its studies.

    records/<xx>/<lineage>     one record (JSON); <xx> are the first two digits of the lineage
    segments/<digest>.parquet  many records compacted into one file
    states/<digest>            one state, or the features that a head is trained on, named by the digest of its bytes
    anchors/<lineage>          the digest of a state that was stored after its record
    calibrations/...           what kinds of updates cost, as measured alone on a device
    range_tests/<digest>       the curve of a range test, with its cost
    copies/...                 how many test examples are copies of others
    heads/...                  what enters the head of a model
    files/<digest>             a file of the user's code, on its way to nodes that do not have it
    weights/<digest>           weights that training began with, fitted to a model
    fitted/<digest>            which weights a file or a name gives a model, and what had to be changed
    damaged/<path>             what failed its check, set aside

Who writes them, in what order, and what others see of it: the contract of `Memo`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lrstudy.memo.objects import ObjectStore
from lrstudy.memo.records import Record, parse
from lrstudy.memo.segments import Row, Segments

SEGMENT_ROWS = 20_000
"""Most records in one segment: bounds the memory that compaction takes."""
_DIGEST = re.compile(rb"[0-9a-f]{32}")
_LINEAGE = re.compile(r"[0-9a-f]{32}")


class Memo:
    """Records and states under one location, shared by all processes of all studies that use it.

    **Who writes, and in what order**

    Any process may write at any time; there is no lock and no coordinator. A process that has trained an epoch first
    stores the state (`put_state`), if it is to be stored, and then publishes the record, which names the state
    (`commit`). The creation of the record is the commit of the epoch. A state that is ready only after its record is
    attached to it with `anchor`, which likewise stores the state first and then points to it. Measurements are written
    by whichever process has taken them. `compact` and `evict` are housekeeping: a driver calls them at the end of a
    run, while other processes may read and write, or do the same.

    **What is atomic**

    The creation of one object: a record, a state, a segment, an anchor, a measurement. No object is modified once it is
    created. Nothing is atomic across two objects: there may be a state that no record names, or a record that is both
    loose and in a segment, and both are harmless.

    **Races**

    The first record of a lineage wins. `commit` returns it to every process that comes later, and these losers adopt
    it: its metrics and, because training again on a GPU may give other bytes, its state. A loser's own state is left
    unnamed. A compacted lineage stays taken: `commit` looks at the segments after it has created a record, and deletes
    that again if the lineage is in one. The first measurement wins too, and so does the first anchor for as long as its
    state can be read.

    **What a reader sees**

    `find` returns a record that is whole and verified, the same one in every process, or None. It remembers records,
    which never change, and looks again for what it did not find. Compaction hides nothing from it, because a segment is
    published before the loose records are deleted, and is looked for after them; where both exist, the segment's record
    counts. `state_of` returns verified bytes or None. A state may be missing at any time: not stored yet, evicted, or
    damaged. The caller then trains the epoch again, from an earlier state, and anchors the result.

    **Threads and processes**

    Each process constructs a memo of its own, which is cheap and touches nothing until it is used, or unpickles one.
    The methods for records (`find` to `compact`) share a cache and must be called from one thread. All others hold
    nothing in memory and may be called from any thread at any time.

    **Failures**

    Every method that reads or writes raises StorageError when the storage fails. Whether the operation took effect is
    then unknown, and repeating it is safe. A process that is killed leaves no partial object under a final name; it may
    leave a state that no record names, a compaction that the next one completes and, in a folder, a temporary file
    ``<name>#<number>`` that nothing reads. A power failure may lose, tear or empty what was written shortly before,
    since only segments are flushed to the disk. Damage is noticed when an object is read, for each contains its digest,
    is named by it or, as an anchor, is the name of an object that is. A damaged object counts as absent and is set
    aside, which frees its name: an epoch whose record was damaged may be trained and committed again.

    **What is deleted**

    States, by `evict`, and loose records whose lineage is in a segment. Nothing else: records, segments, anchors and
    measurements are kept for ever, and of the damaged objects the last one of each name.

    Args:
        location: A folder, or a URL such as ``s3://bucket/prefix``.
    """

    def __init__(self, location: str | Path) -> None:
        self._objects = ObjectStore(location)
        self._segments = Segments(self._objects)
        self._known: dict[str, Record] = {}

    def __reduce__(self) -> tuple[type[Memo], tuple[str]]:
        return type(self), (self.location,)

    @property
    def location(self) -> str:
        """Where the memo lies: an absolute path, or a URL."""
        return self._objects.location

    # Records

    def find(self, lineage: str) -> Record | None:
        """The record of an epoch, or None."""
        if not _LINEAGE.fullmatch(lineage):  # from a table that somebody else may have written
            return None
        seen = self._known.get(lineage) or self._segments.get(lineage)
        if seen is not None:
            return self.learn(seen)
        path = _record_path(lineage)
        data = self._objects.get(path)
        self._segments.refresh()  # after looking for the loose record: it may have been compacted just now
        if (compacted := self._segments.get(lineage)) is not None:
            return self.learn(compacted)
        if data is None:
            return None
        record = parse(lineage, data)
        if record is None:
            self._objects.set_aside(path, data)
            return None
        return self.learn(record)

    def finder(self) -> Callable[[str], Record | None]:
        """`find` limited to the records that exist now; fast for thousands of lineages most of which have none."""
        loose = {listed.name for listed in self._objects.listing("records")}
        self._segments.refresh()  # after listing: what was compacted meanwhile is in them

        def find(lineage: str) -> Record | None:
            exists = lineage in loose or lineage in self._known or self._segments.get(lineage) is not None
            return self.find(lineage) if exists else None

        return find

    def known(self, lineage: str) -> Record | None:
        """The record of an epoch if this memo has seen it; does not read the storage."""
        return self._known.get(lineage)

    def learn(self, record: Record) -> Record:
        """Remember a record that another process has committed; returns it."""
        self._known[record.lineage] = record
        return record

    def commit(self, record: Record) -> Record:
        """Publish an epoch. The state that the record names, if any, must be stored already.

        Returns:
            The record to go on with: the given one or, if another process was first, the winner's.

        Raises:
            StorageError: The storage failed.
            ValueError: A metric is not finite.
        """
        path = _record_path(record.lineage)
        while not self._objects.create(path, record.to_bytes()):
            if (winner := self.find(record.lineage)) is not None:
                return winner
            # The name was taken by a damaged record, which `find` has set aside.
        self._segments.refresh()  # if the lineage was compacted before our record was created, its segment is there now
        if (winner := self._segments.get(record.lineage)) is not None:
            self._objects.delete(path)
            return self.learn(winner)
        return self.learn(record)

    def compact(self, at_least: int = 256) -> int:
        """Move all loose records into segments, if there are `at_least` or more; returns how many were moved."""
        paths = sorted(listed.path for listed in self._objects.listing("records"))
        if len(paths) < at_least:
            return 0
        return sum(self._compact(paths[start : start + SEGMENT_ROWS]) for start in range(0, len(paths), SEGMENT_ROWS))

    def _compact(self, paths: list[str]) -> int:
        """Move the loose records under `paths` into one segment; damaged ones stay for `find` to set aside."""
        rows: list[Row] = []
        for path in paths:
            data = self._objects.get(path) or b""
            if (record := parse(_name(path), data)) is not None:
                rows.append(Row(record.created_at, record.lineage, data))
        self._segments.refresh()  # after reading: a name that was compacted before is not compacted again
        if new := [row for row in rows if self._segments.get(row.lineage) is None]:
            self._segments.publish(new)
        for row in rows:
            self._objects.delete(_record_path(row.lineage))
        return len(rows)

    # States

    def refuse_state(self, record: Record) -> None:
        """Set aside the states of an epoch that `state_of` returned and that are none of its training's.

        The epoch is then trained again, and its state anchored. Whoever may write to the storage can put bytes under
        their own digest, and name it in a record.
        """
        for digest in self.digests_of(record):
            if _DIGEST.fullmatch(digest.encode()) and (data := self._objects.get(f"states/{digest}")) is not None:
                self._objects.set_aside(f"states/{digest}", data)

    def put_state(self, state: bytes) -> str:
        """Store a state; returns its digest."""
        return _name(self._objects.create_addressed("states", state))

    def anchor(self, lineage: str, state: bytes) -> None:
        """Store a state for an epoch whose record was committed without one, or whose state is gone.

        If another process has anchored one already that can be read, `state_of` keeps returning that one.
        """
        path, digest = f"anchors/{lineage}", self.put_state(state).encode()
        while not self._objects.create(path, digest):
            existing = self._objects.get(path)
            if existing == digest or (existing is not None and self._state(existing) is not None):
                return
            if existing is not None:  # torn, or its state is gone
                self._objects.set_aside(path, existing)

    def state_of(self, record: Record) -> bytes | None:
        """The state that an epoch ended with, verified, or None if it is not stored."""
        if record.state is not None and (state := self._state(record.state.encode())) is not None:
            return state
        anchor = self._objects.get(f"anchors/{record.lineage}")
        return self._state(anchor) if anchor is not None else None

    def digests_of(self, record: Record) -> set[str]:
        """The digests under which an epoch's state may be stored: the one in its record, the one in its anchor."""
        anchor = self._objects.get(f"anchors/{record.lineage}")
        return {digest for digest in (record.state, anchor.decode(errors="replace") if anchor else None) if digest}

    def state_sizes(self) -> dict[str, int]:
        """The size of every stored state in bytes, by its digest."""
        return {state.name: state.size_bytes for state in self._objects.listing("states")}

    def evict(self, keep: Iterable[str], limit_bytes: int) -> int:
        """Delete the oldest states until the rest takes at most `limit_bytes`.

        Args:
            keep: Digests of states that are not deleted, even if the limit is exceeded.
            limit_bytes: How much the states may take, at least 0.

        Returns:
            How many bytes were freed.
        """
        kept = set(keep)
        states = self._objects.listing("states")
        excess_bytes, freed_bytes = sum(state.size_bytes for state in states) - limit_bytes, 0
        for state in sorted(states, key=lambda state: state.modified_at):
            if freed_bytes >= excess_bytes:
                break
            if state.name not in kept:
                self._objects.delete(state.path)
                freed_bytes += state.size_bytes
        return freed_bytes

    def _state(self, digest: bytes) -> bytes | None:
        """The state of this digest, or None; what an anchor contains need not be a digest."""
        return self._objects.get_addressed(f"states/{digest.decode()}") if _DIGEST.fullmatch(digest) else None

    # Files of the user's code

    def put_file(self, data: bytes) -> str:
        """Store a file that other nodes need; returns its digest."""
        return _name(self._objects.create_addressed("files", data))

    def file(self, digest: str) -> bytes | None:
        """The file with this digest, verified, or None."""
        return self._objects.get_addressed(f"files/{digest}")

    # Weights that training begins with

    def put_weights(self, data: bytes) -> str:
        """Store the tensors of fitted weights, as safetensors; returns their digest."""
        return _name(self._objects.create_addressed("weights", data))

    def weights(self, digest: str) -> bytes | None:
        """The weights with this digest, verified, or None."""
        return self._objects.get_addressed(f"weights/{digest}")

    def has_weights(self, digest: str) -> bool:
        """Whether weights with this digest are stored; does not read them."""
        return any(listed.name == digest for listed in self._objects.listing("weights"))

    # Measurements. The key "fact" is that of all versions: under another one, earlier measurements would be lost.

    def measurement(self, path: str, *needed: str) -> dict[str, Any] | None:
        """A small measurement that was stored under `path`, verified, or None.

        One without a finite number of at least 0 under each of the names `needed` counts as damaged.
        """
        data = self._objects.get(path)
        if data is None:
            return None
        try:
            stored = json.loads(data)
            values: dict[str, Any] = stored["fact"]
            is_sound = isinstance(values, dict) and all(0 <= values[name] < math.inf for name in needed)
            if is_sound and stored["digest"] == _values_digest(values):
                return values
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        self._objects.set_aside(path, data)
        return None

    def put_measurement(self, path: str, values: Mapping[str, Any]) -> None:
        """Store a small measurement, a map of JSON values, unless there is one under `path` already."""
        stored = {"fact": dict(values), "digest": _values_digest(values)}
        self._objects.create(path, json.dumps(stored, sort_keys=True).encode())


def _values_digest(values: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()


def _record_path(lineage: str) -> str:
    return f"records/{lineage[:2]}/{lineage}"


def _name(path: str) -> str:
    return path.rsplit("/", 1)[1]
