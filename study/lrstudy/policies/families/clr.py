"""Cyclical learning rates: Smith 2017 (arXiv 1506.01186), as in bckenstler/CLR and torch's CyclicLR.

By default cycles are measured on the epoch clock, so a cycle keeps its length in epochs when the batch changes. torch
counts updates, which is the same as long as the batch does not change. torch also replaces the momentum by default; here
the study's momentum stays unless `momentum_low` is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, repeat
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from lrstudy.annotations import Rule
from lrstudy.policies.base import RatePolicy, Ticks, completed_cycles, phase, require_absent
from lrstudy.policies.families.cycles import CyclicalPolicy
from lrstudy.policies.parameters import BelowOne, Floor, PositiveDuration, Ratio, require
from lrstudy.policies.run import Run
from lrstudy.settings import FloatArray

Mode = Literal["triangular", "triangular2", "exp_range", "modified_triangular2"]


def triangular(ticks: Ticks, up: Fraction, down: Fraction | None = None) -> tuple[NDArray[np.int64], FloatArray]:
    """The cycle, from 0, and the height in [0, 1] at each update.

    The height rises for `up` epochs and falls for `down`, by default as many.
    """
    down = up if down is None else down
    cycle, position = phase(ticks, up + down)
    if up == down:
        return cycle, 2 * np.minimum(position, 1 - position)
    top = float(up / (up + down))
    return cycle, np.where(position < top, position / top, (1 - position) / (1 - top))


@dataclass(frozen=True, kw_only=True)
class Clr(CyclicalPolicy):
    """base + (lr - base) * height, where base = `base_ratio` * lr and the height goes from 0 to 1 and back in a cycle.

    A run that is not a whole number of cycles ends at a high rate, and its accuracy shows that: make the budget a multiple
    of the cycle. A base ratio of 1 is the constant rate; torch also takes a base of 0.

    Attributes:
        mode: How cycles change. ``triangular``: not at all. ``triangular2``: each is half as high as the one before.
            ``exp_range``: the height at update k is multiplied by `gamma`^k. ``modified_triangular2`` (Chopade et al.):
            both bounds shrink from cycle to cycle.
        step_size: How long half a cycle takes.
        step_down: How long the second half takes, if not as long as the first.
        base_ratio: The base as a fraction of lr.
        gamma: The factor per update of ``exp_range``; 0.99994 by default.
        exp_bounds: With ``exp_range``, whether only the height declines (``amplitude``, the default, as in torch and
            bckenstler/CLR) or the base too (``both``, as the paper's text says).
        rho: With ``modified_triangular2``, the factor per cycle of the peak; 0.5 by default, and at least `sigma` unless
            that is 1.
        sigma: The same for the base. With a `sigma` of 1 the base stays, and `rho` is the factor of the height.
        momentum_low: The momentum at the peak, at most `momentum`, which is used at the base. By default the momentum
            does not change.
    """

    name = "clr"

    mode: Mode = "triangular2"
    step_size: PositiveDuration = "12.5%"
    step_down: PositiveDuration | None = None
    base_ratio: Floor = 0.1
    gamma: Ratio | None = None
    exp_bounds: Literal["amplitude", "both"] | None = None
    rho: Ratio | None = None
    sigma: Ratio | None = None
    momentum_low: BelowOne | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode != "exp_range":
            require_absent(self, ["gamma", "exp_bounds"], "mode exp_range")
        if self.mode != "modified_triangular2":
            require_absent(self, ["rho", "sigma"], "mode modified_triangular2")
        elif _default(self.sigma, 0.5) < 1:
            words = f"at least sigma ({_default(self.sigma, 0.5):g}), or the peak falls below the base"
            require(_default(self.rho, 0.5) >= _default(self.sigma, 0.5), "rho", words, self.rho)
        if self.momentum_low is not None:
            words = f"at most the momentum ({self.momentum:g})"
            require(self.momentum_low <= self.momentum, "momentum_low", words, self.momentum_low)

    def caveats(self) -> tuple[str, ...]:
        """A warning with ``modified_triangular2``, of which no definition has been published that could be checked."""
        if self.mode != "modified_triangular2":
            return ()
        rho, sigma = _default(self.rho, 0.5), _default(self.sigma, 0.5)
        how = f"the base shrinks by {sigma:g} and the peak by {rho:g}"
        how = how if sigma < 1 else f"the base stays and the height shrinks by {rho:g}"
        return (
            "UNVERIFIED: no published definition of the modified triangular2 of Chopade et al. was found; what ran is a proposal, "
            f"in which {how} from cycle to cycle.",
        )

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The rate at each update, from `base_ratio` * lr up to lr and back."""
        cycle, height = self._heights(epoch, run)
        base = self.base_ratio * self.lr
        if self.mode == "modified_triangular2":
            rho, sigma = _default(self.rho, 0.5) ** cycle, _default(self.sigma, 0.5) ** cycle
            amplitude = (self.lr - base) * rho if self.sigma == 1 else self.lr * rho - base * sigma
            return base * sigma + amplitude * height
        shrunk = self._shrinking(epoch, cycle, run)
        if self.exp_bounds == "both":
            return shrunk * (base + (self.lr - base) * height)
        return base + (self.lr - base) * height * shrunk

    def momenta(self, epoch: int, run: Run) -> float | FloatArray:
        """The momentum at each update, high where the rate is low."""
        if self.momentum_low is None:
            return self.momentum
        cycle, height = self._heights(epoch, run)
        return self.momentum - (self.momentum - self.momentum_low) * height * self._shrinking(epoch, cycle, run)

    def cycle_lengths(self, run: Run) -> Iterator[Fraction]:
        """The two halves of a cycle, again and again."""
        down = self.step_size if self.step_down is None else self.step_down
        return repeat(self.epochs(self.step_size, run) + self.epochs(down, run))

    def _heights(self, epoch: int, run: Run) -> tuple[NDArray[np.int64], FloatArray]:
        down = None if self.step_down is None else self.epochs(self.step_down, run)
        return triangular(self.ticks(epoch, run), self.epochs(self.step_size, run), down)

    def _shrinking(self, epoch: int, cycle: NDArray[np.int64], run: Run) -> FloatArray:
        """The factor of the height at each update, which depends on the cycle or on the update."""
        if self.mode == "triangular2":
            return np.power(0.5, cycle, dtype=np.float64)
        if self.mode == "exp_range":
            ticks = self.ticks(epoch, run)
            updates = np.arange(ticks.first, ticks.first + ticks.count) * float(self.in_updates(ticks, run))
            falling: FloatArray = np.asarray(_default(self.gamma, 0.99994) ** updates, dtype=np.float64)
            return falling
        return np.ones(len(cycle))


@dataclass(frozen=True, kw_only=True)
class ClrStaged(RatePolicy):
    """Cycles whose bounds fall in stages: Smith's table 2, the form that reached 81.4% on CIFAR-10.

    Stage i cycles between `base_ratio` * peak and peak = `stage_ratios`[i] * lr. Cycles are counted anew in each stage.

    Attributes:
        mode: ``triangular``, or ``triangular2``, in which each cycle of a stage is half as high as the one before.
        base_ratio: The base as a fraction of the stage's peak.
        stage_ratios: The peak of each stage as a fraction of lr.
        step_sizes: How long half a cycle takes in each stage.
        boundaries: The beginning of every stage but the first. A stage begins at the first update that is not before it.
    """

    name = "clr_staged"

    mode: Literal["triangular", "triangular2"] = "triangular2"
    base_ratio: Floor = 0.2
    stage_ratios: Annotated[tuple[Ratio, ...], Rule("a list of shares of lr, one per stage", bool)] = (1.0, 0.1, 0.01)
    step_sizes: tuple[PositiveDuration, ...] = ("8%", "4%", "2%")
    boundaries: tuple[PositiveDuration, ...] = ("64%", "88%")

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = len(self.stage_ratios)
        require(len(self.step_sizes) == stages, "step_sizes", f"one half cycle per stage ({stages})", self.step_sizes)
        words = f"the beginning of every stage but the first ({stages - 1})"
        require(len(self.boundaries) == stages - 1, "boundaries", words, self.boundaries)

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The rate at each update."""
        updates = self.initial_updates(run)
        starts = self._starts(run)
        stage = np.searchsorted(
            np.array(starts[1:], dtype=float), np.arange(epoch * updates, (epoch + 1) * updates), "right"
        )
        rates = np.empty(updates)
        for number in np.unique(stage):
            peak, inside = self.lr * self.stage_ratios[number], stage == number
            first = epoch * updates + int(np.flatnonzero(inside)[0]) - int(starts[number])
            ticks = Ticks(first, int(inside.sum()), updates)
            cycle, height = triangular(ticks, self.epochs(self.step_sizes[number], run))
            if self.mode == "triangular2":
                height = np.asarray(height * np.power(0.5, cycle, dtype=np.float64), dtype=np.float64)
            rates[inside] = peak * (self.base_ratio + (1 - self.base_ratio) * height)
        return rates

    def cycle_ends(self, run: Run) -> tuple[int, ...]:
        """After how many epochs each cycle ends that its stage completes."""
        updates = self.initial_updates(run)
        total = run.num_epochs * updates
        edges = [*(min(start, total) for start in self._starts(run)), total]
        clock = [updates * epoch for epoch in range(1, run.num_epochs + 1)]
        ends: list[int] = []
        for (start, stop), step_size in zip(pairwise(edges), self.step_sizes, strict=True):
            period = 2 * self.epochs(step_size, run) * updates
            num_cycles = int((stop - start) // period)
            ends += completed_cycles([start + period, *[period] * (num_cycles - 1)] if num_cycles else [], clock)
        return tuple(dict.fromkeys(ends))

    def _starts(self, run: Run) -> list[int]:
        """The update at which each stage begins. Raises InputError unless they rise."""
        updates = self.initial_updates(run)
        starts = [0, *(int(-(-self.epochs(boundary, run) * updates // 1)) for boundary in self.boundaries)]
        require(starts == sorted(starts), "boundaries", "rising durations", self.boundaries)
        return starts


def _default(value: float | None, default: float) -> float:
    return default if value is None else value
