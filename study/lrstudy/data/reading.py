"""Where a process reads images from: the device's memory, or the decoded file through the node's page cache.

Mapping a file costs a worker neither loading time nor memory, because all trials on a node share the same pages. A file
that is large for the memory is read ahead, a few batches before they are used, so that the disk works while the device
does.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrstudy.data.container import memory_bytes

Bounds = Sequence[tuple[int, int]]
"""First and one-past-last position of each batch."""

_AHEAD = 4
_AHEAD_BYTES = 1 << 28
"""At most this many batches, and this many bytes of them, are read before they are used; at least one batch."""
_THREADS = 2
_RESIDENT_FRACTION = 0.4
"""A GPU keeps images that take at most this fraction of the memory that a trial may use; the rest is for the model."""
_MAPPED_FRACTION = 0.5
"""A file of at most this fraction of the machine's memory is taken to stay in the page cache once it has been read."""


@dataclass(frozen=True)
class Resident:
    """Images in the memory of their device: uint8 (N, C, H, W)."""

    pixels: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return tuple(self.pixels.shape)

    @property
    def device(self) -> torch.device:
        """The device on which batches arrive."""
        return self.pixels.device

    def batches(self, order: Tensor | None, bounds: Bounds) -> Iterator[Tensor]:
        """The images at order[start:stop] for every bound, uint8; in stored order if `order` is None."""
        there = None if order is None else order.to(self.device)
        for start, stop in bounds:
            yield self.pixels[start:stop] if there is None else self.pixels.index_select(0, there[start:stop])


@dataclass(frozen=True)
class Mapped:
    """The images at `rows` of a memory-mapped file, brought to a device batch by batch.

    Args:
        file: uint8 (M, C, H, W), a memory map.
        rows: int64 (N,), on the CPU.
        device: Where batches arrive.
        reads_ahead: Whether threads read a few batches in advance: for a file that will not stay in the page cache, or
            a GPU.
    """

    file: NDArray[np.uint8]
    rows: Tensor
    device: torch.device
    reads_ahead: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self.rows), *self.file.shape[1:])

    def batches(self, order: Tensor | None, bounds: Bounds) -> Iterator[Tensor]:
        """The images at order[start:stop] for every bound, uint8; in stored order if `order` is None."""
        rows = self.rows if order is None else self.rows[order]
        pieces = (rows[start:stop] for start, stop in bounds)
        if self.reads_ahead:
            return self._read_ahead(pieces)
        source = _as_tensor(self.file)
        return (source.index_select(0, piece) for piece in pieces)

    def _read_ahead(self, pieces: Iterator[Tensor]) -> Iterator[Tensor]:
        descriptor = os.open(self.file.filename, os.O_RDONLY)  # type: ignore[attr-defined]
        waiting: deque[Future[Tensor]] = deque()
        pool = ThreadPoolExecutor(_THREADS)
        image_bytes = self.file[0].nbytes
        try:
            for piece in pieces:
                self._prefetch(descriptor, piece)
                waiting.append(pool.submit(self._read, piece))
                if len(waiting) > min(_AHEAD, max(1, _AHEAD_BYTES // (len(piece) * image_bytes))):
                    yield waiting.popleft().result().to(self.device, non_blocking=True)
            while waiting:
                yield waiting.popleft().result().to(self.device, non_blocking=True)
        finally:
            pool.shutdown(cancel_futures=True)
            os.close(descriptor)

    def _read(self, piece: Tensor) -> Tensor:
        pixels = torch.from_numpy(self.file[piece.numpy()])
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    def _prefetch(self, descriptor: int, piece: Tensor) -> None:
        """Tell the operating system which images are needed next, all at once, so that it reads them in parallel."""
        if not hasattr(os, "posix_fadvise"):
            return  # macOS
        size, offset = self.file[0].nbytes, self.file.offset  # type: ignore[attr-defined]
        for row in piece.tolist():
            os.posix_fadvise(descriptor, offset + row * size, size, os.POSIX_FADV_WILLNEED)


Images = Resident | Mapped


def place(
    images: NDArray[np.uint8], index: NDArray[np.int64], device: torch.device, is_resident: bool = True
) -> Images:
    """The images at `index`, placed where a trial reads them fastest. The pixels are the same wherever they are.

    Args:
        images: uint8 (M, C, H, W), an array or a memory-mapped file; on a CPU a mapped file is not copied.
        index: int64 (N,).
        device: Where batches arrive.
        is_resident: Whether a GPU keeps a mapped file's images in its memory, see `fits`.
    """
    if isinstance(images, np.memmap) and (device.type == "cpu" or not is_resident):
        is_large = images.nbytes > memory_bytes() * _MAPPED_FRACTION
        return Mapped(images, torch.from_numpy(index), device, reads_ahead=is_large or device.type == "cuda")
    return Resident(_copied(images, index, device))


def fits(num_bytes: int, device: torch.device, device_share: float) -> bool:
    """Whether a GPU, of which a trial may use `device_share` (0 ... 1), can hold images of `num_bytes` beside the model."""
    if device.type != "cuda":
        return True
    return num_bytes <= torch.cuda.get_device_properties(device).total_memory * device_share * _RESIDENT_FRACTION


def _copied(images: NDArray[np.uint8], index: NDArray[np.int64], device: torch.device) -> Tensor:
    """A copy on the device, made in pieces so that the host never holds all of it."""
    pixels = torch.empty((len(index), *images.shape[1:]), dtype=torch.uint8, device=device)
    step = max(1, (1 << 26) // max(1, images[0].nbytes))
    for start in range(0, len(index), step):
        piece = images[index[start : start + step]]
        pixels[start : start + len(piece)] = torch.from_numpy(np.ascontiguousarray(piece))
    return pixels


def _as_tensor(array: NDArray[np.uint8]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # we only read
        return torch.from_numpy(array)
