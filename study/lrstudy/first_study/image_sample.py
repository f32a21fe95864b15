"""Opens a sample of a user's images, to see their sizes and whether they show colour."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from lrstudy.data.decoding import MOST_PIXELS
from lrstudy.data.sources.base import Encoded, Source
from lrstudy.data.sources.digits import Digits
from lrstudy.data.sources.npz import NpzFile
from lrstudy.data.sources.parquet import Parquet
from lrstudy.errors import Fault, InputError

_MOST_PARQUET_ROWS = 5000
"""A sample of a Parquet file comes from this many rows at most, as rows can be skipped only by reading their bytes."""
_SAMPLE = 200
"""How many images are opened, about."""


@dataclass(frozen=True)
class ImageSample:
    """What a sample of the images looks like.

    Args:
        sizes: (width, height) in pixels of each image.
        is_uniform: Whether all images of the data, not just the sample, are known to have the same size.
        is_grey: Whether none of them shows colour.
        is_stored_grey: Whether all of them are stored in grey.
    """

    sizes: tuple[tuple[int, int], ...]
    is_uniform: bool
    is_grey: bool
    is_stored_grey: bool


def sample(source: Source, num_images: int) -> ImageSample:
    """Open a sample of the images, skipping those that cannot be opened. Raises InputError if none can."""
    num_rows = min(num_images, _MOST_PARQUET_ROWS) if isinstance(source, Parquet) else num_images
    step = max(1, num_rows // _SAMPLE)
    sizes: list[tuple[int, int]] = []
    is_grey = is_stored_grey = True
    for _, encoded in islice(source.images(), 0, num_rows, step):
        try:
            with _opened(encoded) as image:
                has_one_channel = image.mode in ("1", "L", "LA", "I", "F", "I;16")
                if is_grey and not has_one_channel and image.width * image.height <= MOST_PIXELS:
                    is_grey = _looks_grey(image)
                sizes.append(image.size)
                is_stored_grey &= has_one_channel
        except Exception:  # Pillow's readers raise anything; `lrstudy validate` reports every image that fails
            continue
    if not sizes:
        raise InputError(Fault("--data", "none of the first images can be decoded"))
    has_all = len(sizes) == num_images or isinstance(source, (NpzFile, Digits))
    return ImageSample(tuple(sizes), len(set(sizes)) == 1 and has_all, is_grey, is_stored_grey)


def _looks_grey(image: Image.Image) -> bool:
    """Whether the three channels of an image, scaled to 32 x 32, differ by at most 8 of 255 in every pixel."""
    pixels = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.int16)
    return bool(np.ptp(pixels, axis=2).max() <= 8)


def _opened(encoded: Encoded) -> Image.Image:
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded[..., 0] if encoded.ndim == 3 and encoded.shape[2] == 1 else encoded)
    return Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded))
