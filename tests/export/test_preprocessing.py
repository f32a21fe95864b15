"""The exported preprocessing makes the very pixels that decoding makes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from lrstudy.data.decoding import decode
from lrstudy.export.preprocessing import ImageForm, Preprocessing

SHAPES = [(1, 1), (1, 90), (90, 1), (48, 48), (50, 50), (7, 13), (97, 51), (51, 97), (300, 40), (40, 300), (131, 128)]
"""Height and width: strips, the size itself, smaller and larger images, tall ones that are resized vertically first."""


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def form(size: int, channels: int, resize: str, pillow: str = "13.0.0") -> ImageForm:
    return ImageForm((size, size), channels, resize, [0.4] * channels, [0.2] * channels, pillow)  # type: ignore[arg-type]


@pytest.mark.parametrize(("resize", "channels", "size"), product(("squash", "crop", "pad"), (1, 3), (48, 50)))
def test_pixels_are_those_of_decoding_to_the_bit(resize, channels, size):
    from PIL import __version__

    preprocessing = Preprocessing(form(size, channels, resize, __version__))
    for height, width in SHAPES:
        image = noise(height, width)
        pixels = preprocessing.pixels(torch.from_numpy(image)[None])[0].numpy()
        np.testing.assert_array_equal(pixels, decode(image, channels, size, resize), err_msg=f"{height} x {width}")


def test_a_grey_image_with_three_equal_channels_keeps_its_levels():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.repeat(levels[..., None], 3, axis=2)
    pixels = Preprocessing(form(16, 1, "squash")).pixels(torch.from_numpy(image)[None])
    np.testing.assert_array_equal(pixels[0, 0].numpy(), levels)


def test_before_pillow_13_every_image_is_resized_horizontally_first():
    image = noise(300, 70)
    across = Image.fromarray(image).resize((48, 300), Image.Resampling.BILINEAR)
    expected = np.asarray(across.resize((48, 48), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    found = {
        pillow: Preprocessing(form(48, 3, "squash", pillow)).pixels(torch.from_numpy(image)[None])[0].numpy()
        for pillow in ("12.1.0", "13.0.0")
    }
    np.testing.assert_array_equal(found["12.1.0"], expected)
    assert (found["13.0.0"] != expected).any(), "the order shows"


def test_images_are_normalised_as_in_training():
    image = np.full((4, 4, 3), 200, np.uint8)
    images = Preprocessing(form(4, 3, "squash"))(torch.from_numpy(image)[None])
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, torch.full((1, 3, 4, 4), (200 / 255 - 0.4) / 0.2))
