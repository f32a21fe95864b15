"""Examines a user's data before a study file is written for it: labels, parts, groups, and a sample of images."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lrstudy import user_code
from lrstudy.data.cells import PART_NAMES, TEST, VALIDATION
from lrstudy.data.labels import Labels, class_counts, encode
from lrstudy.data.open_source import open_source
from lrstudy.data.sources.base import Source
from lrstudy.data.sources.folder import EXTENSIONS
from lrstudy.data.sources.parquet import column_names
from lrstudy.data.sources.user_function import UserFunction
from lrstudy.data.spec import DataSpec, SplitSpec
from lrstudy.data.splits import Splits, split
from lrstudy.errors import Fault, InputError, user_path
from lrstudy.first_study.image_sample import ImageSample, sample

_IMAGE_COLUMNS = ("image", "img", "image_path", "path", "filepath", "file", "filename", "file_name", "image_id")
_LABEL_COLUMNS = (
    "label_name",
    "class_name",
    "label",
    "labels",
    "class",
    "target",
    "category",
    "diagnosis",
    "dx",
    "finding_labels",
    "y",
)
_GROUP_COLUMNS = (
    "patient", "patient_id", "patientid", "subject", "subject_id", "person", "person_id", "participant", "lesion_id",
    "case", "case_id", "group", "group_id",
)  # fmt: skip


@dataclass(frozen=True)
class Division:
    """How the data is divided, by the parts that it gives as far as they can be used.

    Args:
        splits: The parts.
        has_test: Whether the test part is the one that the data gives.
        has_validation: The same for validation.
        leak: Why the parts that the data gives were not used; empty if they were, or if there are none.
    """

    splits: Splits
    has_test: bool
    has_validation: bool
    leak: str


@dataclass(frozen=True)
class DataSummary:
    """What the data looks like.

    Args:
        source: The source, as a study file names it, with an absolute path.
        root: The folder to which a table's image paths are relative, if it is not the table's own.
        image_column: The column of images; None for a source without columns.
        label_column: The column of labels; None for a source without columns.
        group_column: The column of groups, if there is one.
        num_groups: The number of groups, 0 without a group column.
        labels: int64 (N,), or uint8 0 and 1 of shape (N, classes).
        classes: Sorted names of the classes.
        division: The parts.
        sample: The images.
    """

    source: str
    root: str | None
    image_column: str | None
    label_column: str | None
    group_column: str | None
    num_groups: int
    labels: Labels
    classes: tuple[str, ...]
    division: Division
    sample: ImageSample

    @property
    def is_multilabel(self) -> bool:
        """Whether an example may have several labels."""
        return self.labels.ndim == 2

    @property
    def parts(self) -> dict[str, np.ndarray[Any, Any]]:
        """The indices of each part."""
        splits = self.division.splits
        return {"train": splits.train, "validation": splits.validation, "test": splits.test}

    @property
    def imbalance(self) -> float:
        """The largest training count of any class divided by the smallest."""
        counts = class_counts(self.labels[self.division.splits.train], len(self.classes))
        return float(counts.max() / max(1, counts.min()))


def find_sources(data: str) -> list[str]:
    """The sources that `data` may mean, with absolute paths, the most likely first; tables with groups lead.

    `data` is a folder, a file, a reference to a user's function or a source as study files name it. Raises InputError,
    which says what was expected, if there is none.
    """
    kind, colon, rest = data.partition(":")
    if user_code.is_reference(data):
        return [user_code.resolve(data, Path.cwd(), "--data")]
    if colon and kind in ("folder", "parquet", "csv", "npz"):
        return [f"{kind}:{user_path(rest, '--data').resolve()}"]
    path = user_path(data, "--data").resolve()
    if path.is_dir():
        return _sources_of_folder(path)
    if path.is_file():
        return [_source_of_file(path)]
    if colon or "/" in data or "." in data:
        raise InputError(Fault("--data", f"there is no file or folder {path}"))
    try:
        open_source(DataSpec(data))
    except InputError as error:
        problem = f"{data} is no folder, file or known data set"
        raise InputError(Fault("--data", problem, advice=error.sentences[0])) from None
    return [data]


def look(source: str) -> DataSummary:
    """Read the labels of a source and open a sample of its images. Raises InputError."""
    columns = _columns(source)
    image_column = _pick(columns, _IMAGE_COLUMNS, "image")
    label_column = _pick(columns, _LABEL_COLUMNS, "label")
    root = _image_root(source, image_column) if source.startswith("csv:") and image_column is not None else None
    opened = open_source(DataSpec(source, image_column or "image", label_column or "label", root=root))
    rows, parts = opened.labels()
    labels, classes = encode(rows, None)
    if isinstance(opened, UserFunction):
        columns = opened.columns
    group_column = _group_column(opened, columns, len(rows))
    groups = opened.column(group_column) if group_column is not None else None
    return DataSummary(
        source=source,
        root=root,
        image_column=image_column,
        label_column=label_column,
        group_column=group_column,
        num_groups=len(set(groups or ())),
        labels=labels,
        classes=classes,
        division=_divide(labels, classes, np.array(parts, dtype=np.uint8), groups),
        sample=sample(opened, len(rows)),
    )


def _divide(labels: Labels, classes: tuple[str, ...], part: np.ndarray[Any, Any], groups: list[str] | None) -> Division:
    """Divide by the parts that the data gives, or by fractions if groups are in several of them. Raises InputError."""
    names, group = np.unique(np.array(groups), return_inverse=True) if groups is not None else (np.array([]), None)

    def divided(uses_test: bool, uses_validation: bool) -> Splits:
        is_given = uses_test and uses_validation
        by: Literal["group", "stratified"] = "stratified" if group is None or is_given else "group"
        spec = SplitSpec("given" if uses_test else 0.2, "given" if uses_validation else 0.15, by)
        return split(labels, part, spec, None, classes, group, [str(name) for name in names])

    has_test, has_validation = bool((part == TEST).any()), bool((part == VALIDATION).any())
    try:
        return Division(divided(has_test, has_validation), has_test, has_validation, leak="")
    except InputError as error:
        if group is None or not (has_test or has_validation):
            raise
        return Division(divided(False, False), has_test=False, has_validation=False, leak=error.sentences[0])


def _source_of_file(path: Path) -> str:
    """The source that a file is. Raises InputError for an extension that is not a source's."""
    kinds = {".parquet": "parquet", ".csv": "csv", ".npz": "npz"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise InputError(Fault("--data", expected="a .parquet, .csv or .npz file or a folder", got=f"the file {path}"))
    return f"{kind}:{path}"


def _sources_of_folder(folder: Path) -> list[str]:
    """The sources in a folder, or the folder as one, the most likely first. Raises InputError if there is none."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    sources = _tables_in(folder, entries)
    has_folders = any(path.is_dir() for path in entries)
    if (folder / "train").is_dir() or (has_folders and not sources):
        sources.append(f"folder:{folder}")
    if not sources:
        num_images = sum(path.suffix.lower() in EXTENSIONS for path in entries)
        content = f"{num_images} images and no class folders" if num_images else "neither images nor tables"
        raise InputError(
            Fault(
                "--data",
                expected="one folder of images per class (also below train/ and test/), a train.parquet, or a .csv, "
                f".parquet or .npz file; {folder} has {content}",
            )
        )
    return sorted(sources, key=lambda source: not any(_plain(name) in _GROUP_COLUMNS for name in _columns(source)))


def _tables_in(folder: Path, entries: Sequence[Path]) -> list[str]:
    """The tables in a folder, at most one of each kind. Raises InputError if only several of a kind could be meant."""
    has_parts = (folder / "train.parquet").is_file()
    sources = [f"parquet:{folder}"] if has_parts else []
    for suffix in ("csv", "parquet", "npz"):
        files = [path for path in entries if path.suffix.lower() == f".{suffix}"]
        if suffix == "parquet" and has_parts:
            files = [path for path in files if path.stem.lower() not in PART_NAMES]
        if len(files) == 1:
            sources.append(f"{suffix}:{files[0]}")
        elif files and not sources:
            names = ", ".join(file.name for file in files[:5])
            raise InputError(
                Fault("--data", f"{folder} holds {len(files)} .{suffix} files ({names}); name one of them")
            )
    return sources


def _columns(source: str) -> list[str]:
    """The columns of a CSV or Parquet file; empty for other sources. Raises InputError."""
    kind, _, path = source.partition(":")
    if user_code.is_reference(source):
        return []
    if kind == "csv":
        try:
            with Path(path).open(newline="", encoding="utf-8-sig") as file:
                return [name.strip() for name in next(csv.reader(file), [])]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(Fault("--data", f"{path} cannot be read ({error})")) from None
    if kind == "parquet":
        return column_names(Path(path) / "train.parquet" if Path(path).is_dir() else Path(path), "--data")
    return []


def _pick(columns: Sequence[str], candidates: Sequence[str], what: str) -> str | None:
    """The column whose name is the earliest of `candidates`; None for a source without columns. Raises InputError."""
    if not columns:
        return None
    for candidate in candidates:
        for name in columns:
            if _plain(name) == candidate:
                return name
    raise InputError(
        Fault(
            "--data",
            expected=f"a column of {what}s, called one of {', '.join(candidates)}",
            valid=tuple(columns),
            advice=f"Name it in a study file, as data: {{source: ..., {what}: COLUMN}}.",
        )
    )


def _image_root(source: str, column: str) -> str | None:
    """The folder to which a CSV file's image paths are relative; None if that is the file's own folder.

    Raises InputError if no folder beside the file has all images.
    """
    table = Path(source.partition(":")[2])
    names = open_source(DataSpec(source, column)).column(column)
    if not names:
        return None
    folders = [table.parent, *sorted(path for path in table.parent.iterdir() if path.is_dir())]
    counts = [sum((folder / name).is_file() for name in names) for folder in folders]
    best = counts.index(max(counts))
    if counts[best] == 0:
        problem = f"{table.name} names the image {names[0]}, which is neither in {table.parent} nor in a folder there"
        raise InputError(Fault("--data", problem))
    if counts[best] < len(names):
        absent = next(name for name in names if not (folders[best] / name).is_file())
        raise InputError(
            Fault(
                "--data",
                f"{table.name} names {len(names)} images, of which {counts[best]} are in {folders[best]}; {absent} "
                "is not",
                advice="Expected all in one folder, or paths that start there.",
            )
        )
    return str(folders[best]) if best else None


def _plain(name: str) -> str:
    """A column's name in lower case, with underscores for anything that is not a letter or digit."""
    return re.sub(r"\W+", "_", name.strip().lower())


def _group_column(source: Source, columns: Sequence[str], num_examples: int) -> str | None:
    """The column of groups, a patient's before a lesion's, if it has no empty cell and groups anything."""
    candidates = sorted((_GROUP_COLUMNS.index(_plain(n)), n) for n in columns if _plain(n) in _GROUP_COLUMNS)
    for _, name in candidates:
        values = source.column(name)
        if "" not in values and 1 < len(set(values)) < num_examples:
            return name
    return None
