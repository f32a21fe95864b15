"""Ghost BatchNorm: statistics over a fixed number of examples, whatever the batch size (Hoffer et al. 2017, arXiv 1705.08741)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lrstudy.policies.run import count_updates


def chunks(num_examples: int, size: int) -> list[int]:
    """The sizes of a batch's pieces: `size` each, then the remainder; a single remaining example joins the last full piece."""
    num_pieces = count_updates(num_examples, size)
    return [size] * (num_pieces - 1) + [num_examples - size * (num_pieces - 1)]


@contextmanager
def ghost_norm(model: nn.Module, norm_batch: int | None) -> Iterator[None]:
    """Within it, every BatchNorm of `model` in training mode normalises each piece of `norm_batch` examples on its own.

    Running statistics are updated once for each piece, so that neither the noise of normalisation nor the number of
    these updates in an epoch depends on the batch size. With None the whole batch is one piece. Modules and state dict
    stay the same.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)] if norm_batch is not None else []
    for layer in layers:
        layer.forward = _in_pieces(layer, norm_batch or 0)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _in_pieces(layer: _BatchNorm, size: int) -> Callable[[Tensor], Tensor]:
    normalise = layer.forward

    def forward(values: Tensor) -> Tensor:
        if not layer.training or len(values) <= size:
            return normalise(values)
        return torch.cat([normalise(piece) for piece in torch.split(values, chunks(len(values), size))])

    return forward
