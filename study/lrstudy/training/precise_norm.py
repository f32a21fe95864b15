"""BatchNorm's statistics for an evaluation, recomputed over the training part instead of gathered along the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from lrstudy.data.batches import Part
from lrstudy.settings import Recipe
from lrstudy.training.ghost_norm import chunks
from lrstudy.training.modes import ALL, set_modes
from lrstudy.training.randomness import generator
from lrstudy.training.state import State


def gathering_layers(state: State, recipe: Recipe = ALL) -> list[_BatchNorm]:
    """The BatchNorm layers that gather running statistics where a recipe trains; the network's mode stays as it is."""
    was_training = state.model.training
    set_modes(state, recipe)
    norms = [module for module in state.model.modules() if isinstance(module, _BatchNorm)]
    layers = [layer for layer in norms if layer.training and layer.running_mean is not None]
    state.model.train(was_training)
    return layers


@contextmanager
def precise_norm(state: State, part: Part, recipe: Recipe = ALL) -> Iterator[None]:
    """Within it, the running statistics of `state`'s BatchNorm layers are those of `part` under its present weights.

    Running statistics are averages over past updates, most over the last ten: after few updates, or large ones, they are not
    those of the present weights (Wu and Johnson 2021, arXiv 2105.07576). Here they are means over the whole part, without
    augmentation and dropout, of batches as large as in evaluation, in one fixed random order, as examples may lie sorted by
    class. A batch counts by its examples; torch's swa_utils.update_bn counts all alike. Afterwards training finds its own
    statistics again, and every generator is as it was.

    Args:
        state: The model.
        part: The training data.
        recipe: What the last epoch was trained with: statistics that it kept frozen are not recomputed.
    """
    layers = gathering_layers(state, recipe)
    buffers = [buffer for layer in layers for buffer in layer.buffers()]
    kept = [buffer.clone() for buffer in buffers]
    try:
        _gather(state, part, layers)
        yield
    finally:
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.copy_(before)


@torch.no_grad()
def _gather(state: State, part: Part, layers: list[_BatchNorm]) -> None:
    """Replace the running statistics of `layers`. The uncompiled model is called: layers change their modes one by one."""
    if not layers:
        return
    model, was_training, momenta = state.model, state.model.training, [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
    order = torch.randperm(len(part), generator=generator(0, "statistics"))
    ends = list(accumulate(chunks(len(part), max(2, state.numerics_spec.eval_batch))))
    bounds = list(pairwise([0, *ends]))
    for stop, (_, images, _) in zip(ends, part.batches(order, bounds), strict=True):
        for layer in layers:
            layer.momentum = len(images) / stop
        with state.autocast():
            model(part.normalised(images))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(was_training)
