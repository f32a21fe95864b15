"""Resizing, channels and normalisation as a network: pixels of any size become what the study trained with, to the bit.

Pillow resizes with integers: coefficients and sums in steps of 2 ** -22, rounded to whole grey levels after each of two
passes. Every step of that is exact in float64, so two matrix products whose factors follow from the size of the image
give the same pixels. ONNX's own Resize and torch's interpolate do not: they differ by a grey level or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

_STEPS = 2.0**22
"""Pillow's coefficients are multiples of 1 / this."""
_LUMA = (19595, 38470, 7471)
"""ITU-R 601 in units of 1 / 65,536, as Pillow rounds it."""
_VERTICAL_FIRST_SINCE = 13
"""The version of Pillow that began to resize an image vertically first if its height shrinks far more than its width."""


@dataclass(frozen=True)
class ImageForm:
    """How the study that trained a model made its images.

    Attributes:
        size: Height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: ``squash``, ``crop`` or ``pad``, see `ImageSpec`.
        mean, deviation: Of each channel, for values scaled to 0 ... 1.
        pillow: The version of Pillow whose resizing is followed.
    """

    size: tuple[int, int]
    channels: int
    resize: Literal["squash", "crop", "pad"]
    mean: Sequence[float]
    deviation: Sequence[float]
    pillow: str


class Preprocessing(nn.Module):
    """Makes normalised float32 images (N, channels, height, width) of uint8 RGB images (N, H, W, 3) of any size."""

    def __init__(self, form: ImageForm) -> None:
        super().__init__()
        self.form = form
        mean, deviation = (torch.tensor(values).view(1, -1, 1, 1) * 255 for values in (form.mean, form.deviation))
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / deviation)

    def forward(self, images: Tensor) -> Tensor:
        """The images as the network was trained on them."""
        pixels = self.pixels(images)
        mean, scale = self.get_buffer("mean"), self.get_buffer("scale")
        return (pixels - mean) * scale

    def pixels(self, images: Tensor) -> Tensor:
        """The images before normalisation: whole numbers from 0 to 255, float32."""
        channels = images.permute(0, 3, 1, 2)
        if self.form.channels == 1:
            luma = torch.tensor(_LUMA, dtype=torch.int32).view(1, 3, 1, 1)
            weighted = (channels.to(torch.int32) * luma).sum(1, keepdim=True, dtype=torch.int32)
            channels = (weighted + 32768) // 65536
        return self._resized(channels.to(torch.float64)).to(torch.float32)

    def _resized(self, images: Tensor) -> Tensor:
        height, width = self.form.size
        # Tensors, not numbers: so an exported graph computes them from the shape of its input.
        rows, columns = (torch.scalar_tensor(images.shape[k], dtype=torch.float64) for k in (2, 3))
        down, across = self._axes(rows, columns)
        vertical = _coefficients(images.shape[2], height, *down)
        horizontal = _coefficients(images.shape[3], width, *across).T
        horizontal_first = _rounded(vertical @ _rounded(images @ horizontal))
        if int(self.form.pillow.split(".")[0]) < _VERTICAL_FIRST_SINCE:
            return horizontal_first
        vertical_first = _rounded(_rounded(vertical @ images) @ horizontal)
        lost_rows, lost_columns = rows - down[3], columns - across[3]
        is_tall = (lost_rows > 0) & (lost_rows > 2 * lost_columns)
        return torch.where(is_tall, vertical_first, horizontal_first)

    def _axes(self, rows: Tensor, columns: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """For both axes: where sampling starts, the distance of samples, the first one in the result, and their number."""
        height, width = self.form.size
        zero = torch.zeros_like(rows)
        if self.form.resize == "crop":
            inner_rows = torch.minimum(rows, columns * height / width)
            inner_columns = torch.minimum(columns, rows * width / height)
            first_row, first_column = torch.floor((rows - inner_rows) / 2), torch.floor((columns - inner_columns) / 2)
            return (
                (first_row, inner_rows / height, zero, zero + height),
                (first_column, inner_columns / width, zero, zero + width),
            )
        if self.form.resize == "squash":
            return (zero, rows / height, zero, zero + height), (zero, columns / width, zero, zero + width)
        scale = torch.minimum(height / rows, width / columns)
        return _padded(rows, height, scale), _padded(columns, width, scale)


def _padded(length: Tensor, target: int, scale: Tensor) -> tuple[Tensor, ...]:
    """An axis of `length` pixels that is scaled and centred within `target`; Python and torch round halves to even."""
    number = torch.clamp(torch.round(length * scale), min=1)
    return torch.zeros_like(length), length / number, torch.floor((number - target) / 2), number


def _coefficients(length: int, target: int, start: Tensor, step: Tensor, first: Tensor, number: Tensor) -> Tensor:
    """The weight of each of `length` pixels in each of `target` samples, in units of 1 / _STEPS, float64 (target, length).

    A triangle filter, as wide as two samples where the image shrinks and as two pixels where it grows. Samples outside
    of 0 ... `number` - 1 are black.
    """
    sample = torch.arange(target, dtype=torch.float64) + first
    centre = (start + (sample + 0.5) * step).unsqueeze(1)
    pixel = torch.arange(length, dtype=torch.float64).unsqueeze(0)
    weights = torch.clamp(1 - torch.abs((pixel - centre + 0.5) * (1 / torch.clamp(step, min=1.0))), min=0.0)
    weights = torch.floor(weights / weights.sum(1, keepdim=True) * _STEPS + 0.5)
    is_inside = ((sample >= 0) & (sample < number)).unsqueeze(1)
    return torch.where(is_inside, weights, torch.zeros_like(weights))


def _rounded(sums: Tensor) -> Tensor:
    """Whole grey levels of sums in units of 1 / _STEPS."""
    return torch.clamp(torch.floor(sums / _STEPS + 0.5), 0, 255)
