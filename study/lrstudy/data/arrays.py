"""Sources that are arrays already: ``npz:PATH`` in MedMNIST's form, and what a user's own function gives."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy import faults, own
from lrstudy.data.cells import PART_NAMES, POOL, Label, as_text, labels_of, parts_of
from lrstudy.data.sources import Encoded, WithoutColumns

_PARTS = ("train", "val", "test")


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
        return {"source": "npz", "files": [[str(self.path), status.st_size, status.st_mtime_ns]]}

    def labels(self) -> tuple[list[Label], list[int]]:
        """Class numbers; several labels are named by their column."""
        labels: list[Label] = []
        parts: list[int] = []
        for part, _, values in self._arrays:
            labels += _label_rows(values, f"data: {part}_labels of {self.path.name}")
            parts += [PART_NAMES[part]] * len(values)
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
        except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise faults.InputError(
                f"data: {self.path} is not a readable .npz file ({error or 'it is empty'})."
            ) from None
        found = []
        for part in _PARTS:
            if f"{part}_images" in stored and f"{part}_labels" in stored:
                images, labels = stored[f"{part}_images"], stored[f"{part}_labels"]
                if labels.ndim == 0:
                    raise faults.InputError(
                        f"data: {self.path.name}: {part}_labels must be one for each image; got a single value."
                    )
                _check_images(images, len(labels), f"{self.path.name}: {part}_images")
                found.append((part, images, labels))
        if len({images.shape[3:] for _, images, _ in found}) > 1:
            kinds = ", ".join(f"{part} {images.shape}" for part, images, _ in found)
            raise faults.InputError(
                f"data: {self.path.name}: expected images of one kind in all parts, grey or colour; got {kinds}."
            )
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
        given, count = self._given, len(self._given["images"])
        rows = labels_of(list(given["labels"]), self._what("labels"))
        if "part" not in given:
            return rows, [POOL] * count
        return rows, parts_of(self._per_image("part"), self._what("part"), must=True) or []

    @property
    def columns(self) -> list[str]:
        """Further columns that the function gives."""
        return [str(name) for name in self._given if name not in ("images", "labels", "part")]

    def column(self, name: str) -> list[str]:
        """A further value that the function gives, one per image."""
        if name not in self._given:
            raise faults.InputError(faults.unknown(self._what("column"), "column", name, list(self._given)))
        return [as_text(value.item() if hasattr(value, "item") else value) for value in self._per_image(name)]

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Pixels or paths; a relative path starts at the folder of the user's file."""
        folder = own.Reference.parse(self.reference).path.parent
        for row, image in enumerate(self._given["images"]):
            yield f"image {row}", folder / image if isinstance(image, (str, Path)) else np.asarray(image)

    def _per_image(self, name: str) -> list[Any]:
        """A value of the function's as a list with one item for each image. Raises InputError."""
        values, count = self._given[name], len(self._given["images"])
        found = None if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable) else list(values)
        if found is None or len(found) != count:
            got = f"{len(found)} values" if found is not None else f"{values!r:.60}"
            raise faults.InputError(f"{self._what(name)}: expected one for each of {count} images; got {got}.")
        return found

    @cached_property
    def _given(self) -> Mapping[str, Any]:
        function = own.load(self.reference, "data")
        try:
            given = function() if callable(function) else None
        except Exception as error:
            raise faults.InputError(f"data: {self.reference} failed ({type(error).__name__}: {error}).") from error
        if not isinstance(given, Mapping) or not {"images", "labels"} <= set(given):
            raise faults.InputError(f"data: {self.reference} must return a dict with images and labels.")
        for name in ("images", "labels"):
            if not hasattr(given[name], "__len__"):
                raise faults.InputError(
                    f"{self._what(name)}: expected a list or an array; got {type(given[name]).__name__}."
                )
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


def _label_rows(values: NDArray[Any], where: str) -> list[Label]:
    """Labels of each row: the numbers, or the columns that are 1."""
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    fits = values.ndim == 1 and values.dtype.kind in "iubUS"
    if values.ndim == 2 and values.dtype.kind in "iub":
        fits = bool(np.isin(values, (0, 1)).all())
    if not fits:
        raise faults.InputError(
            f"{where} must be class numbers (N,) or (N, 1), or 0 and 1 of shape (N, K); got {values.dtype} {values.shape}."
        )
    if values.ndim == 1 and values.dtype.kind in "iu" and len(values) and values.min() < 0:
        raise faults.InputError(f"{where} must be at least 0; got {values.min()}.")
    return labels_of([value.decode() if isinstance(value, bytes) else value for value in values.tolist()], where)
