"""``./mine.py:load``: the data that a user's own function returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy import user_code
from lrstudy.data.cells import POOL, Label, as_text, labels_of, parts_of
from lrstudy.data.sources.base import Encoded, check_images
from lrstudy.errors import Fault, InputError, unknown
from lrstudy.opened_files import is_foreign, recording


@dataclass(frozen=True)
class UserFunction:
    """A function ``def load() -> dict`` in a user's file.

    The dictionary holds `images`, uint8 of shape (N, H, W[, 3]) or a list of N paths; `labels`, N numbers or names, 0
    and 1 of shape (N, K), or N lists of names; optionally `part`, N times train, val or test; and optionally further
    columns such as a patient, each with N values.
    """

    reference: str
    _opened: set[str] = field(default_factory=set, compare=False, repr=False)

    def fingerprint(self) -> dict[str, object]:
        """The digest of the source code; for what the function reads see `read_files`."""
        return {"source": "own", "digest": user_code.digest(self.reference)}

    def labels(self) -> tuple[list[Label], list[int]]:
        """The function's `labels`, and its `part` or, without one, the pool for every example."""
        labels = labels_of(list(self._data["labels"]), self._where("labels"))
        if "part" not in self._data:
            return labels, [POOL] * len(self._data["images"])
        return labels, parts_of(self._per_image("part"), self._where("part"), is_required=True) or []

    @property
    def columns(self) -> list[str]:
        """Names of the further columns that the function returns."""
        return [str(name) for name in self._data if name not in ("images", "labels", "part")]

    def column(self, name: str) -> list[str]:
        """One of the function's columns as text, one value per image."""
        if name not in self._data:
            raise InputError(unknown(self._where("column"), "column", name, list(self._data)))
        return [as_text(value.item() if hasattr(value, "item") else value) for value in self._per_image(name)]

    def names(self) -> list[str]:
        """The paths that the function returns, or the numbers of its images."""
        images = enumerate(self._data["images"])
        return [str(image) if isinstance(image, (str, Path)) else f"image {row}" for row, image in images]

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Pixels or paths; relative paths start at the folder of the user's file."""
        folder = user_code.Reference.parse(self.reference).path.parent
        for row, image in enumerate(self._data["images"]):
            yield f"image {row}", folder / image if isinstance(image, (str, Path)) else np.asarray(image)

    def read_files(self) -> list[str]:
        """The files that the function has read, and those of the images that it returned paths of; absolute paths, sorted.

        A file that another library opens by itself, in C or Rust, goes unseen.
        """
        folder = user_code.Reference.parse(self.reference).path.parent
        paths = {str((folder / image).resolve()) for image in self._data["images"] if isinstance(image, (str, Path))}
        opened = self._opened | user_code.opened_at_import(self.reference, user_code.digest(self.reference))
        return sorted(paths | {path for path in opened if not is_foreign(path, (folder,))})

    def _per_image(self, name: str) -> list[Any]:
        """One of the function's values as a list. Raises InputError unless it has one item per image."""
        value, num_images = self._data[name], len(self._data["images"])
        is_list = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
        items = list(value) if is_list else None
        if items is None or len(items) != num_images:
            got = f"{len(items)} values" if items is not None else f"{value!r:.60}"
            raise InputError(Fault(self._where(name), expected=f"one for each of {num_images} images", got=got))
        return items

    @cached_property
    def _data(self) -> Mapping[str, Any]:
        """What the function returns; it is called once. Raises InputError if it fails or the result is malformed."""
        function = user_code.load(self.reference, "data")
        try:
            with recording() as opened:
                data = function() if callable(function) else None
            self._opened.update(opened)
        except Exception as error:
            raise InputError(Fault("data", f"{self.reference} failed ({type(error).__name__}: {error})")) from error
        if not isinstance(data, Mapping) or not {"images", "labels"} <= set(data):
            raise InputError(Fault("data", f"{self.reference} must return a dict with images and labels"))
        self._check(data["images"], data["labels"])
        return data

    def _check(self, images: Any, labels: Any) -> None:
        """Raise InputError unless `images` and `labels` are lists or arrays of the same length."""
        for name, value in (("images", images), ("labels", labels)):
            if not hasattr(value, "__len__"):
                raise InputError(Fault(self._where(name), expected="a list or an array", got=type(value).__name__))
        if len(images) != len(labels):
            expected = f"one for each of {len(images)} images"
            raise InputError(Fault(self._where("labels"), expected=expected, got=str(len(labels))))
        if isinstance(images, np.ndarray):
            check_images(images, len(labels), self._where("images"))

    def _where(self, name: str) -> str:
        """Where a fault of one of the function's values stands, such as ``data: labels of mine.py:load``."""
        return f"data: {name} of {self.reference.rpartition('/')[2]}"
