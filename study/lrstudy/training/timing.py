"""Seconds of an update, an epoch's beginning and an evaluation, measured by training for a moment."""

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
"""How long a timed stretch of updates should take at least: a hundred times what the clock's edges cost."""
_REPEATS = 3


@dataclass(frozen=True)
class Timed:
    """Wall seconds of an update, of an epoch beyond its updates, and of one evaluation of the validation part."""

    update_s: float
    epoch_s: float
    evaluation_s: float


def time_updates(trainer: Trainer, batch_size: int, recipe: Recipe, stretch_s: float = STRETCH_S) -> Timed:
    """Time updates of a batch size on the trainer's data and device, after a warm-up; its state is trained on.

    Two stretches of different length tell what an update costs from what an epoch costs beyond its updates. At least one
    batch is trained on, however small the training part.
    """
    whole = replace(recipe, tail="drop")
    evaluations: list[float] = []

    def timed(updates: int) -> float:
        settings = Settings(np.full((updates, NUM_SECTIONS), 1e-6), np.array(0.9), batch_size, whole)
        trainer.make_ready(settings)
        trained = trainer.train(settings, 0, 0)
        evaluations.append(trained.eval_s)
        return trained.train_s

    update_s, epoch_s = _stretches(timed, max(1, trainer.workload.counts[0] // batch_size), stretch_s)
    return Timed(update_s, epoch_s, median(evaluations[1:] or evaluations))


def _stretches(timed: Callable[[int], float], most: int, stretch_s: float) -> tuple[float, float]:
    """Seconds per update, and per epoch beyond, from short and long stretches of at most `most` updates."""
    begin = time.monotonic()
    timed(min(2, most))  # warm-up: memory, kernels of these shapes
    once = max(timed(min(2, most)) / min(2, most), 1e-6)
    short = max(1, min(most // 3, math.ceil(stretch_s / 3 / once)))
    long = min(most, 3 * short)
    shorts, longs = [], []
    for _ in range(_REPEATS):
        shorts.append(timed(short))
        longs.append(timed(long))
        if time.monotonic() - begin > 10 * stretch_s:
            break
    if long == short:
        return min(longs) / long, 0.0
    update_s = (median(longs) - median(shorts)) / (long - short)
    beyond = median(shorts) - short * update_s
    return (update_s, beyond) if update_s > 0 and beyond >= 0 else (median(longs) / long, 0.0)
