"""Cosine annealing with warm restarts: Loshchilov and Hutter 2017 (SGDR, arXiv 1608.03983)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, repeat
from operator import mul
from typing import Annotated

import numpy as np

from lrstudy.annotations import Rule
from lrstudy.policies.base import Ticks, phase
from lrstudy.policies.families.cycles import CyclicalPolicy
from lrstudy.policies.parameters import Count, Floor, PositiveDuration, Ratio, require
from lrstudy.policies.run import Run
from lrstudy.settings import FloatArray

SLOW_START = 0.01


def cosine_restarts(ticks: Ticks, t0: Fraction, t_mult: int) -> FloatArray:
    """(1 + cos(pi * T_cur / T_i)) / 2 at each update, in (0, 1]; cycle i lasts t0 * t_mult^i epochs.

    A cycle starts at the first update at or after its exact beginning. The value is computed as cos^2(x / 2), because
    1 + cos(x) cancels near the end of a cycle, and its few exact digits would not determine the nine that settings keep.
    """
    whole, position = phase(ticks, t0)  # in units of t0, every cycle begins at a whole number
    if t_mult == 1:
        done = position
    else:
        starts, lengths = _cycles(int(whole.max()), t_mult)
        cycle = np.searchsorted(starts, whole, side="right") - 1
        done = (whole - starts[cycle] + position) / lengths[cycle]
    return np.cos(np.pi / 2 * done) ** 2


def _cycles(last: int, t_mult: int) -> tuple[FloatArray, FloatArray]:
    """The beginning and length, in units of t0, of every cycle that begins up to `last`; whole numbers below 2^53."""
    starts, lengths = [0], [1]
    while starts[-1] + lengths[-1] <= last:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * t_mult)
    return np.array(starts, dtype=np.float64), np.array(lengths, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Sgdr(CyclicalPolicy):
    """eta_min + (lr - eta_min) * (1 + cos(pi * T_cur / T_i)) / 2, eta_min = `min_ratio` * lr (eq. 5).

    T_cur advances with every update and is 0 at the update after a restart (the authors' code still uses the floor
    there). A run that ends inside a cycle ends at a high rate: with `t_mult` 2, a `t0` of a third or a seventh of the
    budget makes two or three whole cycles.

    Attributes:
        t0: The length of the first cycle.
        t_mult: How many times as long as the one before each later cycle is; 2 is what fastai calls cycle length
            multiplication.
        min_ratio: The floor as a fraction of lr.
        slow_start: Whether the updates in the first twentieth of the first cycle use lr / 100, as in fastai 0.7. The
            cosine advances meanwhile.
    """

    name = "sgdr"

    t0: PositiveDuration = "100/7%"
    t_mult: Count = 2
    min_ratio: Floor = 0.0
    slow_start: bool = False

    def cycle_lengths(self, run: Run) -> Iterator[Fraction]:
        """t0, t0 * t_mult, t0 * t_mult^2, ..."""
        return accumulate(repeat(self.t_mult), mul, initial=self.epochs(self.t0, run))

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The rate at each update, the same in all sections."""
        ticks, t0 = self.ticks(epoch, run), self.epochs(self.t0, run)
        floor = self.min_ratio * self.lr
        rates = floor + (self.lr - floor) * cosine_restarts(ticks, t0, self.t_mult)
        if self.slow_start:
            rates[ticks.epochs < float(t0 / 20)] = SLOW_START * self.lr
        return rates


@dataclass(frozen=True, kw_only=True)
class SgdrDlr(Sgdr):
    """SGDR with differential rates: each section has a peak of its own, and all follow the same cosine.

    Attributes:
        section_ratios: The peak of each section as a fraction of `lr`, from the input to the head. The default, 0.01,
            0.1 and 1, is fastai 0.7's advice for fine-tuning on images unlike those of the pre-training: 1e-4, 1e-3, 1e-2.
        section_rates: The peaks themselves, instead of `section_ratios`; then `lr` has no effect.
    """

    name = "sgdr_dlr"

    section_ratios: tuple[Ratio, ...] | None = None
    section_rates: tuple[Annotated[float, Rule("a rate above 0", lambda value: value > 0)], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        both = self.section_ratios is not None and self.section_rates is not None
        require(
            not both, "section_rates", "either this or section_ratios (write section_ratios: null)", self.section_rates
        )

    def caveats(self) -> tuple[str, ...]:
        """That `lr` has no effect, if `section_rates` are given."""
        return () if self.section_rates is None else ("lr has no effect: section_rates are the peaks.",)

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The rate at each update and section. Raises InputError unless there is one peak per section."""
        name = "section_ratios" if self.section_rates is None else "section_rates"
        ratios = self.section_ratios or (0.01, 0.1, 1.0)
        if self.section_rates is not None:
            ratios = tuple(rate / self.lr for rate in self.section_rates)
        words = f"one {'ratio' if name == 'section_ratios' else 'rate'} per section of the model ({run.num_sections})"
        require(len(ratios) == run.num_sections, name, words, getattr(self, name))
        return np.outer(super().rates(epoch, run), ratios)
