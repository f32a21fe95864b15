"""The learning-rate range test (Smith, arXiv 1506.01186): the rate rises from update to update, and the loss tells how far it may.

The updates are those of `train_epoch`, at rising rates. Afterwards everything is as it was before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lrstudy.data.batches import Part
from lrstudy.settings import Settings
from lrstudy.training.epoch import UserFunctions, train_epoch
from lrstudy.training.lr_suggestions import RISE, Smoothing
from lrstudy.training.state import State


@dataclass(frozen=True)
class Ramp:
    """What a ramp met: the loss of every update it made, the last of which may not be finite, and accuracies.

    `accuracies` holds how many updates had been made, and the accuracy then.
    """

    losses: tuple[float, ...]
    accuracies: tuple[tuple[int, float], ...]


def ramp(
    state: State,
    passes: Sequence[Settings],
    part: Part,
    seed: int,
    epoch: int,
    user_functions: UserFunctions,
    accuracy: Callable[[], float] | None = None,
) -> Ramp:
    """Train at the rates of `passes`, until the loss is not finite or rises to four times its lowest value.

    A loss is that of the update's own batch before the update, so the rate of an update shows in the loss of the next one.
    Weights, buffers, optimizer and all global generators are afterwards as they were.

    Args:
        state: The model and optimizer to begin with.
        passes: One or more; each draws an order of its own, as an epoch does, and trains as much of it as it has updates.
        part: The training data.
        seed: The trial's seed.
        epoch: The number of the epoch that the first pass is in the place of.
        user_functions: The user's own augmentation and train step.
        accuracy: Measures the accuracy of the state, after every pass; None: nothing is measured.

    Returns:
        The losses and accuracies.
    """
    watch, accuracies = _Watch(), list[tuple[int, float]]()
    with _kept(state):
        for number, settings in enumerate(passes):
            train_epoch(state, settings, part, seed, epoch + number, user_functions, watch=watch)
            if accuracy is not None and math.isfinite(watch.losses[-1]):
                accuracies.append((len(watch.losses), accuracy()))
            if watch.has_ended:
                break
    return Ramp(tuple(watch.losses), tuple(accuracies))


class _Watch:
    """Gathers the losses of updates, and says when they have risen too far or are not finite."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.has_ended = False
        self._smoothing, self._lowest = Smoothing(), math.inf

    def __call__(self, of_batch: Tensor) -> bool:
        loss = float(of_batch)
        self.losses.append(loss)
        mean = self._smoothing.add(loss)
        self._lowest = min(self._lowest, mean)
        self.has_ended = not math.isfinite(loss) or mean > RISE * self._lowest
        return self.has_ended


@contextmanager
def _kept(state: State) -> Iterator[None]:
    """Within it the state may be trained; afterwards it is as it was, buffers included that are not stored with a state."""
    before, was_training = state.capture(), state.model.training
    buffers = {name: buffer.clone() for name, buffer in state.model.named_buffers()}
    try:
        yield
    finally:
        state.restore(before)
        with torch.no_grad():
            for name, buffer in state.model.named_buffers():
                buffer.copy_(buffers[name])
        state.network.train(was_training)
