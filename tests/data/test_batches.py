"""Batched augmentation: each example is cropped and mirrored by its own parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lrstudy.data.batches import Augmentation, part_of


@pytest.mark.parametrize(("height", "width", "padding"), [(32, 32, 4), (24, 16, 2), (16, 24, 2), (218, 178, 22)])
def test_crop_flip_shifts_and_mirrors_every_image_within_black_borders(height, width, padding):
    images = np.random.default_rng(0).integers(1, 256, (6, 3, height, width), dtype=np.uint8)
    labels = np.zeros(6, np.int64)
    part = part_of(images, labels, np.arange(6), torch.device("cpu"), ((0.0,) * 3, (1.0,) * 3))
    augmentation = Augmentation.draw("crop_flip", part, torch.Generator().manual_seed(1))
    assert augmentation.padding == padding, "an eighth of the shorter side"
    order = torch.tensor([4, 0, 5])
    augmented = augmentation.apply(torch.from_numpy(images)[order], order)
    for result, number in zip(augmented, order.tolist(), strict=True):
        framed = np.pad(images[number], ((0, 0), (padding, padding), (padding, padding)))
        row, column = augmentation.shift[number].tolist()
        expected = framed[:, row : row + height, column : column + width]
        expected = expected[:, :, ::-1] if augmentation.flip[number] else expected
        assert (result.numpy() == expected).all()
    assert len(set(augmentation.flip.tolist())) == 2, "some are mirrored, some are not"
