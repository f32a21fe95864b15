"""Constant rate: the control of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrstudy.policies.base import RatePolicy
from lrstudy.policies.run import Run
from lrstudy.settings import FloatArray


@dataclass(frozen=True, kw_only=True)
class Constant(RatePolicy):
    """The peak rate for every update."""

    name = "constant"

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """`lr`, once per update."""
        return np.full(self.initial_updates(run), self.lr)
