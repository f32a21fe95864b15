"""``csv:PATH``: a table with one row per image: its path, its label or labels, and any further columns."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lrstudy.data.cells import POOL, Label, labels_of, parts_of
from lrstudy.data.sources.base import PART_COLUMNS, Encoded
from lrstudy.errors import Fault, InputError, unknown


@dataclass(frozen=True)
class CsvFile:
    """A CSV file with a header. Image paths are relative to `root`, by default the folder of the file.

    The label column holds one label, or several joined by ``|``: always if `multilabel` is true, and if it is None as
    soon as any cell contains a ``|``. If the default column `label` is missing, `labels` is read instead. A column
    `split` or `part` assigns the parts if it holds nothing but train, val (validation) and test.
    """

    path: Path
    image_column: str
    label_column: str
    root: str | None
    multilabel: bool | None

    def fingerprint(self) -> dict[str, object]:
        """Size and modification time of the file and of every image that it names, and the columns read."""
        files = []
        for file in [self.path, *self._images]:
            try:
                status = file.stat()
            except OSError as error:
                raise InputError(Fault("data", f"{self.path.name} names {file}: {error.strerror}")) from None
            files.append([str(file), status.st_size, status.st_mtime_ns])
        columns = {"image": self.image_column, "label": self._label}
        return {"source": "csv", "columns": columns, "multilabel": self.multilabel, "files": files}

    def labels(self) -> tuple[list[Label], list[int]]:
        """Labels as text or tuples, and the parts that the file gives."""
        cells, where = self.column(self._label), f"data: {self.path.name}, column {self._label!r}"
        labels = labels_of(cells, where, self.multilabel)
        if "" in labels:
            raise InputError(Fault("data", f"{self.path.name} has no {self._label} in row {labels.index('') + 2}"))
        return labels, self._parts()

    def column(self, name: str) -> list[str]:
        """The cells of a column, with surrounding spaces removed."""
        header, rows = self._table
        if name not in header:
            raise InputError(unknown(f"data: {self.path.name}", "column", name, header))
        position = header.index(name)
        return [row[position].strip() for row in rows]

    def names(self) -> list[str]:
        """The paths of the images, as the file has them."""
        return self.column(self.image_column)

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """The path of each row's image."""
        return ((path.name, path) for path in self._images)

    @property
    def _label(self) -> str:
        header, _ = self._table
        if self.label_column == "label" and "label" not in header and "labels" in header:
            return "labels"
        return self.label_column

    @cached_property
    def _images(self) -> list[Path]:
        folder = self.path.parent if self.root is None else Path(self.root)
        names = self.column(self.image_column)
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            shown = ", ".join(repeated[:5]) + (", ..." if len(repeated) > 5 else "")
            raise InputError(Fault("data", f"{self.path.name} lists {len(repeated)} images more than once ({shown})"))
        return [folder / name for name in names]

    def _parts(self) -> list[int]:
        header, rows = self._table
        for name in PART_COLUMNS:
            if name in header:
                parts = parts_of(self.column(name), f"data: {self.path.name}, column {name!r}")
                if parts is not None:
                    return parts
        return [POOL] * len(rows)

    @cached_property
    def _table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows; rows without any cell are skipped."""
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                header, *rows = [row for row in csv.reader(file) if row] or [[]]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(Fault("data", f"{self.path} cannot be read as CSV ({error})")) from None
        ragged = next((number for number, row in enumerate(rows, start=2) if len(row) != len(header)), None)
        if ragged is not None:
            num_cells = len(rows[ragged - 2])
            raise InputError(
                Fault("data", f"{self.path.name} has {len(header)} columns, but line {ragged} has {num_cells}")
            )
        return [name.strip() for name in header], rows
