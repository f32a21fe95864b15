"""The interface of a source: it lists the labels first, then streams its images, still encoded.

`Source.fingerprint` decodes nothing and looks only at names, sizes and modification times of files, so a warm start
does not import an image library. Reading a source twice gives the same examples in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lrstudy.data.cells import Label
from lrstudy.errors import Fault, InputError

Encoded = bytes | Path | NDArray[np.uint8]
"""An image before decoding: the bytes of an image file, its path, or pixels of shape (H, W) or (H, W, 3)."""

SOURCES = "sources.json"
"""The file of a cache entry that lists the names of all examples. It shapes no training, so no digest covers it."""
PART_COLUMNS = ("split", "part")
"""Columns that assign examples to parts, provided that every value is the name of a part."""


class Source(Protocol):
    """A readable data set. Its methods raise InputError for anything that the user can fix."""

    def fingerprint(self) -> dict[str, object]:
        """JSON values that identify the content without reading it."""

    def labels(self) -> tuple[list[Label], list[int]]:
        """Label and given part (POOL, VALIDATION or TEST) of every example; all labels are of one type."""

    def column(self, name: str) -> list[str]:
        """Another column as text, such as a group or the column of a split. Raises InputError if it does not exist."""

    def names(self) -> list[str]:
        """The file of every example, or its row in the source, in the order of `labels`; decodes nothing."""

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Name (for messages) and encoded image of every example, in the order of `labels`."""


class WithoutColumns:
    """A source that has images and labels only."""

    def column(self, name: str) -> list[str]:
        """Always raises InputError: there are no further columns."""
        raise InputError(
            Fault(
                "data",
                f"there is no column {name!r}: {type(self).__name__} has images and labels only",
                advice="Use parquet:, csv: or a function of your own where a group or a split goes by a column.",
            )
        )


def check_images(images: NDArray[Any], num_images: int, where: str) -> None:
    """Raise InputError, placed at `where`, unless `images` holds the pixels of `num_images` images."""
    is_uint8_image = images.dtype == np.uint8 and (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3)))
    if not is_uint8_image or len(images) != num_images:
        raise InputError(
            Fault(
                where,
                expected=f"{num_images} images, uint8 of shape (N, H, W) or (N, H, W, 3)",
                got=f"{images.dtype} {images.shape}",
            )
        )
