"""Reads a part of a data set in batches on the device, where images (uint8) are augmented and normalised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrstudy.data.normalise import Constants
from lrstudy.data.reading import Bounds, Images, place

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Part:
    """The examples of one part (train, validation or test).

    Args:
        images: uint8 (N, C, H, W), in the device's memory or read from a file.
        labels: int64 (N,), or uint8 0 and 1 of shape (N, classes), on the device.
        index: Positions in the data set, int64 (N,), on the CPU.
        mean: Subtracted from values of 0 ... 255, shape (1, C, 1, 1).
        scale: Multiplied with the difference, shape (1, C, 1, 1).
        memory_format: That of normalised images.
    """

    images: Images
    labels: Tensor
    index: NDArray[np.int64]
    mean: Tensor
    scale: Tensor
    memory_format: torch.memory_format = torch.contiguous_format

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """The device on which batches arrive."""
        return self.images.device

    def batches(self, order: Tensor | None, bounds: Bounds) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Positions in the part, images (uint8) and labels of each batch, on the device.

        The batch of a bound holds order[start:stop]. `order` is int64 (N,) on the CPU; None takes the stored order.
        """
        positions = (torch.arange(len(self)) if order is None else order).to(self.device)
        for (start, stop), images in zip(bounds, self.images.batches(order, bounds), strict=True):
            batch = positions[start:stop]
            yield batch, images, self.labels[batch]

    def normalised(self, images: Tensor) -> Tensor:
        """Float32 images from uint8 ones: (x - mean) * scale."""
        return images.to(torch.float32, memory_format=self.memory_format).sub_(self.mean).mul_(self.scale)


def part_of(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | NDArray[np.uint8],
    index: NDArray[np.int64],
    device: torch.device,
    constants: Constants,
    is_resident: bool = True,
    memory_format: str = "contiguous",
) -> Part:
    """The examples of a data set at `index`.

    Args:
        images: uint8 (M, C, H, W), an array or a memory-mapped file.
        labels: int64 (M,), or uint8 0 and 1 of shape (M, classes).
        index: int64 (N,).
        device: Where batches arrive.
        constants: Mean and deviation of each channel, for values scaled to 0 ... 1.
        is_resident: Whether a GPU keeps the images in its memory, see `reading.fits`.
        memory_format: That of normalised images, a key of MEMORY_FORMATS.
    """
    mean, deviation = (torch.tensor(c, dtype=torch.float32).view(1, -1, 1, 1) * 255 for c in constants)
    return Part(
        images=place(images, index, device, is_resident),
        labels=torch.from_numpy(labels[index].astype(np.int64 if labels.ndim == 1 else np.uint8)).to(device),
        index=index,
        mean=mean.to(device),
        scale=(1 / deviation).to(device),
        memory_format=MEMORY_FORMATS[memory_format],
    )


@dataclass(frozen=True)
class Augmentation:
    """Augmentation parameters of one epoch, one row per training example, so they do not depend on the batch size.

    `flip`: whether to mirror left-right, bool (N,). `shift`: row and column of the crop in the padded image, int64
    (N, 2); None for no crop. `padding`: in pixels (an eighth of the shorter side: 4 for 32 pixels, as in the ResNet paper).
    """

    flip: Tensor
    shift: Tensor | None
    padding: int

    @staticmethod
    def draw(kind: str, part: Part, generator: torch.Generator) -> Augmentation | None:
        """Parameters for all examples of an epoch; `kind` is ``flip``, ``crop_flip`` or ``none``, which gives None."""
        if kind == "none":
            return None
        padding = max(1, min(part.images.shape[-2:]) // 8)
        flip = torch.rand(len(part), generator=generator) < 0.5
        shift = torch.randint(0, 2 * padding + 1, (len(part), 2), generator=generator)
        device = part.device
        return Augmentation(flip.to(device), shift.to(device) if kind == "crop_flip" else None, padding)

    def apply(self, images: Tensor, positions: Tensor) -> Tensor:
        """The augmented images of a batch, uint8, padded with black; `positions` are its examples' in the part."""
        batch, channels, height, width = images.shape
        columns = torch.arange(width, device=images.device).expand(batch, width)
        columns = torch.where(self.flip[positions].unsqueeze(1), width - 1 - columns, columns)
        rows = torch.arange(height, device=images.device).expand(batch, height)
        if self.shift is not None:
            images = torch.nn.functional.pad(images, (self.padding,) * 4)
            shift = self.shift[positions]
            rows, columns = rows + shift[:, :1], columns + shift[:, 1:]
        stride = images.shape[-1]
        pixels = (rows.unsqueeze(2) * stride + columns.unsqueeze(1)).view(batch, 1, height * width)
        flat = images.reshape(batch, channels, -1)
        return flat.gather(2, pixels.expand(batch, channels, -1)).view(batch, channels, height, width)
