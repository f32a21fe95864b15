"""A look at somebody's data before a study of it is written: labels, parts and groups, and a sample of the images."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from lrstudy import user_code
from lrstudy.data.cells import PART_NAMES, TEST, VALIDATION
from lrstudy.data.decoding import MOST_PIXELS
from lrstudy.data.labels import Labels, class_counts, encode
from lrstudy.data.open_source import open_source
from lrstudy.data.sources.base import Encoded, Source
from lrstudy.data.sources.folder import EXTENSIONS
from lrstudy.data.sources.parquet import Parquet, column_names
from lrstudy.data.sources.user_function import UserFunction
from lrstudy.data.spec import DataSpec, SplitSpec
from lrstudy.data.splits import Splits, split
from lrstudy.errors import Fault, InputError, user_path

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
_LOOKED_AT = 5000  # images of which a sample is opened
_SAMPLE = 200


@dataclass(frozen=True)
class Found:
    """What the data looks like. `root` is where a table's paths start, if not beside it. `sizes` are (width, height) of a sample, `is_uniform`
    whether all images are known to have one; `groups` is the number of groups, 0 without; `leak` why given parts were not taken."""

    source: str
    root: str | None
    image_column: str | None
    label_column: str | None
    group_column: str | None
    groups: int
    labels: Labels
    classes: tuple[str, ...]
    has_test: bool
    has_validation: bool
    leak: str
    splits: Splits
    sizes: tuple[tuple[int, int], ...]
    is_uniform: bool
    is_grey: bool
    is_stored_grey: bool

    @property
    def is_multilabel(self) -> bool:
        """Whether an example may have several labels."""
        return self.labels.ndim == 2

    @property
    def parts(self) -> dict[str, np.ndarray[Any, Any]]:
        """The indices of each part."""
        return {"train": self.splits.train, "validation": self.splits.validation, "test": self.splits.test}

    @property
    def imbalance(self) -> float:
        """The largest training count of a class over the smallest."""
        counts = class_counts(self.labels[self.splits.train], len(self.classes))
        return float(counts.max() / max(1, counts.min()))


def find_sources(data: str) -> list[str]:
    """What `data` may mean, paths absolute, the best first: of several tables one that names groups, such as patients.

    Raises InputError, with what was expected, if there is nothing.
    """
    kind, colon, rest = data.partition(":")
    if user_code.is_reference(data):
        return [user_code.resolve(data, Path.cwd(), "--data")]
    if colon and kind in ("folder", "parquet", "csv", "npz"):
        return [f"{kind}:{user_path(rest, '--data').resolve()}"]
    path = user_path(data, "--data").resolve()
    if path.is_dir():
        return _sources_of_folder(path)
    kinds = {".parquet": "parquet", ".csv": "csv", ".npz": "npz"}
    if path.is_file():
        if path.suffix.lower() not in kinds:
            raise InputError(
                Fault("--data", expected="a .parquet, .csv or .npz file or a folder", got=f"the file {path}")
            )
        return [f"{kinds[path.suffix.lower()]}:{path}"]
    if colon or "/" in data or "." in data:
        raise InputError(Fault("--data", f"there is no file or folder {path}"))
    try:
        open_source(DataSpec(data))
    except InputError as error:
        problem = f"{data} is no folder, file or known data set"
        raise InputError(Fault("--data", problem, advice=error.sentences[0])) from None
    return [data]


def look(source: str) -> Found:
    """Read the labels of a source and open a sample of its images. Raises InputError."""
    columns = _columns(source)
    image, label = _pick(columns, _IMAGE_COLUMNS, "image"), _pick(columns, _LABEL_COLUMNS, "label")
    root = _root(source, image) if source.startswith("csv:") and image is not None else None
    opened = open_source(DataSpec(source, image or "image", label or "label", root=root))
    columns = opened.columns if isinstance(opened, UserFunction) else columns
    rows, parts = opened.labels()
    labels, classes = encode(rows, None)
    part = np.array(parts, dtype=np.uint8)
    has_test, has_validation = bool((part == TEST).any()), bool((part == VALIDATION).any())
    group = _group(opened, columns, len(rows))
    names, numbers = (
        np.unique(np.array(opened.column(group)), return_inverse=True) if group is not None else (np.array([]), None)
    )

    def divided(given_test: bool, given_validation: bool) -> Splits:
        by: Literal["group", "stratified"] = (
            "stratified" if group is None or (given_test and given_validation) else "group"
        )
        rule = SplitSpec("given" if given_test else 0.2, "given" if given_validation else 0.15, by)
        return split(labels, part, rule, None, classes, numbers, [str(name) for name in names])

    leak = ""
    try:
        splits = divided(has_test, has_validation)
    except InputError as error:
        if group is None or not (has_test or has_validation):
            raise
        leak, has_test, has_validation = error.sentences[0], False, False
        splits = divided(False, False)
    sizes, is_grey, is_stored_grey = _sample(opened, len(rows))
    is_uniform = len(set(sizes)) == 1 and (len(sizes) == len(rows) or source.startswith(("npz:", "digits")))
    return Found(
        source, root, image, label, group, len(names), labels, classes, has_test, has_validation, leak, splits, sizes,
        is_uniform, is_grey, is_stored_grey,
    )  # fmt: skip


def _sources_of_folder(folder: Path) -> list[str]:
    """What a folder holds that may be meant, the most likely first. Raises InputError if that is nothing."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    has_parts = (folder / "train.parquet").is_file()
    found = [f"parquet:{folder}"] if has_parts else []
    for suffix in ("csv", "parquet", "npz"):
        files = [path for path in entries if path.suffix.lower() == f".{suffix}"]
        if suffix == "parquet" and has_parts:
            files = [path for path in files if path.stem.lower() not in PART_NAMES]
        if len(files) == 1:
            found.append(f"{suffix}:{files[0]}")
        elif files and not found:
            raise InputError(
                Fault(
                    "--data",
                    f"{folder} holds {len(files)} .{suffix} files ({', '.join(f.name for f in files[:5])}); name "
                    "one of them",
                )
            )
    folders = [path for path in entries if path.is_dir()]
    if (folder / "train").is_dir() or (folders and not found):
        found.append(f"folder:{folder}")
    if not found:
        images = sum(path.suffix.lower() in EXTENSIONS for path in entries)
        has = f"{images} images and no class folders" if images else "neither images nor tables"
        raise InputError(
            Fault(
                "--data",
                expected="one folder of images per class (also below train/ and test/), a train.parquet, or a .csv, "
                f".parquet or .npz file; {folder} has {has}",
            )
        )
    return sorted(found, key=lambda source: not any(_plain(name) in _GROUP_COLUMNS for name in _columns(source)))


def _columns(source: str) -> list[str]:
    """The columns of a table; none for other sources."""
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
    """The column that is called most like a candidate; None for sources without columns. Raises InputError."""
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
            advice=f" Name it in a study file, as data: {{source: ..., {what}: COLUMN}}.",
        )
    )


def _root(source: str, column: str) -> str | None:
    """The folder that a table's paths start in, if they lie in one beside it. Raises InputError if they lie nowhere."""
    table = Path(source.partition(":")[2])
    names = open_source(DataSpec(source, column)).column(column)
    if not names:
        return None
    folders = [table.parent, *sorted(path for path in table.parent.iterdir() if path.is_dir())]
    having = [sum((folder / name).is_file() for name in names) for folder in folders]
    if max(having) == 0:
        raise InputError(
            Fault(
                "--data",
                f"{table.name} names the image {names[0]}, which is neither in {table.parent} nor in a folder there",
            )
        )
    best = having.index(max(having))
    if having[best] < len(names):
        lost = next(name for name in names if not (folders[best] / name).is_file())
        raise InputError(
            Fault(
                "--data",
                f"{table.name} names {len(names)} images, of which {having[best]} are in {folders[best]}; {lost} "
                "is not",
                advice="Expected all in one folder, or paths that start there.",
            )
        )
    return str(folders[best]) if best else None


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().lower())


def _group(source: Source, columns: Sequence[str], count: int) -> str | None:
    """The column of groups, a patient's before a lesion's, if it is filled and groups anything."""
    found = sorted((_GROUP_COLUMNS.index(_plain(name)), name) for name in columns if _plain(name) in _GROUP_COLUMNS)
    for _, name in found:
        values = source.column(name)
        if "" not in values and 1 < len(set(values)) < count:
            return name
    return None


def _sample(source: Source, count: int) -> tuple[tuple[tuple[int, int], ...], bool, bool]:
    """Sizes of a sample of the images, whether they show no colour, and whether they are stored so."""
    looked_at = (
        min(count, _LOOKED_AT) if isinstance(source, Parquet) else count
    )  # its bytes have to be read to pass them
    step = max(1, looked_at // _SAMPLE)
    sizes: list[tuple[int, int]] = []
    is_grey = is_stored_grey = True
    for _, encoded in islice(source.images(), 0, looked_at, step):
        try:
            with _opened(encoded) as image:
                stored = image.mode in ("1", "L", "LA", "I", "F", "I;16")
                if not stored and is_grey and image.width * image.height <= MOST_PIXELS:
                    pixels = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.int16)
                    is_grey = bool(np.ptp(pixels, axis=2).max() <= 8)
                sizes.append(image.size)
                is_stored_grey &= stored
        except Exception:  # Pillow's readers raise anything; `lrstudy validate` reports every one of them
            continue
    if not sizes:
        raise InputError(Fault("--data", "none of the first images can be decoded"))
    return tuple(sizes), is_grey, is_stored_grey


def _opened(encoded: Encoded) -> Image.Image:
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded[..., 0] if encoded.ndim == 3 and encoded.shape[2] == 1 else encoded)
    return Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded))
