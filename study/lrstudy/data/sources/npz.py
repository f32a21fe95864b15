"""``npz:PATH``: arrays of images and labels in MedMNIST's form."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy.data.cells import PART_NAMES, Label, labels_of
from lrstudy.data.sources.base import Encoded, WithoutColumns, check_images
from lrstudy.errors import Fault, InputError

_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class NpzFile(WithoutColumns):
    """A file with the arrays train_images and train_labels, and optionally the same for val and test.

    Images are uint8 of shape (N, H, W) or (N, H, W, 3). Labels are integers of shape (N,) or (N, 1), or 0 and 1 of
    shape (N, K) if an example may have several.
    """

    path: Path

    def fingerprint(self) -> dict[str, object]:
        """Size and modification time of the file."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise InputError(Fault("data", f"{self.path} cannot be read ({error.strerror})")) from None
        return {"source": "npz", "files": [[str(self.path), status.st_size, status.st_mtime_ns]]}

    def labels(self) -> tuple[list[Label], list[int]]:
        """Class numbers; of several labels, each is named after its column."""
        labels: list[Label] = []
        parts: list[int] = []
        for part, _, values in self._arrays:
            labels += _label_rows(values, f"data: {part}_labels of {self.path.name}")
            parts += [PART_NAMES[part]] * len(values)
        return labels, parts

    def names(self) -> list[str]:
        """Array and row."""
        return [f"{part}_images row {row}" for part, images, _ in self._arrays for row in range(len(images))]

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
        except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError(
                Fault("data", f"{self.path} is not a readable .npz file ({error or 'it is empty'})")
            ) from None
        arrays = [self._part(part, stored) for part in _PARTS if {f"{part}_images", f"{part}_labels"} <= stored.keys()]
        if len({images.shape[3:] for _, images, _ in arrays}) > 1:
            raise InputError(
                Fault(
                    f"data: {self.path.name}",
                    expected="images of one kind in all parts, grey or colour",
                    got=", ".join(f"{part} {images.shape}" for part, images, _ in arrays),
                )
            )
        if not arrays or arrays[0][0] != "train":
            raise InputError(
                Fault(
                    "data",
                    f"{self.path.name} needs train_images and train_labels (and may have val_ and test_ ones); it "
                    f"holds {', '.join(sorted(stored)) or 'nothing'}",
                )
            )
        return arrays

    def _part(self, part: str, stored: dict[str, NDArray[Any]]) -> tuple[str, NDArray[np.uint8], NDArray[Any]]:
        """Name, images and labels of one part. Raises InputError for arrays that are neither images nor labels."""
        images, labels = stored[f"{part}_images"], stored[f"{part}_labels"]
        if labels.ndim == 0:
            where = f"data: {part}_labels of {self.path.name}"
            raise InputError(Fault(where, expected="one label for each image", got="a single value"))
        check_images(images, len(labels), f"data: {part}_images of {self.path.name}")
        return part, images, labels


def _label_rows(values: NDArray[Any], where: str) -> list[Label]:
    """The labels of each row: its number, or the columns that are 1. Raises InputError, placed at `where`."""
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    is_classes = values.ndim == 1 and values.dtype.kind in "iubUS"
    is_indicators = values.ndim == 2 and values.dtype.kind in "iub" and bool(np.isin(values, (0, 1)).all())
    if not (is_classes or is_indicators):
        raise InputError(
            Fault(
                where,
                expected="class numbers (N,) or (N, 1), or 0 and 1 of shape (N, K)",
                got=f"{values.dtype} {values.shape}",
            )
        )
    if values.ndim == 1 and values.dtype.kind in "iu" and len(values) and values.min() < 0:
        raise InputError(Fault(where, expected="class numbers of at least 0", got=str(values.min())))
    return labels_of([value.decode() if isinstance(value, bytes) else value for value in values.tolist()], where)
