"""Decodes images to the pixels that a study's `image` asks for (uint8, C x H x W), one by one or as a stream."""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from textwrap import shorten
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lrstudy.data.container import num_cores
from lrstudy.data.sources.base import Encoded
from lrstudy.data.spec import ImageSpec
from lrstudy.models.image_size import Size, sides

Pixels = NDArray[np.uint8]
Named = tuple[str, Encoded]
Decoded = tuple[str, Pixels | str]
"""Name of an image, and its pixels or the reason why it cannot be decoded."""

_GREY_MODES = frozenset(["1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"])
_ORIENTATION = 0x0112  # the EXIF tag
_IMAGES_PER_TASK = 16
_THREADS_FROM_PIXELS = 96 * 96
"""Smaller images are decoded in one thread, as several wait for each other: 32 x 32 took a third longer with two."""
MOST_PIXELS = 64_000_000
"""Larger images are refused from their header alone: a file of a few kilobytes can decode to gigabytes. The largest
X-rays have 20 million pixels."""


def decode(encoded: Encoded, channels: int, size: Size | None, resize: Literal["squash", "crop", "pad"]) -> Pixels:
    """The pixels of an image, rotated as its EXIF orientation says.

    Colour becomes grey by ITU-R 601 luma, grey becomes three equal channels; transparency is dropped, as in
    torchvision's ImageFolder; 16 bits are scaled to 8 over their full range. Resizing is bilinear with antialiasing.

    Args:
        encoded: The image.
        channels: 1 (grey) or 3 (RGB).
        size: In pixels; None keeps the stored size.
        resize: How an image of another shape gets `size`, see `ImageSpec`.

    Returns:
        uint8 of shape (channels, H, W).

    Raises:
        ValueError: Pixels whose range is not known, more than MOST_PIXELS of them, or no bytes.
        Exception: Whatever Pillow raises for a file that it cannot read.
    """
    with _opened(encoded) as opened:
        turned = opened.getexif().get(_ORIENTATION, 1) != 1
        upright = ImageOps.exif_transpose(opened) if turned else opened
        image = _as_mode(upright, "L" if channels == 1 else "RGB")
        image = image if size is None else _resized(image, size, resize)
        pixels: Pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def decoded(images: Iterator[Named], spec: ImageSpec, channels: int | None = None) -> Iterator[Decoded]:
    """Decode a stream of images in a few threads, in order, with a bounded number of images in memory.

    `channels` (1 or 3) is used if `spec.channels` is ``stored``; None takes those of the first readable image.
    """
    Image.preinit()  # otherwise the threads race to load Pillow's readers
    head, first = _first_readable(images)
    stored = channels or (1 if first.mode in _GREY_MODES else 3)
    channels = {"rgb": 3, "grey": 1, "stored": stored}[spec.channels]

    def task(batch: list[Named]) -> list[Decoded]:
        return [(name, _attempt(encoded, channels, spec)) for name, encoded in batch]

    batches = _batches(head, images)
    if first.width * first.height < _THREADS_FROM_PIXELS:
        yield from chain.from_iterable(map(task, batches))
        return
    num_threads = min(8, num_cores())
    waiting: deque[Future[list[Decoded]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for batch in batches:
            waiting.append(pool.submit(task, batch))
            if len(waiting) > 2 * num_threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _first_readable(images: Iterator[Named]) -> tuple[list[Named], Image.Image]:
    """The items taken from the iterator up to the first readable image, and that image, not loaded, or a blank."""
    head = []
    for name, encoded in islice(images, _IMAGES_PER_TASK):
        head.append((name, encoded))
        try:
            with _opened(encoded) as image:
                return head, image
        except MemoryError:
            raise
        except Exception:  # reported later, when the image is decoded
            continue
    return head, Image.new("RGB", (1, 1))


def _batches(head: list[Named], images: Iterable[Named]) -> Iterator[list[Named]]:
    """`head`, then the rest of the images in lists of one task each."""
    if head:
        yield head
    images = iter(images)
    while batch := list(islice(images, _IMAGES_PER_TASK)):
        yield batch


def _attempt(encoded: Encoded, channels: int, spec: ImageSpec) -> Pixels | str:
    """The pixels of an image, or the reason why it cannot be decoded."""
    try:
        return decode(encoded, channels, spec.size, spec.resize)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise anything from SyntaxError to struct.error
        if isinstance(error, UnidentifiedImageError):
            return "not an image"
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return shorten(str(error), 100, placeholder="...") or type(error).__name__


def _opened(encoded: Encoded) -> Image.Image:
    """The image with only its header read. Raises ValueError if it has no bytes or more than MOST_PIXELS."""
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded[..., 0] if encoded.ndim == 3 and encoded.shape[2] == 1 else encoded)
    if not isinstance(encoded, Path) and not encoded:
        raise ValueError("no bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower than Pillow's
        try:
            image = Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded))
        except Image.DecompressionBombError:  # Pillow's own limit; its error does not give the size
            raise ValueError(f"too many pixels; at most {MOST_PIXELS / 1e6:g} million are decoded") from None
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise ValueError(f"{image.width} x {image.height} pixels; at most {MOST_PIXELS / 1e6:g} million are decoded")
    return image


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image in `mode` (L or RGB), 8 bits per channel."""
    if image.mode == mode:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))  # Pillow would clip
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, whose range is not known")
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette may have transparency, and converting that to RGB warns
    return image.convert(mode)


def _resized(image: Image.Image, size: Size, resize: Literal["squash", "crop", "pad"]) -> Image.Image:
    (width, height), (to_height, to_width) = image.size, sides(size)
    if (width, height) == (to_width, to_height):
        return image
    if resize == "squash":
        return image.resize((to_width, to_height), Image.Resampling.BILINEAR)
    if resize == "crop":  # crop before resizing: otherwise the long side of a strip is scaled up for nothing
        cut_width = max(1, min(width, round(height * to_width / to_height)))
        cut_height = max(1, min(height, round(width * to_height / to_width)))
        left, top = (width - cut_width) // 2, (height - cut_height) // 2
        box = (left, top, left + cut_width, top + cut_height)
        return image.resize((to_width, to_height), Image.Resampling.BILINEAR, box)
    scale = min(to_width / width, to_height / height)
    scaled = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (scaled[0] - to_width) // 2, (scaled[1] - to_height) // 2
    return image.crop((left, top, left + to_width, top + to_height))  # crop fills black outside the image
