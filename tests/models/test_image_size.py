"""Image sizes: one number if square, else height and width; names of square images are what they always were."""

from __future__ import annotations

from hashlib import blake2b

import pytest
import torch

from lrstudy.errors import InputError
from lrstudy.models.build import build_model
from lrstudy.models.catalogue import FAMILIES, describe, stem_of
from lrstudy.models.examine import examine
from lrstudy.models.image_size import shown, sides, size_of
from lrstudy.settings import canonical_json

RECTANGULAR = [("small_cnn", (40, 24)), ("lenet", (32, 20)), ("resnet18", (40, 24)), ("swin_t", (40, 24)),
               ("timm:mobilenetv1_100", (40, 24)), ("timm:vit_tiny_patch16_224", (48, 32))]  # fmt: skip


def test_a_size_is_one_number_exactly_if_it_is_square():
    assert size_of(96, 96) == 96
    assert size_of(218, 178) == (218, 178)
    assert [sides(96), sides((218, 178))] == [(96, 96), (218, 178)]
    assert [shown(96), shown((218, 178))] == ["96 x 96 pixels", "218 x 178 pixels (height x width)"]


def test_names_of_square_images_are_those_of_before():
    """The digest was computed before there were other images, other stems and models of timm's."""
    described = [
        describe(name, 3, 1, size)
        for family in FAMILIES
        for name in family.names
        for size in (64, 224)
        if size >= family.min_size and size % family.multiple == 0
    ]
    digest = blake2b(canonical_json(described), digest_size=16).hexdigest()
    assert (len(described), digest) == (161, "4b41c604a1c2e5afdfe718e6112f3857")


@pytest.mark.parametrize(("name", "size"), RECTANGULAR)
def test_models_take_images_that_are_not_square(name, size):
    model = build_model(name, 7, 3, size, 0)
    with torch.no_grad():
        assert model.module(torch.zeros(2, 3, *size)).shape == (2, 7)
    assert model.description["size"] == list(size)


def test_both_sides_count():
    assert [stem_of("resnet18", size) for size in ((64, 48), (65, 48), (48, 65))] == ["3x3", "original", "original"]
    for name, size in (("lenet", (15, 40)), ("lenet", (40, 15)), ("vit_b_16", (32, 48)), ("maxvit_t", (224, 230))):
        with pytest.raises(InputError, match=r"needs (square )?images of at least"):
            describe(name, 3, 3, size)
    with pytest.raises(InputError) as caught:
        describe("vit_b_16", 3, 3, (32, 48))
    assert str(caught.value).startswith(
        "model: vit_b_16 needs square images of at least 16 pixels, in multiples of 16; got 32 x 48 pixels (height x width)."
    )
    with pytest.raises(InputError, match=r"multiples of 16 pixels; got 48 x 40 pixels \(height x width\)"):
        examine("timm:vit_tiny_patch16_224", 7, 3, (48, 40))
