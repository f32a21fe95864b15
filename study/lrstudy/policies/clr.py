"""Cyclical learning rates: Smith 2017 (arXiv 1506.01186), as in bckenstler/CLR and torch's CyclicLR.

Cycles are measured on the epoch clock, so one keeps its length in epochs when a batch changes; torch counts
updates, which is the same while the batch stays. torch also replaces the momentum unless told not to; here
the study's stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from lrstudy.policies.base import PositiveDuration, RatePolicy, Ratio, Run, phase
from lrstudy.settings import FloatArray


def triangular(epoch: int, num_updates: int, step_size: Fraction) -> FloatArray:
    """Height in [0, 1] at each update of an epoch: up in `step_size` epochs, down in as many, and again."""
    _, share = phase(epoch, num_updates, 2 * step_size)
    height: FloatArray = 2 * np.minimum(share, 1 - share)
    return height


def triangular2(epoch: int, num_updates: int, step_size: Fraction) -> FloatArray:
    """As `triangular`, each cycle half as high as the one before."""
    cycle, _ = phase(epoch, num_updates, 2 * step_size)
    return triangular(epoch, num_updates, step_size) * 0.5**cycle


@dataclass(frozen=True, kw_only=True)
class Clr(RatePolicy):
    """base + (lr - base) * height, where base = `base_ratio` * lr and half a cycle takes `step_size`.

    A run that is not a whole number of cycles ends at a high rate, which its accuracy will show: make the
    budget a multiple of 2 * `step_size`. A base ratio of 1 is the constant rate.
    """

    name = "clr"

    mode: Literal["triangular", "triangular2"] = "triangular2"
    step_size: PositiveDuration = "12.5%"
    base_ratio: Ratio = 0.1

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The rate at each update, from `base_ratio` * lr up to lr and back."""
        curve = {"triangular": triangular, "triangular2": triangular2}[self.mode]
        height = curve(epoch, self.initial_updates(run), self.epochs(self.step_size, run))
        base = self.base_ratio * self.lr
        return base + (self.lr - base) * height
