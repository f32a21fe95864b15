"""Baselines that anneal once over the budget: cosine, linear, warm-up-stable-decay and one cycle."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from lrstudy.annotations import Rule
from lrstudy.policies.base import RatePolicy, require_absent
from lrstudy.policies.durations import Duration, in_epochs
from lrstudy.policies.parameters import BelowOne, Floor, PositiveDuration, Ratio, require
from lrstudy.policies.run import Run
from lrstudy.settings import FloatArray

Warmup = Annotated[Duration, Rule("a duration, like 5 or '5%'", lambda value: True)]


@dataclass(frozen=True, kw_only=True)
class AnnealingPolicy(RatePolicy):
    """A rate that may warm up, and is annealed over the rest of the budget.

    At update k of a warm-up of w updates the rate is lr * (k + 1) / w (Goyal et al. 2017), or, if `warmup_start` is
    given, lr * (start + (1 - start) * k / w) as in torch's LinearLR. Annealing begins at update w with the full rate.

    Attributes:
        warmup: How long the rate warms up; shorter than the budget.
        warmup_start: The first rate of the warm-up as a fraction of lr; only with a warm-up.
    """

    horizon_free = False

    warmup: Warmup = 0
    warmup_start: Ratio | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if in_epochs(self.warmup, 1, 1) == 0:
            require_absent(self, ["warmup_start"], "a warmup")

    @abstractmethod
    def factor(self, done: FloatArray, length: float) -> FloatArray:
        """The fraction of lr at updates `done`, counted from the end of the warm-up, of `length` updates in all."""

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The rate at each update."""
        updates = self.initial_updates(run)
        total, warmup = updates * run.num_epochs, float(self.epochs(self.warmup, run) * updates)
        require(warmup < total, "warmup", f"a duration below the budget of {run.num_epochs} epochs", self.warmup)
        k = np.arange(epoch * updates, (epoch + 1) * updates, dtype=float)
        rates = self.factor(np.maximum(k - warmup, 0.0), total - warmup)
        if warmup:
            start = self.warmup_start
            rising = np.minimum((k + 1) / warmup, 1.0) if start is None else start + (1 - start) * k / warmup
            rates = np.where(k < warmup, rising, rates)
        return self.lr * rates


@dataclass(frozen=True, kw_only=True)
class Cosine(AnnealingPolicy):
    """Half a cosine from lr to `min_ratio` * lr at the end of the budget.

    torch has it as CosineAnnealingLR; it is also a single cycle of SGDR.
    """

    name = "cosine"

    min_ratio: Floor = 0.0

    def factor(self, done: FloatArray, length: float) -> FloatArray:
        """cos^2, scaled to lie between 1 and the floor. This form has no cancellation near the end."""
        falling: FloatArray = self.min_ratio + (1 - self.min_ratio) * np.cos(np.pi / 2 * (done / length)) ** 2
        return falling


@dataclass(frozen=True, kw_only=True)
class Linear(AnnealingPolicy):
    """A line from lr to `min_ratio` * lr at the end of the budget.

    It is budgeted training's schedule (Li et al. 2020, arXiv 1905.04753).
    """

    name = "linear"

    min_ratio: Floor = 0.0

    def factor(self, done: FloatArray, length: float) -> FloatArray:
        """1 - done / length, scaled to lie between 1 and the floor."""
        return 1 - (1 - self.min_ratio) * (done / length)


@dataclass(frozen=True, kw_only=True)
class Wsd(AnnealingPolicy):
    """Warm-up, stable, decay: a constant rate that falls to `min_ratio` * lr over the last part of the budget.

    Hu et al. 2024 (arXiv 2404.06395) and Haegele et al. 2024 (arXiv 2405.18392), whose code rounds the cooldown down
    to whole updates: at its update j of n the rate is lr * (1 - u) or lr * (1 - sqrt(u)), u = j / n, scaled to lie
    between lr and the floor. Runs with other budgets, shapes or floors are the same training until the earliest cooldown
    begins.

    Attributes:
        cooldown: How long the rate falls, at the end of the budget.
        shape: ``linear`` for 1 - u, ``1-sqrt`` for 1 - sqrt(u).
        min_ratio: The floor as a fraction of lr, which the update after the last would reach.
    """

    name = "wsd"

    cooldown: PositiveDuration = "20%"
    shape: Literal["linear", "1-sqrt"] = "linear"
    min_ratio: Floor = 0.0

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The rate at each update. Raises InputError if warm-up and cooldown together exceed the budget."""
        both = self.epochs(self.warmup, run) + self.epochs(self.cooldown, run)
        words = f"warmup and cooldown of {run.num_epochs} epochs at most, the budget"
        require(both <= run.num_epochs, "cooldown", words, self.cooldown)
        updates = self.initial_updates(run)
        length = int(self.epochs(self.cooldown, run) * updates)
        begin = updates * run.num_epochs - length
        done = np.arange(epoch * updates, (epoch + 1) * updates) - begin
        u = np.maximum(done, 0) / max(1, length)
        falling = u if self.shape == "linear" else np.sqrt(u)
        return super().rates(epoch, run) * (1 - (1 - self.min_ratio) * falling)

    def factor(self, done: FloatArray, length: float) -> FloatArray:
        """1: the stable part, which `rates` multiplies by the cooldown."""
        return np.ones(len(done))


@dataclass(frozen=True, kw_only=True)
class OneCycle(RatePolicy):
    """One cycle up to lr and down again, the momentum the other way round (Smith and Topin 2018, arXiv 1708.07120).

    As in torch's OneCycleLR, the rate rises from `initial_ratio` * lr to lr at update `peak_at` * total - 1, and falls to
    `final_ratio` * lr at the last update. torch also changes the momentum by default, from 0.95 to 0.85; here it stays
    unless `momentum_low` is given.

    Attributes:
        peak_at: Where the peak is, as a fraction of the budget's updates. 0: at the first update, so that the rate only
            falls; 1: at the last, so that it only rises.
        initial_ratio: The first rate as a fraction of lr.
        final_ratio: The last rate as a fraction of lr.
        anneal: The form of each phase: half a cosine or a line.
        three_phase: Whether the rate first falls back to the initial one, in as many updates as it rose, and then to
            the final one. It needs `peak_at` of at most 0.5.
        momentum_low: The momentum at the peak, at most `momentum`, which is used at both ends.
    """

    name = "one_cycle"
    horizon_free = False

    peak_at: Floor = 0.3
    initial_ratio: Ratio = 1 / 25
    final_ratio: Floor = 1 / 250_000
    anneal: Literal["cos", "linear"] = "cos"
    three_phase: bool = False
    momentum_low: BelowOne | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.three_phase:
            require(self.peak_at <= 0.5, "peak_at", "at most 0.5 with three_phase", self.peak_at)
        if self.momentum_low is not None:
            words = f"at most the momentum ({self.momentum:g})"
            require(self.momentum_low <= self.momentum, "momentum_low", words, self.momentum_low)

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The rate at each update."""
        levels = [self.initial_ratio, 1.0, *([self.initial_ratio] if self.three_phase else []), self.final_ratio]
        return self.lr * self._between(levels, epoch, run)

    def momenta(self, epoch: int, run: Run) -> float | FloatArray:
        """The momentum at each update."""
        if self.momentum_low is None:
            return self.momentum
        levels = [self.momentum, self.momentum_low, self.momentum, *([self.momentum] if self.three_phase else [])]
        return self._between(levels, epoch, run)

    def _between(self, levels: list[float], epoch: int, run: Run) -> FloatArray:
        """A value that has the given `levels` at the ends of the phases and is annealed between them."""
        updates = self.initial_updates(run)
        total = updates * run.num_epochs
        ends = [0.0, self.peak_at * total - 1, *([2 * self.peak_at * total - 2] if self.three_phase else []), total - 1]
        ends = [max(end, 0.0) for end in ends]  # in a run of a few updates there may be no room to rise
        k = np.arange(epoch * updates, (epoch + 1) * updates, dtype=float)
        number = np.clip(np.searchsorted(ends[1:], k, side="left"), 0, len(ends) - 2)
        begin, end = np.array(ends)[number], np.array(ends)[number + 1]
        low, high = np.array(levels)[number], np.array(levels)[number + 1]
        done = np.where(end > begin, (k - begin) / np.maximum(end - begin, 1e-12), 1.0)
        part = done if self.anneal == "linear" else np.sin(np.pi / 2 * done) ** 2
        between: FloatArray = low + (high - low) * part
        return between
