"""``parquet:PATH``: one file, or a folder with one file per part; images as bytes, labels in a column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrstudy.data.cells import POOL, Label, as_text, labels_of, parts_of
from lrstudy.data.sources.base import PART_COLUMNS, Encoded
from lrstudy.data.sources.files import given_parts, listing, stat
from lrstudy.errors import Fault, InputError, unknown

_BATCH_ROWS = 256
"""Rows of a Parquet file that are held in memory at once."""


@dataclass(frozen=True)
class Parquet:
    """A Parquet file, or a folder with train.parquet and optionally validation.parquet and test.parquet.

    The image column holds the bytes of image files, or structs with a field `bytes`. The label column holds integers,
    booleans or strings; or, if an example may have several labels, lists of names or names joined by ``|``.
    """

    path: Path
    image_column: str
    label_column: str
    multilabel: bool | None = None

    def fingerprint(self) -> dict[str, object]:
        """Name, size and modification time of every file, and the columns read."""
        columns = {"image": self.image_column, "label": self.label_column}
        root = self.path if self.path.is_dir() else self.path.parent
        files = stat(root, [file for file, _ in self._files()])
        return {"source": "parquet", "path": str(self.path), "columns": columns, "files": files}

    def labels(self) -> tuple[list[Label], list[int]]:
        """The label column of all files, read as one. Raises InputError for a missing label."""
        rows: list[Any] = []
        parts: list[int] = []
        kinds: dict[str, str] = {}
        for file, part in self._files():
            column = self._read(file, self.label_column)
            kinds[file.name] = self._kind(file, column)
            rows += column.to_pylist()
            parts += [part] * len(column)
        if len(set(kinds.values())) > 1:
            kinds_by_file = ", ".join(f"{kind} in {name}" for name, kind in kinds.items())
            raise InputError(
                Fault("data", f"the column {self.label_column!r} holds {kinds_by_file}; expected one kind")
            )
        where = f"data: the column {self.label_column!r}"
        if "lists" in kinds.values():
            return labels_of(rows, where, self.multilabel), self._parts(parts)
        missing = [k for k, row in enumerate(rows) if row is None]
        if missing and not self.multilabel:
            raise InputError(Fault(where, f"there is no label in row {missing[0]} ({len(missing)} such rows)"))
        return labels_of(["" if row is None else row for row in rows], where, self.multilabel), self._parts(parts)

    def _kind(self, file: Path, column: Any) -> str:
        """What a column of labels holds: ``lists``, ``integers`` or ``strings``. Raises InputError for other types."""
        import pyarrow.types as types

        if types.is_list(column.type) or types.is_large_list(column.type):
            return "lists"
        if types.is_boolean(column.type) or types.is_integer(column.type):
            return "integers"
        if _is_text(column.type):
            return "strings"
        raise InputError(
            Fault(
                "data",
                f"the column {self.label_column!r} of {file.name} holds {column.type}; expected integers or "
                "strings, one class for each image, or lists of several",
            )
        )

    def _parts(self, parts: list[int]) -> list[int]:
        """The parts that a single file names in a column `split` or `part`, as a CSV file may; otherwise `parts`."""
        names = column_names(self._files()[0][0]) if not self.path.is_dir() else []
        for name in PART_COLUMNS:
            if name in names and name != self.label_column:
                named = parts_of(self.column(name), f"data: the column {name!r}")
                if named is not None:
                    return named
        return parts

    def _read(self, file: Path, name: str) -> Any:
        """A column of one file. Raises InputError if it is damaged."""
        import pyarrow as pa
        import pyarrow.types as types

        with self._opened(file) as table:
            try:
                column = table.read(columns=[name])[0].combine_chunks()
            except (OSError, pa.ArrowException) as error:
                raise InputError(Fault("data", f"{file} is damaged ({' '.join(str(error).split())[:160]})")) from None
        return column.dictionary_decode() if types.is_dictionary(column.type) else column

    def column(self, name: str) -> list[str]:
        """A column of all files as text; an empty string for a missing value."""
        values: list[str] = []
        for file, _ in self._files():
            with self._opened(file) as table:
                if name not in table.schema_arrow.names:
                    raise InputError(unknown(f"data: {file.name}", "column", name, table.schema_arrow.names))
            values += [as_text(value) for value in self._read(file, name).to_pylist()]
        return values

    def names(self) -> list[str]:
        """File and row."""
        names: list[str] = []
        for file, _ in self._files():
            with self._opened(file) as table:
                names += [f"{file.name} row {row}" for row in range(table.metadata.num_rows)]
        return names

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """The bytes of each row's image, b"" for a row without; at most 256 rows of a row group are read at a time."""
        for file, _ in self._files():
            with self._opened(file) as table:
                row = 0
                for batch in table.iter_batches(_BATCH_ROWS, columns=[self.image_column]):
                    for value in batch[0].to_pylist():
                        encoded = value.get("bytes") if isinstance(value, dict) else value
                        yield f"{file.name} row {row}", encoded or b""
                        row += 1

    def _files(self) -> list[tuple[Path, int]]:
        """The files, each with the part that its name denotes. Raises InputError."""
        if not self.path.is_dir():
            if not self.path.exists():
                raise InputError(Fault("data", f"there is no file or folder {self.path}"))
            return [(self.path, POOL)]
        names = [entry.name for entry in listing(self.path)]
        if "train.parquet" not in names:
            raise InputError(
                Fault(
                    "data",
                    f"the folder {self.path} has no train.parquet (and beside it, if you like, validation.parquet and "
                    "test.parquet)",
                )
            )
        stems = [name.removesuffix(".parquet") for name in names if name.endswith(".parquet")]
        return [(self.path / f"{stem}.parquet", part) for stem, part in given_parts(self.path, stems, ".parquet")]

    def _opened(self, file: Path) -> Any:
        """The file as a pyarrow ParquetFile. Raises InputError unless it has both columns, one with images."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(file)
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(Fault("data", f"{file} is not a readable Parquet file ({reason})")) from None
        self._check_columns(file, table.schema_arrow)
        return table

    def _check_columns(self, file: Path, schema: Any) -> None:
        import pyarrow.types as types

        for column in (self.image_column, self.label_column):
            if column not in schema.names:
                raise InputError(unknown(f"data: {file.name}", "column", column, schema.names))
        stored = schema.field(self.image_column).type
        if types.is_struct(stored) and stored.get_field_index("bytes") >= 0:
            stored = stored.field("bytes").type
        if not _is_bytes(stored):
            raise InputError(
                Fault(
                    "data",
                    f"the column {self.image_column!r} of {file.name} holds {stored}; expected the bytes of image "
                    "files, or structs with a field `bytes`",
                )
            )


def column_names(file: Path, where: str = "data") -> list[str]:
    """The columns of a Parquet file. Raises InputError, placed at `where`, if it is not a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(file).names)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(Fault(where, f"{file} is not a readable Parquet file ({reason})")) from None


def _is_text(type_: Any) -> bool:
    return str(type_) in ("string", "large_string", "string_view")


def _is_bytes(type_: Any) -> bool:
    return str(type_) in ("binary", "large_binary", "binary_view")
