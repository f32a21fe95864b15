"""The first layers of a model for small images: chosen by the study, the size and the weights, and recorded."""

from __future__ import annotations

import pytest
from torch import nn

from lrstudy.errors import InputError
from lrstudy.models.build import build_model
from lrstudy.models.catalogue import stem_of


@pytest.mark.parametrize(
    ("name", "size", "choice", "is_random", "expected"),
    [
        ("resnet18", 64, "auto", True, "3x3"),
        ("resnet18", 65, "auto", True, "original"),
        ("resnet18", 32, "auto", False, "original"),
        ("resnet18", 32, "small", False, "3x3"),
        ("resnet18", 32, "original", True, "original"),
        ("resnet18", 224, "small", True, "3x3"),
        ("timm:resnet50d", 32, "auto", False, "original"),
        ("mobilenet_v2", 32, "auto", False, "stride1"),
        ("timm:mobilenetv1_100", 32, "auto", True, "stride1"),
        ("timm:mobilenetv1_100", 32, "auto", False, "stride1"),
        ("timm:mobilenetv1_100", 224, "auto", False, "original"),
        ("timm:vit_tiny_patch16_224", 32, "auto", True, "original"),
        ("./mine.py:build", 32, "original", True, "original"),
    ],
)
def test_a_small_stem_is_for_small_images_and_never_replaces_what_was_trained(name, size, choice, is_random, expected):
    assert stem_of(name, size, choice, is_random) == expected


@pytest.mark.parametrize("name", ["small_cnn", "convnext_tiny", "timm:convnext_atto", "./mine.py:build"])
def test_a_model_without_a_small_stem_is_asked_for_none(name):
    with pytest.raises(InputError) as caught:
        stem_of(name, 32, "small")
    assert str(caught.value) == (
        f"stem: expected auto or original, as the first layers of {name} are not changed for small images; got small."
    )


def test_the_chosen_stem_is_built_and_recorded():
    original = build_model("resnet18", 3, 3, 32, 0, stem="original")
    assert original.module.conv1.kernel_size == (7, 7)
    assert isinstance(original.module.maxpool, nn.MaxPool2d)
    assert original.description["stem"] == "original"
    small = build_model("resnet18", 3, 3, 96, 0, stem="3x3")
    assert small.module.conv1.kernel_size == (3, 3)
    assert small.description["stem"] == "3x3"
