"""From encoded images to pixels as a study's `image` asks (uint8, C x H x W), one or a stream of them."""

from __future__ import annotations

import io
import os
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

from lrstudy.data.sources.base import Encoded
from lrstudy.data.spec import ImageSpec

Pixels = NDArray[np.uint8]
Named = tuple[str, Encoded]
Decoded = tuple[str, Pixels | str]
"""Name of an image, and its pixels or why there are none."""

_GREY_MODES = frozenset(["1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"])
_ORIENTATION = 0x0112  # the EXIF tag
_TASK = 16  # images per task of a thread
_THREADS_FROM_PIXELS = 96 * 96  # below, threads wait for each other: 32 x 32 took a third longer with two
MOST_PIXELS = 64_000_000
"""Larger images are refused unread: a few kilobytes can claim to be gigabytes, and the largest X-rays have 20 million."""


def decode(encoded: Encoded, channels: int, size: int | None, resize: Literal["squash", "crop", "pad"]) -> Pixels:
    """Pixels of shape (channels, H, W), turned upright by their EXIF orientation.

    Colour becomes grey by ITU-R 601 luma, grey becomes three equal channels; transparency is dropped, as
    by torchvision's ImageFolder; 16 bits are scaled to 8 over their full range. Scaling is bilinear with
    antialiasing. Raises what Pillow raises, and ValueError for pixels without a known range.
    """
    with _opened(encoded) as opened:
        turned = opened.getexif().get(_ORIENTATION, 1) != 1
        upright = ImageOps.exif_transpose(opened) if turned else opened
        image = _as_mode(upright, "L" if channels == 1 else "RGB")
        image = image if size is None else _resized(image, size, resize)
        pixels: Pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def decoded(images: Iterator[Named], spec: ImageSpec, channels: int | None = None) -> Iterator[Decoded]:
    """Decode in a few threads, keeping the order and a bounded number of images in memory.

    `channels` is what `spec` left open and an earlier image has decided; None: the first of these decides.
    """
    Image.preinit()  # else the threads race to load Pillow's readers
    head, first = _first_readable(images)
    stored = channels or (1 if first.mode in _GREY_MODES else 3)
    channels = {"rgb": 3, "grey": 1, "stored": stored}[spec.channels]

    def task(batch: list[Named]) -> list[Decoded]:
        return [(name, _attempt(encoded, channels, spec)) for name, encoded in batch]

    batches = _batches(head, images)
    if first.width * first.height < _THREADS_FROM_PIXELS:
        yield from chain.from_iterable(map(task, batches))
        return
    num_threads = min(8, os.cpu_count() or 1)
    waiting: deque[Future[list[Decoded]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for batch in batches:
            waiting.append(pool.submit(task, batch))
            if len(waiting) > 2 * num_threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _first_readable(images: Iterator[Named]) -> tuple[list[Named], Image.Image]:
    """The images taken from the iterator to find one that opens, and that one (not loaded), or a blank."""
    head = []
    for name, encoded in islice(images, _TASK):
        head.append((name, encoded))
        try:
            with _opened(encoded) as image:
                return head, image
        except MemoryError:
            raise
        except Exception:  # decoding meets it again and reports it
            continue
    return head, Image.new("RGB", (1, 1))


def _batches(head: list[Named], images: Iterable[Named]) -> Iterator[list[Named]]:
    if head:
        yield head
    images = iter(images)
    while batch := list(islice(images, _TASK)):
        yield batch


def _attempt(encoded: Encoded, channels: int, spec: ImageSpec) -> Pixels | str:
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
    """The image, its header read and its pixels not yet. Raises ValueError for one that would not fit the memory."""
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded[..., 0] if encoded.ndim == 3 and encoded.shape[2] == 1 else encoded)
    if not isinstance(encoded, Path) and not encoded:
        raise ValueError("no bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower than Pillow's
        try:
            image = Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded))
        except Image.DecompressionBombError:  # beyond Pillow's own limit, it does not say how large
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
        image = image.convert("RGBA")  # a palette may hold transparency, about which "RGB" warns
    return image.convert(mode)


def _resized(image: Image.Image, size: int, resize: Literal["squash", "crop", "pad"]) -> Image.Image:
    width, height = image.size
    if (width, height) == (size, size):
        return image
    if resize == "squash":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    if resize == "crop":  # the square first: the long side of a strip would be scaled up with it
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    scale = size / max(width, height)
    scaled = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    return image.crop((left, top, left + size, top + size))  # beyond the image it gives black
