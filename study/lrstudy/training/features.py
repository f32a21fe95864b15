"""Features: what enters a model's head. Where the head alone is trained they are computed once, and stand for the images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lrstudy.data.batches import Part
from lrstudy.data.reading import Bounds, Resident
from lrstudy.training.state import State

_TOLERANCE = 1e-4
"""How far the head's logits on features may be from the model's, relative to the largest: float32 sums in another order."""


@dataclass(frozen=True)
class Hosted:
    """Features in the host's memory, brought to a device batch by batch: for a GPU that has no room for all of them."""

    values: Tensor
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return tuple(self.values.shape)

    def batches(self, order: Tensor | None, bounds: Bounds) -> Iterator[Tensor]:
        """The features at order[start:stop] for every bound; in stored order if `order` is None."""
        for start, stop in bounds:
            values = self.values[start:stop] if order is None else self.values.index_select(0, order[start:stop])
            yield values.to(self.device)


class FeaturePart(Part):
    """A part of the data whose images are features, float32 (N, ...), ready for the head."""

    def normalised(self, images: Tensor) -> Tensor:
        """The features as they are, in a tensor of their own: a head may work in place."""
        return images.clone()


def feature_part(part: Part, features: Tensor, is_resident: bool) -> FeaturePart:
    """The examples of `part` with features (on the CPU) for images; a GPU keeps them in its memory if `is_resident`."""
    placed: Any = Resident(features.to(part.device)) if is_resident else Hosted(features, part.device)
    return FeaturePart(placed, part.labels, part.index, part.mean, part.scale)


@torch.no_grad()
def compute(state: State, part: Part) -> Tensor:
    """What enters the head for every example of `part`, in evaluation mode and without augmentation.

    Returns float32 (N, ...) on the CPU. The state stays as it is, and so do all generators.
    """
    size = state.numerics_spec.eval_batch
    bounds = [(start, min(start + size, len(part))) for start in range(0, len(part), size)]
    features = torch.empty(0)
    for (start, stop), (_, images, _) in zip(bounds, part.batches(None, bounds), strict=True):
        inputs = entering(state, part.normalised(images))
        if start == 0:
            features = torch.empty((len(part), *inputs.shape[1:]))
        features[start:stop] = inputs.float().cpu()
    return features


def elements(state: State, images: Tensor) -> int | None:
    """How many numbers enter the head for one image; None if the head's output on them is not the model's.

    Args:
        state: A model; it stays as it is.
        images: float32 (2, channels, height, width).
    """
    head = state.head
    if head is None or head is state.model:
        return None
    was_training = state.model.training
    try:
        with torch.no_grad():
            logits = state.model.eval()(images)
            inputs = entering(state, images)
            given = head(inputs)
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return None  # called more than once, or with more than a tensor
    finally:
        state.model.train(was_training)
    scale = logits.abs().max().clamp(min=1.0)
    is_alone = given.shape == logits.shape and bool((given - logits).abs().max() <= _TOLERANCE * scale)
    return inputs[0].numel() if is_alone else None


def to_bytes(train: Tensor, validation: Tensor) -> bytes:
    """The features of both parts as safetensors; equal features give equal bytes."""
    return save({"train": train.contiguous(), "validation": validation.contiguous()})


def from_bytes(data: bytes, counts: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The features of both parts, of so many examples. Raises ValueError for bytes that are none."""
    try:
        tensors = load(data)
        train, validation = tensors["train"], tensors["validation"]
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"these are no features: {error}") from error
    shapes_fit = (len(train), len(validation)) == counts and train.shape[1:] == validation.shape[1:]
    if not shapes_fit or train.dtype != torch.float32 or validation.dtype != torch.float32:
        raise ValueError(f"features of shape {tuple(train.shape)} do not fit {counts[0]} examples")
    return train, validation


def entering(state: State, images: Tensor) -> Tensor:
    """What the head is given for normalised images. Raises ValueError unless it is called once, with a tensor alone.

    The uncompiled model is called: compiled code would not notice the hook.
    """
    head = state.head
    seen: list[tuple[Any, ...]] = []
    if head is None:
        raise ValueError("the model's last section is not a module")

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(tuple(a.clone() if isinstance(a, Tensor) else a for a in arguments))  # the head may work in place

    hook, was_training = head.register_forward_pre_hook(note), state.model.training
    try:
        with state.autocast():
            state.model.eval()(images)
    finally:
        hook.remove()
        state.model.train(was_training)
    if len(seen) != 1 or len(seen[0]) != 1 or not isinstance(seen[0][0], Tensor):
        raise ValueError("the head is not called once, with a tensor alone")
    inputs: Tensor = seen[0][0]
    return inputs
