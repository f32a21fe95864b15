"""``./mine.py:load``: what a user's own function gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy import user_code
from lrstudy.data.cells import POOL, Label, as_text, labels_of, parts_of
from lrstudy.data.sources.base import Encoded, check_images
from lrstudy.errors import Fault, InputError, unknown


@dataclass(frozen=True)
class UserFunction:
    """``def load() -> dict``: `images`, uint8 (N, H, W[, 3]) or a list of paths; `labels`, N numbers or names, 0 and 1 (N, K),
    or N lists of names; and optionally `part` (train, val or test for each) and further columns such as a patient."""

    reference: str

    def fingerprint(self) -> dict[str, object]:
        """The digest of the source; data that changes behind an unchanged function is not noticed."""
        return {"source": "own", "digest": user_code.digest(self.reference)}

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
            raise InputError(unknown(self._what("column"), "column", name, list(self._given)))
        return [as_text(value.item() if hasattr(value, "item") else value) for value in self._per_image(name)]

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Pixels or paths; a relative path starts at the folder of the user's file."""
        folder = user_code.Reference.parse(self.reference).path.parent
        for row, image in enumerate(self._given["images"]):
            yield f"image {row}", folder / image if isinstance(image, (str, Path)) else np.asarray(image)

    def _per_image(self, name: str) -> list[Any]:
        """A value of the function's as a list with one item for each image. Raises InputError."""
        values, count = self._given[name], len(self._given["images"])
        found = None if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable) else list(values)
        if found is None or len(found) != count:
            got = f"{len(found)} values" if found is not None else f"{values!r:.60}"
            raise InputError(Fault(self._what(name), expected=f"one for each of {count} images", got=got))
        return found

    @cached_property
    def _given(self) -> Mapping[str, Any]:
        function = user_code.load(self.reference, "data")
        try:
            given = function() if callable(function) else None
        except Exception as error:
            raise InputError(Fault("data", f"{self.reference} failed ({type(error).__name__}: {error})")) from error
        if not isinstance(given, Mapping) or not {"images", "labels"} <= set(given):
            raise InputError(Fault("data", f"{self.reference} must return a dict with images and labels"))
        for name in ("images", "labels"):
            if not hasattr(given[name], "__len__"):
                raise InputError(Fault(self._what(name), expected="a list or an array", got=type(given[name]).__name__))
        if len(given["images"]) != len(given["labels"]):
            raise InputError(
                Fault(
                    self._what("labels"),
                    expected=f"one for each of {len(given['images'])} images",
                    got=str(len(given["labels"])),
                )
            )
        if isinstance(given["images"], np.ndarray):
            check_images(given["images"], len(given["labels"]), self._what("images"))
        return given

    def _what(self, name: str) -> str:
        return f"data: {name} of {self.reference.rpartition('/')[2]}"
