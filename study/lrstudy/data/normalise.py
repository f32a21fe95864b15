"""Mean and standard deviation per channel, which are part of a lineage's root."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, for values scaled to 0 ... 1."""

IMAGENET: Constants = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BLOCK_BYTES = 1 << 24


def normalisation(kind: str, images: NDArray[np.uint8], train: NDArray[np.int64]) -> Constants:
    """The constants that normalise images of shape (N, C, H, W): 0 and 1 for ``none``, else ImageNet's or the data's.

    ``imagenet`` on grey images takes the mean of the three constants. ``data`` computes them over all pixels of the
    training examples (`train`, int64 indices), in float64, rounded to 6 decimals; a channel without variance gets
    deviation 1.
    """
    channels = images.shape[1]
    if kind == "none":
        return (0.0,) * channels, (1.0,) * channels
    if kind == "imagenet":
        return for_channels(IMAGENET, channels)
    return _measured(images, train)


def for_channels(constants: Constants, channels: int) -> Constants:
    """The constants for images with so many channels: of grey ones the mean over the colours."""
    if len(constants[0]) == channels:
        return constants
    mean, deviation = (sum(values) / len(values) for values in constants)
    return (mean,) * channels, (deviation,) * channels


def _measured(images: NDArray[np.uint8], train: NDArray[np.int64]) -> Constants:
    """Mean and deviation of the images at `train`, read in blocks; sums are integers, so order does not matter."""
    channels = images.shape[1]
    total, squares, count = np.zeros(channels, np.int64), np.zeros(channels, np.int64), 0
    step = max(1, _BLOCK_BYTES // images[0].nbytes)
    for start in range(0, len(train), step):
        block = images[train[start : start + step]].astype(np.int64)
        total += block.sum(axis=(0, 2, 3))
        squares += (block**2).sum(axis=(0, 2, 3))
        count += block.size // channels
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation < 1e-4] = 255.0
    return tuple(np.round(mean / 255, 6).tolist()), tuple(np.round(deviation / 255, 6).tolist())
