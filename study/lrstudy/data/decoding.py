"""From encoded images to pixels as a study's `image` asks (uint8, C x H x W), a whole source at a time."""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lrstudy import faults
from lrstudy.data.cells import POOL, TEST, VALIDATION
from lrstudy.data.labels import encode
from lrstudy.data.sources import Encoded, Source
from lrstudy.data.spec import ByColumn, DataSpec, ImageSpec, SplitSpec

Pixels = NDArray[np.uint8]
Named = tuple[str, Encoded]
Decoded = tuple[str, Pixels | str]
"""Name of an image, and its pixels or why there are none."""

_GREY_MODES = frozenset(["1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"])
_ORIENTATION = 0x0112  # the EXIF tag
_TASK = 16  # images per task of a thread
_THREADS_FROM_PIXELS = 96 * 96  # below, threads wait for each other: 32 x 32 took a third longer with two
_MOST_NAMES = 5
MOST_PIXELS = 64_000_000
"""Larger images are refused unread: a few kilobytes can claim to be gigabytes, and the largest X-rays have 20 million."""


def write_arrays(source: Source, spec: DataSpec, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Decode a source into images.npy, labels.npy, part.npy and group.npy in `folder`; return class and group names.

    Images are read, decoded and written in a stream, in order, by a few threads. Raises InputError for labels that are no
    classes, images that do not decode (all are tried, so that the message can count them), and images of different
    sizes or not square if `spec.image.size` is None.
    """
    rows, parts = source.labels()
    labels, classes = encode(rows, spec.label)
    groups, names = _groups(source, spec, len(rows))
    with (folder / "images.npy").open("wb") as file:
        stack = _Stack(file, len(labels), any_size=spec.image.size is not None)
        for name, pixels in _decoded(source.images(), spec.image):
            stack.append(name, pixels)
        stack.close()
        _to_disk(file)
    part = parts_by_column(source, spec.split, np.array(parts, dtype=np.uint8))
    for name, array in (("labels", labels), ("part", part), ("group", groups)):
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, array)
            _to_disk(file)
    return classes, names


def parts_by_column(source: Source, split: SplitSpec, parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The given parts, where a split goes by a column replaced by what that says. Raises InputError."""
    parts = parts.copy()
    shares = ((split.test, TEST), (split.validation, VALIDATION))
    if any(isinstance(share, ByColumn) for share, _ in shares):
        for share, part in shares:
            if share != "given":
                parts[parts == part] = POOL  # what the source says of a part that the study does not take is no matter
    for field_name, share, part in (("test", split.test, TEST), ("validation", split.validation, VALIDATION)):
        if not isinstance(share, ByColumn):
            continue
        values = np.array(source.column(share.column))
        chosen = values == share.value
        if not chosen.any():
            raise faults.InputError(
                faults.unknown(f"split.{field_name}", f"value of {share.column}", share.value, sorted(set(values))[:20])
            )
        if taken := int((parts[chosen] != POOL).sum()):
            other = "test" if part == VALIDATION else "validation"
            raise faults.InputError(
                f"split.{field_name}: {taken} of the {int(chosen.sum())} examples whose {share.column} is {share.value} are in the "
                f"{other} part as well."
            )
        parts[chosen] = part
    return parts


def _groups(source: Source, spec: DataSpec, count: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The number of each example's group, and the groups' sorted names; -1 and none without a column."""
    if spec.group_column is None:
        return np.full(count, -1, dtype="<i8"), ()
    values = source.column(spec.group_column)
    if missing := values.count(""):
        raise faults.InputError(
            f"data: {missing} of {count} rows have no {spec.group_column} (the first is row {values.index('')}); give each a group of its "
            "own, or leave these rows out."
        )
    names, numbers = np.unique(np.array(values), return_inverse=True)
    return numbers.astype("<i8"), tuple(names.tolist())


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


@dataclass
class _Stack:
    """Writes images of one shape behind an .npy header, and remembers those that cannot be written.

    A plain file, not a memory map: a full disk then raises OSError instead of killing the process.
    """

    file: IO[bytes]
    num_images: int
    any_size: bool
    arrived: int = 0
    num_failed: int = 0
    failed: list[str] = field(default_factory=list)
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)

    def append(self, name: str, pixels: Pixels | str) -> None:
        self.arrived += 1
        if isinstance(pixels, str):
            self.num_failed += 1
            self.failed += [f"{name} ({pixels})"] if len(self.failed) < _MOST_NAMES else []
            return
        if not self.shapes:
            header = {"descr": "|u1", "fortran_order": False, "shape": (self.num_images, *pixels.shape)}
            np.lib.format.write_array_header_1_0(self.file, header)
        self.shapes[pixels.shape] += 1
        if len(self.shapes) == 1 and not self.num_failed:
            self.file.write(np.ascontiguousarray(pixels).data)

    def close(self) -> None:
        """Raise InputError unless every image was written."""
        assert self.arrived == self.num_images, f"{self.num_images} labels, {self.arrived} images"
        found = []
        if self.num_failed:
            others = self.num_failed - len(self.failed)
            names = ", ".join(self.failed) + (f" and {others} more" if others else "")
            found.append(f"data: {self.num_failed} of {self.num_images} images cannot be decoded: {names}.")
        sizes = [f"{width} x {height} ({n})" for (_, height, width), n in self.shapes.most_common(_MOST_NAMES)]
        if len(self.shapes) > 1:
            more = ", ..." if len(self.shapes) > len(sizes) else ""
            found.append(
                f"data: images are stored in {len(self.shapes)} sizes ({', '.join(sizes)}{more}); "
                "set image.size to give all the same."
            )
        elif any(height != width for _, height, width in self.shapes):
            found.append(f"data: images are not square but {sizes[0]}; set image.size to make them square.")
        if found:
            raise faults.InputError(found)


def _decoded(images: Iterator[Named], spec: ImageSpec) -> Iterator[Decoded]:
    """Decode in threads, keeping the order and a bounded number of images in memory."""
    Image.preinit()  # else the threads race to load Pillow's readers
    head, first = _first_readable(images)
    stored = 1 if first.mode in _GREY_MODES else 3
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
        return " ".join(str(error).split())[:100] or type(error).__name__


def _opened(encoded: Encoded) -> Image.Image:
    """The image, its header read and its pixels not yet. Raises ValueError for one that would not fit the memory."""
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded[..., 0] if encoded.ndim == 3 and encoded.shape[2] == 1 else encoded)
    if not isinstance(encoded, Path) and not encoded:
        raise ValueError("no bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower than Pillow's
        image = Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded))
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


def _to_disk(file: IO[bytes]) -> None:
    """A rename must not outlive the bytes it publishes."""
    file.flush()
    os.fsync(file.fileno())
