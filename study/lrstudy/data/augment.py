"""Augmentation example by example: a list of torchvision transforms, or a user's function.

Every example of every epoch has a seed of its own, so what happens to it depends neither on the batch it lies in nor on
who trains. That costs a call per example: some tenths of a millisecond, where the batched `crop_flip` costs microseconds.
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
"""A user's augmentation: from one image, uint8 (C, H, W), and a generator to draw from, to one alike."""

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
"""Transforms that take others, several images or boxes, or give something else than an image of bytes."""


@dataclass(frozen=True)
class PerExample:
    """One epoch's augmentation: `transform` with the seed of each example, int64 (N,)."""

    transform: Transform
    seeds: Tensor
    name: str

    def apply(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Augmented uint8 images of a batch; `chosen` are its positions in the part.

        Raises InputError for an answer that is no image of the same kind.
        """
        seeds = self.seeds[chosen.to(self.seeds.device)].tolist()
        done = []
        for image, seed in zip(images, seeds, strict=True):
            answer = self.transform(image, torch.Generator().manual_seed(seed))
            if not isinstance(answer, Tensor) or answer.dtype != torch.uint8 or answer.shape != image.shape:
                got = f"{answer.dtype} {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
                raise InputError(
                    Fault(
                        "augment",
                        expected=f"{self.name} to give an image like the one it got, torch.uint8 {tuple(image.shape)}",
                        got=got,
                    )
                )
            done.append(answer)
        return torch.stack(done)

    @staticmethod
    def draw(transform: Transform, num_examples: int, generator: torch.Generator, name: str) -> PerExample:
        """Seeds for all examples of an epoch."""
        return PerExample(transform, torch.randint(0, 2**62, (num_examples,), generator=generator), name)


def canonical(transforms: list[Any]) -> str:
    """A study file's list of transforms as canonical JSON, ``[[name, arguments], ...]``.

    An item is a name, or a map from a name to its arguments: a map, or the first argument alone. Raises InputError for
    transforms that torchvision does not have or that do not take their arguments.
    """
    items = [_item(item) for item in transforms]
    text = canonical_json(items).decode()
    compose(text)
    return text


def compose(text: str) -> Transform:
    """The transform that canonical JSON describes; the random numbers it draws come from the generator's seed."""
    steps = [_made(name, arguments) for name, arguments in json.loads(text)]

    def transform(image: Tensor, generator: torch.Generator) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator.initial_seed())
            for step in steps:
                image = step(image)
        return image

    return transform


def _item(item: object) -> list[object]:
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


def _made(name: str, arguments: dict[str, Any]) -> Callable[[Tensor], Tensor]:
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
        made: Callable[[Tensor], Tensor] = kinds[name](*first, **{k: v for k, v in arguments.items() if k})
    except (TypeError, ValueError) as error:
        raise InputError(Fault("augment", f"{name} does not take {arguments.get('', arguments)!r} ({error})")) from None
    return made
