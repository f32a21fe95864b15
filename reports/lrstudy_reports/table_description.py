"""What a table of a report is: its columns, with units and meanings."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column of a table; `unit` is empty where its values have none."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str


@dataclass(frozen=True)
class TableDescription:
    """A table: what a row of it is, and its columns in their order.

    `patterns` stand for the columns that depend on the study; in the file they come last.
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    patterns: tuple[Column, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the columns that every such table has."""
        return [column.name for column in self.columns]

    @property
    def schema(self) -> pa.Schema:
        """Those columns, for Arrow."""
        return pa.schema([(column.name, column.type) for column in self.columns])
