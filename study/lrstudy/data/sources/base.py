"""What a source is: it lists labels first, then streams its images still encoded.

Nothing is decoded and nothing is imported that a warm start does not need: `Source.fingerprint` looks at
names, sizes and times of files only. Reading a source twice gives the same examples in the same order.
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
"""An image before decoding: bytes of an image file, its path, or pixels of shape (H, W) or (H, W, 3)."""

PART_COLUMNS = ("split", "part")
"""Columns that say which part an example is in, if they hold the names of parts."""


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


class WithoutColumns:
    """A source that has images and labels only."""

    def column(self, name: str) -> list[str]:
        """There is none."""
        raise InputError(
            Fault(
                "data",
                f"there is no column {name!r}: {type(self).__name__} has images and labels only",
                advice="Use parquet:, csv: or a function of your own where a group or a split goes by a column.",
            )
        )


def check_images(images: NDArray[Any], count: int, what: str) -> None:
    """Raise InputError unless `images` are `count` images as pixels; `what` names them in the message."""
    fits = images.dtype == np.uint8 and (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3)))
    if not fits or len(images) != count:
        raise InputError(
            Fault(
                "data",
                f"{what.removeprefix('data: ')} must be {count} images, uint8 of shape (N, H, W) or (N, H, W, 3); "
                f"got {images.dtype} {images.shape}",
            )
        )
