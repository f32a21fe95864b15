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
from lrstudy.data.cells import PART_NAMES, POOL, Label, as_text, labels_of, parts_of
from lrstudy.data.spec import DataSpec

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
    """Image files in one folder per class: PATH/CLASS/*, or PATH/{train,val,test}/CLASS/* (also valid, validation, dev, ...).

    The second layout is meant if PATH/train exists; other folders beside it are then not read. Hidden
    files and files without an image's extension are passed over, as torchvision's ImageFolder does.
    """

    path: Path

    def fingerprint(self) -> dict[str, object]:
        """Relative path, size and modification time of every image."""
        return {
            "source": "folder",
            "path": str(self.path),
            "files": _stat(self.path, [file for _, _, file in self._files()]),
        }

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
        names = [entry.name for entry in _listing(self.path) if entry.is_dir()]
        if "train" not in names:
            return [(self.path, POOL)]
        return [(self.path / name, part) for name, part in _given_parts(self.path, names, "/")]


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
        return {"source": "parquet", "path": str(self.path), "columns": columns, "files": files}

    def labels(self) -> tuple[list[Label], list[int]]:
        """The label column of all files, read as one; a missing label is a fault."""
        rows: list[Any] = []
        parts: list[int] = []
        kinds: dict[str, str] = {}
        for file, part in self._files():
            column = self._read(file, self.label_column)
            kinds[file.name] = self._kind(file, column)
            rows += column.to_pylist()
            parts += [part] * len(column)
        if len(set(kinds.values())) > 1:
            said = ", ".join(f"{kind} in {name}" for name, kind in kinds.items())
            raise faults.InputError(f"data: the column {self.label_column!r} holds {said}; expected one kind.")
        where = f"data: the column {self.label_column!r}"
        if "lists" in kinds.values():
            return labels_of(rows, where, self.multilabel), self._parts(parts)
        missing = [k for k, row in enumerate(rows) if row is None]
        if missing and not self.multilabel:
            raise faults.InputError(f"{where} has no label in row {missing[0]} ({len(missing)} such rows).")
        return labels_of(["" if row is None else row for row in rows], where, self.multilabel), self._parts(parts)

    def _kind(self, file: Path, column: Any) -> str:
        import pyarrow.types as types

        if types.is_list(column.type) or types.is_large_list(column.type):
            return "lists"
        if types.is_boolean(column.type) or types.is_integer(column.type):
            return "integers"
        if _is_text(column.type):
            return "strings"
        raise faults.InputError(
            f"data: the column {self.label_column!r} of {file.name} holds {column.type}; expected integers or strings, one class "
            "for each image, or lists of several."
        )

    def _parts(self, parts: list[int]) -> list[int]:
        """Those of a column `split` or `part` of a single file, as in a CSV file; else the files'."""
        names = column_names(self._files()[0][0]) if not self.path.is_dir() else []
        for name in PART_COLUMNS:
            if name in names and name != self.label_column:
                found = parts_of(self.column(name), f"data: the column {name!r}")
                if found is not None:
                    return found
        return parts

    def _read(self, file: Path, name: str) -> Any:
        """A column of one file. Raises InputError if it is damaged."""
        import pyarrow as pa
        import pyarrow.types as types

        with self._opened(file) as table:
            try:
                column = table.read(columns=[name])[0].combine_chunks()
            except (OSError, pa.ArrowException) as error:
                raise faults.InputError(f"data: {file} is damaged ({' '.join(str(error).split())[:160]}).") from None
        return column.dictionary_decode() if types.is_dictionary(column.type) else column

    def column(self, name: str) -> list[str]:
        """A column of all files as text; empty where it has no value."""
        values: list[str] = []
        for file, _ in self._files():
            with self._opened(file) as table:
                if name not in table.schema_arrow.names:
                    raise faults.InputError(
                        faults.unknown(f"data: {file.name}", "column", name, table.schema_arrow.names)
                    )
            values += [as_text(value) for value in self._read(file, name).to_pylist()]
        return values

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
        names = [entry.name for entry in _listing(self.path)]
        if "train.parquet" not in names:
            raise faults.InputError(
                f"data: the folder {self.path} has no train.parquet (and beside it, if you like, "
                "validation.parquet and test.parquet)."
            )
        stems = [name.removesuffix(".parquet") for name in names if name.endswith(".parquet")]
        return [(self.path / f"{stem}.parquet", part) for stem, part in _given_parts(self.path, stems, ".parquet")]

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


PART_COLUMNS = ("split", "part")
"""Columns that say which part an example is in, if they hold the names of parts."""


def column_names(file: Path, where: str = "data") -> list[str]:
    """The columns of a Parquet file. Raises InputError, which begins with `where`, if it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(file).names)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise faults.InputError(f"{where}: {file} is not a readable Parquet file ({reason}).") from None


def _given_parts(folder: Path, names: list[str], ending: str) -> list[tuple[str, int]]:
    """Those of `names` that are parts, the pool first. Raises InputError if two mean the same one."""
    found: dict[int, str] = {}
    for name in names:
        part = PART_NAMES.get(name.lower())
        if part is not None and part in found:
            both = " and ".join(f"{each}{ending}" for each in (found[part], name))
            raise faults.InputError(f"data: {folder} has both {both}; keep one of them.")
        if part is not None:
            found[part] = name
    return [(found[part], part) for part in sorted(found)]


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


def _is_text(type_: Any) -> bool:
    return str(type_) in ("string", "large_string", "string_view")


def _is_bytes(type_: Any) -> bool:
    return str(type_) in ("binary", "large_binary", "binary_view")
