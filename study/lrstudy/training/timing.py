"""Seconds per update, per epoch beyond its updates and per evaluation, measured by training for a moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from lrstudy.models.catalogue import NUM_SECTIONS
from lrstudy.settings import Recipe, Settings
from lrstudy.training.trainer import Trainer

STRETCH_S = 0.4
"""How long a timed stretch of updates should take at least: a hundred times what reading the clock at its ends costs."""
_NUM_REPEATS = 3


@dataclass(frozen=True)
class Timed:
    """Wall seconds of an update, of an epoch beyond its updates, and of one evaluation of the validation part."""

    update_s: float
    epoch_s: float
    evaluation_s: float


def time_updates(trainer: Trainer, batch_size: int, recipe: Recipe, stretch_s: float = STRETCH_S) -> Timed:
    """Time updates on the trainer's data and device, after a warm-up.

    Stretches of two lengths tell what an update costs from what an epoch costs beyond its updates.

    Args:
        trainer: Holds a state, which is trained on: afterwards it is of no use.
        batch_size: Examples per update; at least one batch is trained on, however small the training part.
        recipe: What the updates are trained with; its tail rule is ignored.
        stretch_s: How long the longer stretch should take at least, in seconds.

    Returns:
        Medians of three repeats; of more if they are short, of fewer if they are very long.
    """
    if recipe.input == "features":
        trainer.imagine_features()
    whole_batches = replace(recipe, tail="drop")
    evaluations_s: list[float] = []

    def train(num_updates: int) -> float:
        settings = Settings(np.full((num_updates, NUM_SECTIONS), 1e-6), np.array(0.9), batch_size, whole_batches)
        trainer.make_ready(settings)
        trained = trainer.train(settings, 0, 0)
        evaluations_s.append(trained.eval_s)
        return trained.train_s

    max_updates = max(1, trainer.workload.counts[0] // batch_size)
    update_s, epoch_s = _time_stretches(train, max_updates, stretch_s)
    return Timed(update_s, epoch_s, median(evaluations_s[1:] or evaluations_s))


def _time_stretches(train: Callable[[int], float], max_updates: int, stretch_s: float) -> tuple[float, float]:
    """Seconds per update and per epoch beyond its updates; `train` trains some updates and returns its seconds."""
    begin = time.monotonic()
    short, long = _lengths(train, max_updates, stretch_s)
    shorts_s: list[float] = []
    longs_s: list[float] = []
    # Little data makes stretches short, and the first ones are slow: they are repeated for as long as one should take.
    while len(longs_s) < _NUM_REPEATS or sum(shorts_s) + sum(longs_s) < stretch_s:
        shorts_s.append(train(short))
        longs_s.append(train(long))
        if time.monotonic() - begin > 10 * stretch_s:
            break
    if long == short:
        return min(longs_s) / long, 0.0
    update_s = (median(longs_s) - median(shorts_s)) / (long - short)
    beyond_s = median(shorts_s) - short * update_s
    return (update_s, beyond_s) if update_s > 0 and beyond_s >= 0 else (median(longs_s) / long, 0.0)


def _lengths(train: Callable[[int], float], max_updates: int, stretch_s: float) -> tuple[int, int]:
    """How many updates a short and a long stretch have: the long one three times as many, if the data suffices."""
    few = min(2, max_updates)
    train(few)  # warm-up: memory, kernels of these shapes
    roughly_s = max(train(few) / few, 1e-6)
    short = max(1, min(max_updates // 3, math.ceil(stretch_s / 3 / roughly_s)))
    return short, min(max_updates, 3 * short)
