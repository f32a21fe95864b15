"""Finds the facts of a model: it is built, and one of timm's is shown images as well.

Models by name are built on torch's meta device, where tensors have shapes and no values, so that the largest takes a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lrstudy.errors import Fault, InputError
from lrstudy.models.build import Builder, build_model
from lrstudy.models.catalogue import Stem
from lrstudy.models.facts import Facts, Section
from lrstudy.models.image_size import Size, shown, sides, size_of
from lrstudy.models.timm_names import is_timm


def examine(
    name: str, num_classes: int, channels: int, size: Size, builder: Builder | None = None, stem: Stem | None = None
) -> Facts:
    """Build a model, and look at it; arguments as of `build_model`.

    Raises InputError as that does, and if a model of timm's cannot take the images or does not classify them.
    """
    model = build_model(name, num_classes, channels, size, 0, builder, stem, "cpu" if builder else "meta")
    if is_timm(name):
        _require_whole_patches(name, model.module, size)
        _require_logits(name, model.module, (2, channels, *sides(size)), num_classes)
    parameters = dict(model.module.named_parameters())
    return Facts(
        has_batchnorm=any(isinstance(module, _BatchNorm) for module in model.module.modules()),
        sections=tuple(_section(names, parameters) for names in model.sections),
    )


def _section(names: tuple[str, ...], parameters: Mapping[str, nn.Parameter]) -> Section:
    number = sum(parameters[name].numel() for name in names)
    return Section(len(names), number, *((names[0], names[-1]) if names else ("", "")))


def _require_logits(name: str, module: nn.Module, shape: tuple[int, ...], num_classes: int) -> None:
    """Raise InputError unless a module on the meta device makes logits of images of this shape, training or not."""
    for is_training in (True, False):
        try:
            with torch.no_grad():
                logits = module.train(is_training)(torch.empty(shape, device="meta"))
        except Exception as error:
            problem = f"{name} cannot take images of {shown(size_of(*shape[2:]))}: {type(error).__name__}: {error}"
            raise InputError(Fault("model", problem, advice=_made_for(module))) from error
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if got != (shape[0], num_classes):
            expected = f"a classifier, with logits of shape {(shape[0], num_classes)} for {shape[0]} images"
            raise InputError(Fault("model", expected=expected, got=f"{name}, which gives {got}"))


def _require_whole_patches(name: str, module: nn.Module, size: Size) -> None:
    """Raise InputError if a transformer would ignore the right and lower edge of the images."""
    embedding = getattr(module, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if not isinstance(patch, tuple) or getattr(embedding, "dynamic_img_pad", False):
        return
    if any(side % part for side, part in zip(sides(size), patch, strict=True)):
        problem = f"{name} takes images in multiples of {patch[0]} pixels; got {shown(size)}"
        raise InputError(Fault("model", problem, advice=_made_for(module)))


def _made_for(module: nn.Module) -> str:
    configuration: Any = getattr(module, "pretrained_cfg", None) or {}
    if "input_size" not in configuration:
        return ""
    made_for = shown(size_of(*configuration["input_size"][1:]))
    return f"It was made for {made_for}: set image.size, or choose another model."
