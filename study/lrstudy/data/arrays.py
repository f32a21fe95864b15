"""Sources that are arrays already: ``npz:PATH`` in MedMNIST's form, and what a user's own function gives."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy import faults, own
from lrstudy.data.sources import POOL, TEST, VALIDATION, Encoded, Label, WithoutColumns

_PARTS = {"train": POOL, "val": VALIDATION, "test": TEST}
_PART_NAMES = {"train": POOL, "val": VALIDATION, "validation": VALIDATION, "test": TEST}


@dataclass(frozen=True)
class NpzFile(WithoutColumns):
    """{train,val,test}_images, uint8 (N, H, W) or (N, H, W, 3), and ..._labels, integers (N,), (N, 1), or 0 and 1 (N, K)."""

    path: Path

    def fingerprint(self) -> dict[str, object]:
        """Size and modification time of the file."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise faults.InputError(f"data: {self.path} cannot be read ({error.strerror}).") from None
        return {"source": "npz", "files": [[self.path.name, status.st_size, status.st_mtime_ns]]}

    def labels(self) -> tuple[list[Label], list[int]]:
        """Class numbers; several labels are named by their column."""
        labels: list[Label] = []
        parts: list[int] = []
        for part, _, values in self._arrays:
            labels += _label_rows(values, f"{self.path.name}: {part}_labels")
            parts += [_PARTS[part]] * len(values)
        return labels, parts

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Pixels of each image."""
        for part, images, _ in self._arrays:
            for row, image in enumerate(images):
                yield f"{part}_images row {row}", image

    @cached_property
    def _arrays(self) -> list[tuple[str, NDArray[np.uint8], NDArray[Any]]]:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                stored = {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise faults.InputError(f"data: {self.path} is not a readable .npz file ({error}).") from None
        found = []
        for part in _PARTS:
            if f"{part}_images" in stored and f"{part}_labels" in stored:
                images, labels = stored[f"{part}_images"], stored[f"{part}_labels"]
                _check_images(images, len(labels), f"{self.path.name}: {part}_images")
                found.append((part, images, labels))
        if not found or found[0][0] != "train":
            raise faults.InputError(
                f"data: {self.path.name} needs train_images and train_labels (and may have val_ and test_ ones); it holds "
                f"{', '.join(sorted(stored)) or 'nothing'}."
            )
        return found


@dataclass(frozen=True)
class OwnData:
    """``def load() -> dict``: `images`, uint8 (N, H, W[, 3]) or a list of paths; `labels`, N numbers or names, 0 and 1 (N, K),
    or N lists of names; and optionally `part` (train, val or test for each) and further columns such as a patient."""

    reference: str

    def fingerprint(self) -> dict[str, object]:
        """The digest of the source; data that changes behind an unchanged function is not noticed."""
        return {"source": "own", "digest": own.digest(self.reference)}

    def labels(self) -> tuple[list[Label], list[int]]:
        """What the function gives as `labels` and `part`."""
        given = self._given
        labels = given["labels"]
        rows = _label_rows(np.asarray(labels), self._what("labels")) if isinstance(labels, np.ndarray) else list(labels)
        rows = [tuple(map(str, row)) if isinstance(row, (list, tuple, set)) else row for row in rows]
        parts = [_PART_NAMES.get(str(name).lower(), -1) for name in given.get("part", ["train"] * len(rows))]
        if len(parts) != len(rows) or -1 in parts:
            raise faults.InputError(f"{self._what('part')} must say train, val or test for each of {len(rows)} images.")
        return rows, parts

    def column(self, name: str) -> list[str]:
        """A further value that the function gives, one per image."""
        if name not in self._given:
            raise faults.InputError(faults.unknown(self._what("column"), "column", name, list(self._given)))
        return [str(value) for value in self._given[name]]

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Pixels or paths."""
        for row, image in enumerate(self._given["images"]):
            yield f"image {row}", Path(image) if isinstance(image, (str, Path)) else np.asarray(image)

    @cached_property
    def _given(self) -> Mapping[str, Any]:
        function = own.load(self.reference)
        try:
            given = function() if callable(function) else None
        except Exception as error:
            raise faults.InputError(f"data: {self.reference} failed ({type(error).__name__}: {error}).") from error
        if not isinstance(given, Mapping) or not {"images", "labels"} <= set(given):
            raise faults.InputError(f"data: {self.reference} must return a dict with images and labels.")
        if len(given["images"]) != len(given["labels"]):
            raise faults.InputError(
                f"{self._what('labels')} must be one for each of {len(given['images'])} images; got {len(given['labels'])}."
            )
        if isinstance(given["images"], np.ndarray):
            _check_images(given["images"], len(given["labels"]), self._what("images"))
        return given

    def _what(self, name: str) -> str:
        return f"data: {name} of {self.reference.rpartition('/')[2]}"


def _check_images(images: NDArray[Any], count: int, what: str) -> None:
    fits = images.dtype == np.uint8 and (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3)))
    if not fits or len(images) != count:
        raise faults.InputError(
            f"data: {what.removeprefix('data: ')} must be {count} images, uint8 of shape (N, H, W) or (N, H, W, 3); got "
            f"{images.dtype} {images.shape}."
        )


def _label_rows(values: NDArray[Any], what: str) -> list[Label]:
    """Labels of each row: the numbers, or the columns that are 1."""
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim == 1 and values.dtype.kind in "iu":
        if len(values) and values.min() < 0:
            raise faults.InputError(f"data: {what.removeprefix('data: ')} must be at least 0; got {values.min()}.")
        return [int(value) for value in values]
    if values.ndim == 1 and values.dtype.kind in "US":
        return [str(value) for value in values]
    if values.ndim == 2 and values.dtype.kind in "iub" and np.isin(values, (0, 1)).all():
        digits = len(str(values.shape[1] - 1))
        return [tuple(f"{column:0{digits}d}" for column in np.flatnonzero(row)) for row in values]
    raise faults.InputError(
        f"data: {what.removeprefix('data: ')} must be class numbers (N,) or (N, 1), or 0 and 1 of shape (N, K); got "
        f"{values.dtype} {values.shape}."
    )
