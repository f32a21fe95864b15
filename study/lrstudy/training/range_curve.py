"""The curve of a range test, as it is stored, and the rate that it suggests; without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np

from lrstudy.config.range_question import Suggestion
from lrstudy.errors import Fault, InputError
from lrstudy.settings import FloatArray
from lrstudy.training.lr_suggestions import BY_LOSS, Bounds, bounds, smoothed

SUGGESTIONS: tuple[Suggestion, ...] = get_args(Suggestion)
_SMITH = "smith"
_TRIMMED = 10
"""The first of so many parts of the planned updates is left out (fastai's `num_it // 10`)."""
_TRIMMED_END = 5
"""So many points at the end are left out (fastai)."""
_FEWEST = 3
_DIGITS = 2
"""Significant digits of a suggested rate: more would mean nothing, and would keep studies from sharing what they train."""


@dataclass(frozen=True)
class Curve:
    """What a range test measured.

    Attributes:
        planned: How many updates it was to have.
        rates: The rate of every update that it had; a test that diverges or whose loss rises too far ends early.
        losses: The loss of every update, on its own batch and before it; finite, so that after a divergence there is one
            less than there are rates.
        measured_after: After how many updates the accuracy was measured; empty with the exponential form.
        accuracies: The accuracy on the validation part then, in [0, 1].
        chance: The accuracy that can be had without learning.
        num_validation: The size of the validation part.
    """

    planned: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    measured_after: tuple[int, ...] = ()
    accuracies: tuple[float, ...] = ()
    chance: float = 0.0
    num_validation: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON values, from which `of_json` makes the curve again."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @staticmethod
    def of_json(values: Mapping[str, Any]) -> Curve:
        """The curve of `to_json`. Raises ValueError, KeyError or TypeError for anything else."""
        losses, accuracies = _numbers(values["losses"]), _numbers(values["accuracies"])
        rates, after = _numbers(values["rates"]), tuple(int(count) for count in values["measured_after"])
        is_sound = len(losses) <= len(rates) <= len(losses) + 1 and len(after) == len(accuracies) and all(
            0 < count <= len(rates) for count in after
        )  # fmt: skip
        if not is_sound:
            raise ValueError("the curve of a range test has as many losses and accuracies as rates")
        chance, num_validation = float(values["chance"]), int(values["num_validation"])
        return Curve(int(values["planned"]), rates, losses, after, accuracies, chance, num_validation)

    @property
    def diverged(self) -> bool:
        """Whether it ended because a loss was not finite."""
        return len(self.losses) < len(self.rates)

    @property
    def ended_early(self) -> bool:
        """Whether it ended before its last update: it diverged, or the loss rose too far."""
        return len(self.losses) < self.planned

    @cached_property
    def smoothed(self) -> FloatArray:
        """The smoothed losses."""
        return smoothed(self.losses)

    @property
    def measured_rates(self) -> FloatArray:
        """The rates after whose updates the accuracy was measured."""
        return np.array([self.rates[count - 1] for count in self.measured_after])

    @cached_property
    def bounds(self) -> Bounds | None:
        """Smith's bounds; None if the accuracy was not measured, or never rose above chance."""
        if not self.accuracies:
            return None
        return bounds(self.measured_rates, np.array(self.accuracies), self.chance, self.num_validation)

    def rate(self, suggestion: Suggestion, where: str) -> float:
        """The suggested rate, rounded to two significant digits.

        Raises InputError with a fault at `where` if the curve suggests none: it diverged at once, or never falls.
        """
        found = self._by_accuracy(where) if suggestion == _SMITH else self._by_loss(suggestion, where)
        return float(f"{found:.{_DIGITS - 1}e}")

    def suggestions(self) -> dict[Suggestion, float]:
        """All rates that it suggests, by name; those that it cannot give are left out."""
        found: dict[Suggestion, float] = {}
        for name in SUGGESTIONS:
            try:
                found[name] = self.rate(name, "")
            except InputError:
                continue
        return found

    def _by_accuracy(self, where: str) -> float:
        self._require_begun(where)
        if self.bounds is None:
            problem = (
                f"the range test finds no rate by accuracy: on the validation part it stayed at chance ({self.chance:.3g}) "
                f"up to a rate of {self.rates[-1]:.2g}"
            )
            raise InputError(Fault(where, problem, advice=_WIDER))
        return self.bounds.high

    def _by_loss(self, suggestion: Suggestion, where: str) -> float:
        self._require_begun(where)
        kept = slice(self.planned // _TRIMMED, max(0, len(self.losses) - _TRIMMED_END))
        rates, losses = np.array(self.rates)[kept], self.smoothed[kept]
        if len(losses) < _FEWEST:
            how = (
                "diverged"
                if self.diverged
                else "ended, its loss four times the lowest,"
                if self.ended_early
                else "ended"
            )
            problem = (
                f"the range test {how} after {len(self.losses)} of {self.planned} updates, at a rate of {self.rates[-1]:.2g}: "
                f"too few to suggest a rate, as the first {kept.start} and the last {_TRIMMED_END} do not count"
            )
            advice = "Begin lower (low) or end lower (high), or give it more updates."
            raise InputError(Fault(where, problem, advice=advice))
        if not math.isfinite(losses.sum()) or not int(np.argmin(losses)):
            problem = (
                f"the range test finds no rate: between {rates[0]:.2g} and {rates[-1]:.2g} the loss is never lower than at "
                "the first of these"
            )
            raise InputError(Fault(where, problem, advice=_WIDER))
        return BY_LOSS[suggestion](rates, losses)

    def _require_begun(self, where: str) -> None:
        """Raise InputError if the test diverged at its first rate."""
        if not self.ended_early or len(self.losses) + self.diverged > 2:
            return
        advice = "Begin lower (low)."
        if self.diverged:
            cause = "after its first update the loss is not finite"
        else:
            cause = f"its first update raised the loss from {self.losses[0]:.3g} to {self.losses[1]:.3g}"
        if not self.losses:
            cause = "the loss of the first batch is not finite, before any update"
            advice = (
                "No rate can help: look at the data, its normalisation, the initial weights, and a train_step or precision of "
                "your own choice."
            )
        problem = f"the range test diverged at its first rate, {self.rates[0]:.2g}: {cause}"
        raise InputError(Fault(where, problem, advice=advice))


_WIDER = "Let the test reach from a lower rate (low) to a higher one (high), or give it more updates."


def _numbers(values: Any) -> tuple[float, ...]:
    """A list of finite numbers. Raises ValueError or TypeError for anything else."""
    numbers = tuple(float(value) for value in values)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("the curve of a range test has numbers that are not finite")
    return numbers
