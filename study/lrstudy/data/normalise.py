"""Mean and deviation per channel, as part of what a lineage's root names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Constants = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET: Constants = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BLOCK_BYTES = 1 << 24


def normalisation(kind: str, images: NDArray[np.uint8], train: NDArray[np.int64]) -> Constants:
    """Mean and deviation of each channel for values scaled to 0 ... 1; images have shape (N, C, H, W).

    `data` takes them from the training examples, over all pixels, in float64, rounded to 6 digits; a
    channel without variance gets deviation 1. `imagenet` on grey images takes the mean of the three constants.
    """
    channels = images.shape[1]
    if kind == "none":
        return (0.0,) * channels, (1.0,) * channels
    if kind == "imagenet":
        mean, deviation = IMAGENET
        return IMAGENET if channels == 3 else ((sum(mean) / 3,) * channels, (sum(deviation) / 3,) * channels)
    total, squares, count = np.zeros(channels, np.int64), np.zeros(channels, np.int64), 0
    step = max(1, _BLOCK_BYTES // images[0].nbytes)
    for start in range(0, len(train), step):
        block = images[train[start : start + step]].astype(np.int64)  # exact, so the order of sums does not matter
        total += block.sum(axis=(0, 2, 3))
        squares += (block**2).sum(axis=(0, 2, 3))
        count += block.size // channels
    mean_value = total / count
    deviation_value = np.sqrt(np.maximum(squares / count - mean_value**2, 0))
    deviation_value[deviation_value < 1e-4] = 255.0
    return tuple(np.round(mean_value / 255, 6).tolist()), tuple(np.round(deviation_value / 255, 6).tolist())
