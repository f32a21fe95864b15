"""Compiling a network before it is timed: one forward and backward pass for every shape of batch."""

from __future__ import annotations

import torch

from lrstudy.data.batches import Part
from lrstudy.settings import Settings
from lrstudy.training.epoch import Own, batch_bounds, losses
from lrstudy.training.state import State


def compile_for(state: State, settings: Settings, part: Part, own: Own) -> None:
    """Make torch.compile meet the batches of an epoch; leaves the state and all generators as they were."""
    recipe, device = settings.recipe, part.device
    bounds = batch_bounds(len(part), settings.batch_size, settings.num_updates, recipe.tail)
    sizes = sorted({stop - start for start, stop in bounds})
    before = {name: buffer.clone() for name, buffer in state.model.named_buffers()}
    state.network.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for _, images, labels in part.batches(None, [(0, size) for size in sizes]):
            for loss, _ in losses(state, part, images, labels, recipe, own):
                state.backward(loss)
    state.model.zero_grad(set_to_none=True)
    for name, buffer in state.model.named_buffers():
        buffer.copy_(before[name])
