"""Segments: Parquet files that hold many records each, so that small files do not pile up.

    segments/<digest>.parquet    columns `lineage` and `record` (the bytes that were committed), oldest record first

A segment is named by the digest of its bytes and never changes. Two may hold the same record.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lrstudy.memo.objects import ObjectStore
from lrstudy.memo.records import Record, parse

FOLDER = "segments"
_GROUP_ROWS = 200
"""Rows in a row group, which is decoded as a whole: what a look-up costs if no record near it was looked up before."""


_NOT_OURS = (pa.ArrowException, ValueError, TypeError, KeyError, OSError)
"""What reading a Parquet file raises that is none, or has other columns, though its name is its digest."""
_MOST_ROWS = 10_000_000


class Row(NamedTuple):
    """A record in a segment. Rows sort by age."""

    created_at: float
    lineage: str
    data: bytes


class Segments:
    """The segments of an object store, as of the last `refresh`. Not thread-safe."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._opened: dict[str, _Segment] = {}

    def refresh(self) -> None:
        """Open the segments published since the last call; damaged ones, and other files, are set aside.

        Raises StorageError.
        """
        for path in [listed.path for listed in self._objects.listing(FOLDER)]:
            if path in self._opened or (data := self._objects.get_addressed(path)) is None:
                continue
            try:
                self._opened[path] = _Segment(data)
            except _NOT_OURS:
                self._objects.set_aside(path, data)

    def get(self, lineage: str) -> Record | None:
        """The record of an epoch in one of the opened segments, or None."""
        for segment in self._opened.values():
            try:
                data = segment.get(lineage)
            except _NOT_OURS:
                continue
            if data is not None and (record := parse(lineage, data)) is not None:
                return record
        return None

    def publish(self, rows: Sequence[Row]) -> None:
        """Write a segment. On return it is on the disk, so the loose records may be deleted. Raises StorageError."""
        ordered = sorted(rows)
        table = pa.table({"lineage": [row.lineage for row in ordered], "record": [row.data for row in ordered]})
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", row_group_size=_GROUP_ROWS)
        self._objects.sync(self._objects.create_addressed(FOLDER, sink.getvalue(), ".parquet"))


class _Segment:
    """One segment in memory: its names decoded, its records one row group at a time as they are asked for.

    A new memo opens every segment, and most look up few of the records. Of 100,000 records the names take 0.1 s to
    decode, and everything as Python objects 0.7 s. The epochs of one training are close in age, so they share groups.
    """

    def __init__(self, data: bytes) -> None:
        self._file = pq.ParquetFile(pa.BufferReader(data))
        if self._file.metadata.num_rows > _MOST_ROWS:
            raise ValueError("a segment of so many rows is none of ours")
        lineages = self._file.read(["lineage"])["lineage"].to_numpy().astype("S")
        self._order = np.argsort(lineages, kind="stable")
        self._lineages = lineages[self._order]
        metadata = self._file.metadata
        num_rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._first_rows = np.cumsum([0, *num_rows])
        self._groups: dict[int, Any] = {}

    def get(self, lineage: str) -> bytes | None:
        """The bytes of a record, or None if it is not here."""
        key = np.bytes_(lineage.encode())
        place = int(np.searchsorted(self._lineages, key))
        if place == len(self._lineages) or self._lineages[place] != key:
            return None
        row = int(self._order[place])
        group = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        if group not in self._groups:
            self._groups[group] = self._file.read_row_group(group, ["record"])["record"]
        return bytes(self._groups[group][row - int(self._first_rows[group])].as_py())
