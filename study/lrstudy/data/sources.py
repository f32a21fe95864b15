"""Where examples come from: a source lists labels first, then streams its images still encoded.

Nothing is decoded and nothing is imported that a warm start does not need: `Source.fingerprint` looks at
names, sizes and times of files only. Reading a source twice gives the same examples in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lrstudy import faults, own
from lrstudy.data.spec import DataSpec

POOL, VALIDATION, TEST = 0, 1, 2
"""Which part of the data the source itself puts an example in; the pool is what splits divide."""

Label = int | str | tuple[str, ...]
"""The class of an example; or, as a tuple, the names of all the labels it has."""
Encoded = bytes | Path | NDArray[np.uint8]
"""An image before decoding: bytes of an image file, its path, or pixels of shape (H, W) or (H, W, 3)."""

EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".webp",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
    ]
)
_PART_FOLDERS = {"train": POOL, "val": VALIDATION, "validation": VALIDATION, "test": TEST}
_PART_FILES = {"train.parquet": POOL, "validation.parquet": VALIDATION, "test.parquet": TEST}
NO_LABEL = frozenset(["", "no finding", "none"])
"""What stands for "no label" where an example may have several."""
_ROWS = 256  # rows of a Parquet file held in memory at once


class Source(Protocol):
    """A readable data set. Its methods raise InputError for what the user can mend."""

    def fingerprint(self) -> dict[str, object]:
        """What identifies the content without reading it: JSON values."""

    def labels(self) -> tuple[list[Label], list[int]]:
        """Label and given part (POOL, VALIDATION or TEST) of every example: all integers, all strings or all tuples."""

    def column(self, name: str) -> list[str]:
        """Another column, as text: a group, or what a split goes by. Raises InputError if there is none."""

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Name (for messages) and encoded image of every example, in the order of `labels`."""


def open_source(spec: DataSpec) -> Source:
    """The source that `spec.source` names; nothing is read yet, but a user's module is loaded.

    Raises InputError for a kind that does not exist.
    """
    from lrstudy.data import arrays, csv_file, torchvision_sets

    kind, colon, path = spec.source.partition(":")
    if own.is_reference(spec.source):
        return arrays.OwnData(spec.source)
    if spec.source == "digits":
        return Digits()
    if spec.source.lower() in torchvision_sets.SETS:
        return torchvision_sets.TorchvisionSet(spec.source.lower(), spec.root, spec.download)
    if colon and kind == "folder":
        return Folder(Path(path))
    if colon and kind == "parquet":
        return Parquet(Path(path), spec.image_column, spec.label_column, spec.multilabel)
    if colon and kind == "csv":
        return csv_file.CsvFile(Path(path), spec.image_column, spec.label_column, spec.root, spec.multilabel)
    if colon and kind == "npz":
        return arrays.NpzFile(Path(path))
    kinds = ("digits", "folder:PATH", "parquet:PATH", "csv:PATH", "npz:PATH", "./mine.py:load")
    raise faults.InputError(faults.unknown("data", "source", spec.source, (*kinds, *torchvision_sets.SETS)))


def split_labels(cell: str) -> tuple[str, ...]:
    """The labels in a cell such as ``Effusion|Mass``; none in an empty one or one that says so."""
    return tuple(part for part in (text.strip() for text in cell.split("|")) if part.lower() not in NO_LABEL)


class WithoutColumns:
    """A source that has images and labels only."""

    def column(self, name: str) -> list[str]:
        """There is none."""
        raise faults.InputError(
            f"data: there is no column {name!r}: {type(self).__name__} has images and labels only. Use parquet:, csv: or "
            "a function of your own where a group or a split goes by a column."
        )


@dataclass(frozen=True)
class Digits(WithoutColumns):
    """The 1797 handwritten digits that scikit-learn ships: 8 x 8, grey, ten classes, no given parts."""

    def fingerprint(self) -> dict[str, object]:
        """The scikit-learn version."""
        from importlib.metadata import version

        return {"source": "digits", "scikit-learn": version("scikit-learn")}

    def labels(self) -> tuple[list[Label], list[int]]:
        """The ten digits as integers, all in the pool."""
        target = self._load().target.tolist()
        return target, [POOL] * len(target)

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Grey pixels; the stored 0 ... 16 become 0 ... 255, rounded."""
        pixels = np.rint(self._load().images * (255 / 16)).astype(np.uint8)
        return ((f"digit {index}", image) for index, image in enumerate(pixels))

    @staticmethod
    def _load() -> Any:
        from sklearn.datasets import load_digits

        return load_digits()


@dataclass(frozen=True)
class Folder(WithoutColumns):
    """Image files in one folder per class: PATH/CLASS/*, or PATH/{train,val|validation,test}/CLASS/*.

    The second layout is meant if PATH/train exists; other folders beside it are then not read. Hidden
    files and files without an image's extension are passed over, as torchvision's ImageFolder does.
    """

    path: Path

    def fingerprint(self) -> dict[str, object]:
        """Relative path, size and modification time of every image."""
        return {"source": "folder", "files": _stat(self.path, [file for _, _, file in self._files()])}

    def labels(self) -> tuple[list[Label], list[int]]:
        """The names of the class folders."""
        files = self._files()
        return [label for label, _, _ in files], [part for _, part, _ in files]

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Paths, sorted by part, class and file name."""
        return ((str(file.relative_to(self.path)), file) for _, _, file in self._files())

    def _files(self) -> list[tuple[str, int, Path]]:
        parts = self._parts()
        found = []
        for folder, part in parts:
            classes = [entry for entry in _listing(folder) if entry.is_dir()]
            if not classes:
                expected = "one folder of images per class, or train/ and test/ with such folders"
                raise faults.InputError(f"data: the folder {folder} has no class folders; expected {expected}.")
            for entry in classes:
                images = _images_in(Path(entry.path))
                if part == POOL and not images:
                    endings = ", ".join(sorted(EXTENSIONS))
                    raise faults.InputError(
                        f"data: the class folder {entry.path} has no images (files ending in {endings})."
                    )
                found += [(entry.name, part, image) for image in images]
        return found

    def _parts(self) -> list[tuple[Path, int]]:
        names = {entry.name for entry in _listing(self.path) if entry.is_dir()}
        if "train" not in names:
            return [(self.path, POOL)]
        if {"val", "validation"} <= names:
            raise faults.InputError(f"data: {self.path} has both val/ and validation/; keep one of them.")
        return [(self.path / name, part) for name, part in _PART_FOLDERS.items() if name in names]


@dataclass(frozen=True)
class Parquet:
    """A Parquet file, or a folder with train.parquet and optionally validation.parquet and test.parquet.

    The image column holds the bytes of image files, or structs with a field `bytes`; the label column
    holds integers, booleans or strings, or, where an example may have several, lists of names or names joined by ``|``.
    """

    path: Path
    image_column: str
    label_column: str
    multilabel: bool | None = None

    def fingerprint(self) -> dict[str, object]:
        """Name, size and modification time of every file, and the columns read."""
        columns = {"image": self.image_column, "label": self.label_column}
        root = self.path if self.path.is_dir() else self.path.parent
        files = _stat(root, [file for file, _ in self._files()])
        return {"source": "parquet", "columns": columns, "files": files}

    def labels(self) -> tuple[list[Label], list[int]]:
        """The label column of all files; a missing label is a fault."""
        import pyarrow.types as types

        labels: list[Label] = []
        parts: list[int] = []
        for file, part in self._files():
            with self._opened(file) as table:
                column = table.read(columns=[self.label_column])[0].combine_chunks()
            column = column.dictionary_decode() if types.is_dictionary(column.type) else column
            if (several := self._several(column)) is not None:
                labels += several
                parts += [part] * len(column)
                continue
            where = f"data: the column {self.label_column!r} of {file.name}"
            if types.is_boolean(column.type):
                column = column.cast("int8")
            elif not (types.is_integer(column.type) or _is_text(column.type)):
                raise faults.InputError(
                    f"{where} holds {column.type}; expected integers or strings, one class for each image."
                )
            if column.null_count:
                row = column.is_null().to_pylist().index(True)
                raise faults.InputError(f"{where} has no label in row {row} ({column.null_count} such rows).")
            labels += column.to_pylist()
            parts += [part] * len(column)
        if len({type(label) for label in labels}) > 1:
            raise faults.InputError(
                f"data: the column {self.label_column!r} holds integers in one file, strings in another."
            )
        return labels, parts

    def column(self, name: str) -> list[str]:
        """A column of all files as text; empty where it has no value."""
        values: list[str] = []
        for file, _ in self._files():
            with self._opened(file) as table:
                if name not in table.schema_arrow.names:
                    raise faults.InputError(
                        faults.unknown(f"data: {file.name}", "column", name, table.schema_arrow.names)
                    )
                values += ["" if value is None else str(value) for value in table.read(columns=[name])[0].to_pylist()]
        return values

    def _several(self, column: Any) -> list[Label] | None:
        """The labels of each row, if the column holds several for one image."""
        import pyarrow.types as types

        if types.is_list(column.type) or types.is_large_list(column.type):
            return _rows_of_lists([row or [] for row in column.to_pylist()])
        if not _is_text(column.type) or self.multilabel is False:
            return None
        rows = [value or "" for value in column.to_pylist()]
        return [split_labels(row) for row in rows] if self.multilabel or any("|" in row for row in rows) else None

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Bytes of each row, at most 256 rows of a row group at a time; b"" where a row has none."""
        for file, _ in self._files():
            with self._opened(file) as table:
                row = 0
                for batch in table.iter_batches(_ROWS, columns=[self.image_column]):
                    for value in batch[0].to_pylist():
                        encoded = value.get("bytes") if isinstance(value, dict) else value
                        yield f"{file.name} row {row}", encoded or b""
                        row += 1

    def _files(self) -> list[tuple[Path, int]]:
        if not self.path.is_dir():
            if not self.path.exists():
                raise faults.InputError(f"data: there is no file or folder {self.path}.")
            return [(self.path, POOL)]
        names = {entry.name for entry in _listing(self.path)}
        if "train.parquet" not in names:
            raise faults.InputError(
                f"data: the folder {self.path} has no train.parquet (and beside it, if you like, "
                "validation.parquet and test.parquet)."
            )
        return [(self.path / name, part) for name, part in _PART_FILES.items() if name in names]

    def _opened(self, file: Path) -> Any:
        """The file as a pyarrow ParquetFile, with both columns checked."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(file)
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise faults.InputError(f"data: {file} is not a readable Parquet file ({reason}).") from None
        schema = table.schema_arrow
        for column in (self.image_column, self.label_column):
            if column not in schema.names:
                raise faults.InputError(faults.unknown(f"data: {file.name}", "column", column, schema.names))
        stored = schema.field(self.image_column).type
        if pa.types.is_struct(stored) and stored.get_field_index("bytes") >= 0:
            stored = stored.field("bytes").type
        if not _is_bytes(stored):
            raise faults.InputError(
                f"data: the column {self.image_column!r} of {file.name} holds {stored}; expected the bytes "
                "of image files, or structs with a field `bytes`."
            )
        return table


def _images_in(folder: Path) -> list[Path]:
    """Image files directly in a class folder, sorted by name; a folder within it is a fault."""
    images = []
    for entry in _listing(folder):
        if entry.is_dir():
            raise faults.InputError(
                f"data: {folder} holds the folder {entry.name!r}; expected image files, as each folder in "
                f"{folder.parent} is a class. (Parts are called train, validation and test.)"
            )
        if os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
            images.append(Path(entry.path))
    return images


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, without hidden entries."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except FileNotFoundError:
        raise faults.InputError(f"data: there is no folder {folder}.") from None
    except NotADirectoryError:
        raise faults.InputError(f"data: {folder} is a file; expected a folder.") from None
    except OSError as error:
        raise faults.InputError(f"data: the folder {folder} cannot be read ({error.strerror}).") from None


def _stat(root: Path, files: Iterable[Path]) -> list[list[object]]:
    """Path relative to `root`, size and modification time (ns) of each file."""
    rows: list[list[object]] = []
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise faults.InputError(f"data: {file} cannot be read ({error.strerror}).") from None
        rows.append([file.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns])
    return rows


def _rows_of_lists(rows: list[list[Any]]) -> list[Label]:
    """Lists of names or numbers of labels; or, where all are as long and hold 0 and 1 only, one place for each label."""
    lengths, values = {len(row) for row in rows}, {value for row in rows for value in row}
    if len(lengths) == 1 and max(lengths) > 1 and values <= {0, 1}:
        digits = len(str(max(lengths) - 1))
        return [tuple(f"{place:0{digits}d}" for place, value in enumerate(row) if value) for row in rows]
    return [tuple(str(name) for name in row) for row in rows]


def _is_text(type_: Any) -> bool:
    return str(type_) in ("string", "large_string", "string_view")


def _is_bytes(type_: Any) -> bool:
    return str(type_) in ("binary", "large_binary", "binary_view")
