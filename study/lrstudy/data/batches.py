"""Parts of a data set in batches on the device: uint8 images, augmented and normalised there."""

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
    """Examples of one part (train, validation or test).

    `images`: uint8 (N, C, H, W), in the device's memory or read from a file; `labels`: int64 (N,), or uint8 0 and 1 of
    shape (N, classes), on the device; `index`: position in the data set, int64 (N,), CPU.
    `mean` and `scale` have shape (1, C, 1, 1) and normalise values of 0 ... 255.
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
        """Where the batches are."""
        return self.images.device

    def batches(self, order: Tensor | None, bounds: Bounds) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Positions in the part, images (uint8) and labels of each batch, on the device.

        A batch holds order[start:stop] of its bound; `order` (int64, (N,), CPU) None: the examples as they lie.
        """
        positions = (torch.arange(len(self)) if order is None else order).to(self.device)
        for (start, stop), images in zip(bounds, self.images.batches(order, bounds), strict=True):
            chosen = positions[start:stop]
            yield chosen, images, self.labels[chosen]

    def normalised(self, images: Tensor) -> Tensor:
        """Float32 images from uint8 ones: (x - mean) * scale."""
        return images.to(torch.float32, memory_format=self.memory_format).sub_(self.mean).mul_(self.scale)


def part_of(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | NDArray[np.uint8],
    index: NDArray[np.int64],
    device: torch.device,
    constants: Constants,
    resident: bool = True,
    memory_format: str = "contiguous",
) -> Part:
    """The examples at `index` of a data set; `resident`: its images in a GPU's memory.

    `memory_format` (a key of MEMORY_FORMATS) is that of the normalised images.
    """
    mean, deviation = (torch.tensor(c, dtype=torch.float32).view(1, -1, 1, 1) * 255 for c in constants)
    return Part(
        images=place(images, index, device, resident),
        labels=torch.from_numpy(labels[index].astype(np.int64 if labels.ndim == 1 else np.uint8)).to(device),
        index=index,
        mean=mean.to(device),
        scale=(1 / deviation).to(device),
        memory_format=MEMORY_FORMATS[memory_format],
    )


@dataclass(frozen=True)
class Augmentation:
    """Augmentation parameters of one epoch, one row per training example, so they do not depend on the batch size.

    `flip`: mirror left-right, bool (N,). `shift`: row and column of the crop in the padded image, int64 (N, 2),
    or None for no crop; `padding` in pixels (an eighth of the side, 4 for 32 pixels, as in the ResNet paper).
    """

    flip: Tensor
    shift: Tensor | None
    padding: int

    @staticmethod
    def draw(kind: str, part: Part, generator: torch.Generator) -> Augmentation | None:
        """Parameters for all examples of an epoch; None if `kind` is ``none``."""
        if kind == "none":
            return None
        padding = max(1, part.images.shape[-1] // 8)
        flip = torch.rand(len(part), generator=generator) < 0.5
        shift = torch.randint(0, 2 * padding + 1, (len(part), 2), generator=generator)
        device = part.device
        return Augmentation(flip.to(device), shift.to(device) if kind == "crop_flip" else None, padding)

    def apply(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Augmented uint8 images of a batch; `chosen` are its positions in the part. Padding is black."""
        batch, channels, height, width = images.shape
        columns = torch.arange(width, device=images.device).expand(batch, width)
        columns = torch.where(self.flip[chosen].unsqueeze(1), width - 1 - columns, columns)
        rows = torch.arange(height, device=images.device).expand(batch, height)
        if self.shift is not None:
            images = torch.nn.functional.pad(images, (self.padding,) * 4)
            shift = self.shift[chosen]
            rows, columns = rows + shift[:, :1], columns + shift[:, 1:]
        stride = images.shape[-1]
        pixels = (rows.unsqueeze(2) * stride + columns.unsqueeze(1)).view(batch, 1, height * width)
        flat = images.reshape(batch, channels, -1)
        return flat.gather(2, pixels.expand(batch, channels, -1)).view(batch, channels, height, width)
