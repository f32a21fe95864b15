"""Compiling a network before its epochs are timed: one forward and backward pass for every batch size."""

from __future__ import annotations

import torch

from lrstudy.data.batches import Part
from lrstudy.settings import Settings
from lrstudy.training.epoch import UserFunctions, batch_bounds, losses
from lrstudy.training.modes import training
from lrstudy.training.state import State


def compile_for(state: State, settings: Settings, part: Part, user_functions: UserFunctions) -> None:
    """Let torch.compile compile the network for every batch size of an epoch.

    Args:
        state: The state whose network is to be compiled; its parameters, buffers and optimizer stay as they were.
        settings: The settings of the epoch to come.
        part: The training data; the first examples fill the batches.
        user_functions: The user's train step, if the study has one.
    """
    recipe, device = settings.recipe, part.device
    bounds = batch_bounds(len(part), settings.batch_size, settings.num_updates, recipe.tail)
    sizes = sorted({stop - start for start, stop in bounds})
    saved = {name: buffer.clone() for name, buffer in state.model.named_buffers()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), training(state, recipe):
        for _, images, labels in part.batches(None, [(0, size) for size in sizes]):
            for loss, _ in losses(state, part, images, labels, recipe, user_functions):
                state.backward(loss)
    state.model.zero_grad(set_to_none=True)
    for name, buffer in state.model.named_buffers():
        buffer.copy_(saved[name])
