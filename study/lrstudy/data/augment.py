"""Augmentation of one example at a time: a list of torchvision transforms, or a user's function.

Every example has its own seed in every epoch, so its augmentation depends neither on its batch nor on the process that
trains. This costs a call per example: some tenths of a millisecond, where the batched `crop_flip` takes microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrstudy.errors import Fault, InputError, unknown
from lrstudy.settings import canonical_json

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""A user's augmentation: takes an image, uint8 (C, H, W), and a generator; returns an image of that type and shape."""

_NOT_OF_ONE_IMAGE = frozenset(
    [
        "Transform",
        "Compose",
        "RandomApply",
        "RandomChoice",
        "RandomOrder",
        "Lambda",
        "FiveCrop",
        "TenCrop",
        "MixUp",
        "CutMix",
        "Normalize",
        "LinearTransformation",
        "ToDtype",
        "ConvertImageDtype",
        "ToTensor",
        "ToImage",
        "ToPILImage",
        "PILToTensor",
        "ToPureTensor",
        "ClampBoundingBoxes",
        "ClampKeyPoints",
        "ConvertBoundingBoxFormat",
        "SanitizeBoundingBoxes",
        "SanitizeKeyPoints",
        "SetClampingMode",
        "UniformTemporalSubsample",
    ]
)
"""Transforms that take other transforms, several images or boxes, or that return something other than a uint8 image."""


@dataclass(frozen=True)
class PerExample:
    """One epoch's augmentation: a transform, its name for messages, and the seed of each example, int64 (N,)."""

    transform: Transform
    seeds: Tensor
    name: str

    def apply(self, images: Tensor, positions: Tensor) -> Tensor:
        """The augmented images of a batch, uint8; `positions` are those of its examples in the part.

        Raises InputError if the transform returns anything but an image of the same type and shape.
        """
        seeds = self.seeds[positions.to(self.seeds.device)].tolist()
        augmented = []
        for image, seed in zip(images, seeds, strict=True):
            result = self.transform(image, torch.Generator().manual_seed(seed))
            if not isinstance(result, Tensor) or result.dtype != torch.uint8 or result.shape != image.shape:
                got = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
                raise InputError(
                    Fault(
                        "augment",
                        expected=f"{self.name} to give an image like the one it got, torch.uint8 {tuple(image.shape)}",
                        got=got,
                    )
                )
            augmented.append(result)
        return torch.stack(augmented)

    @staticmethod
    def draw(transform: Transform, num_examples: int, generator: torch.Generator, name: str) -> PerExample:
        """The augmentation of one epoch, with a seed drawn for each example.

        Args:
            transform: Called with an image and a generator seeded for its example.
            num_examples: N, those of the training part.
            generator: The seeds are drawn from it, which advances it.
            name: What messages call the transform.
        """
        return PerExample(transform, torch.randint(0, 2**62, (num_examples,), generator=generator), name)


def canonical(transforms: list[Any]) -> str:
    """A study file's list of transforms as canonical JSON, ``[[name, arguments], ...]``.

    An item is a name, or a map from a name to its arguments: a map, or just the first argument. Raises InputError for
    transforms that torchvision does not have or that do not take their arguments.
    """
    text = canonical_json([_name_and_arguments(item) for item in transforms]).decode()
    compose(text)
    return text


def compose(text: str) -> Transform:
    """The transform that canonical JSON describes.

    Torch's default generator is seeded like the one that the transform gets, and restored afterwards.
    """
    steps = [_build(name, arguments) for name, arguments in json.loads(text)]

    def transform(image: Tensor, generator: torch.Generator) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator.initial_seed())
            for step in steps:
                image = step(image)
        return image

    return transform


def _name_and_arguments(item: object) -> list[object]:
    """An item of the list as ``[name, arguments]``; a first argument alone stands under the key ""."""
    if isinstance(item, str):
        return [item, {}]
    if not (isinstance(item, Mapping) and len(item) == 1):
        raise InputError(
            Fault("augment", expected="the name of a transform, or a map from one to its arguments", got=f"{item!r}")
        )
    ((name, arguments),) = item.items()
    if isinstance(arguments, Mapping):
        return [str(name), dict(arguments)]
    return [str(name), {} if arguments is None else {"": arguments}]


def _build(name: str, arguments: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """One of torchvision's transforms. Raises InputError if it does not exist or does not take the arguments."""
    from torchvision.transforms import v2

    kinds = {
        key: value
        for key, value in vars(v2).items()
        if isinstance(value, type) and issubclass(value, v2.Transform) and key not in _NOT_OF_ONE_IMAGE
    }
    if name not in kinds:
        raise InputError(unknown("augment", "transform", name, sorted(kinds)))
    first = [arguments[""]] if "" in arguments else []
    try:
        transform: Callable[[Tensor], Tensor] = kinds[name](*first, **{k: v for k, v in arguments.items() if k})
    except (TypeError, ValueError) as error:
        raise InputError(Fault("augment", f"{name} does not take {arguments.get('', arguments)!r} ({error})")) from None
    return transform
