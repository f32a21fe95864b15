"""Builds a model of timm's for images of a given size."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from lrstudy.errors import Fault, InputError
from lrstudy.models.image_size import Size
from lrstudy.models.timm_names import PREFIX, without_tag


def create(name: str, num_classes: int, channels: int, size: Size) -> nn.Module:
    """A model of timm's with random weights, drawn from torch's default generator.

    Models whose weights depend on the image size, such as ViT, are told it; others, such as most CNNs, do not take it.

    Args:
        name: With the prefix ``timm:``, and perhaps a tag, which only says which weights.
        num_classes: The number of logits.
        channels: The number of image channels, 1 or 3.
        size: The image size in pixels.

    Raises:
        InputError: timm has no weights with such a tag.
        Exception: Whatever the model raises if it cannot take images of this size.
    """
    name = name.removeprefix(PREFIX)
    _require_tag(name)
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels}
    generator = torch.get_rng_state()
    try:
        module: nn.Module = timm.create_model(name, img_size=size, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        torch.set_rng_state(generator)
        module = timm.create_model(name, **arguments)
    return module


def _require_tag(name: str) -> None:
    architecture = without_tag(name)
    if name == architecture:
        return
    tagged = timm.list_pretrained(f"{architecture}.*")
    if name not in tagged:
        tags = tuple(one.partition(".")[2] for one in tagged)
        raise InputError(Fault("model", f"timm has no weights {name!r}", valid=tags, name=name.partition(".")[2]))
