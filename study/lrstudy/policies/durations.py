"""Durations: `3` or `2.5` epochs, `30%` of the budget, or `4000u` optimizer updates."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Annotated

from lrstudy.annotations import Rule


def _is_duration(value: int | float | str) -> bool:
    """True if `in_epochs` can read the value; raises its ValueError otherwise."""
    in_epochs(value, 1, 1)
    return True


DURATION = Rule("a duration, like 4, '25%' or '2000u'", _is_duration)
Duration = Annotated[int | float | str, DURATION]
"""A duration as a study file writes it: epochs (a number), ``"30%"`` of the budget or ``"4000u"`` updates.

The percentage may be a fraction, ``"100/7%"``, so that a third or a seventh of the budget is exact.
"""


@lru_cache(maxsize=4096, typed=True)  # typed: True equals 1, but is no duration
def in_epochs(duration: Duration, num_epochs: int, updates_per_epoch: int) -> Fraction:
    """Return `duration` in epochs, exactly.

    `num_epochs` is the budget that a percentage refers to, `updates_per_epoch` the number of updates per epoch at the
    run's initial batch size. Raises ValueError if `duration` cannot be read, or is negative or infinite.
    """
    text = str(duration).strip()
    try:
        if text.endswith("%"):
            epochs = Fraction(text[:-1]) * num_epochs / 100
        elif text.endswith("u"):
            epochs = Fraction(int(text[:-1]), updates_per_epoch)
        else:
            epochs = Fraction(text)
        if epochs < 0:
            raise ValueError("negative")
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"expected a duration: epochs (3), a fraction of the budget ('30%') or updates ('4000u'); got {duration!r}"
        ) from None
    return epochs


@lru_cache(maxsize=4096, typed=True)
def to_whole_epoch(duration: Duration, num_epochs: int, updates_per_epoch: int) -> int:
    """`duration` rounded to the nearest whole epoch, halves up. A stepwise change takes effect before that epoch."""
    return int((in_epochs(duration, num_epochs, updates_per_epoch) + Fraction(1, 2)) // 1)


def count_passed(milestones: Iterable[Duration], epoch: int, num_epochs: int, updates_per_epoch: int) -> int:
    """How many of the `milestones` have taken effect when epoch `epoch` is trained.

    Milestones are rounded to whole epochs, and milestone m takes effect before the first update of epoch m. So 0 takes
    effect at once, one at or beyond the budget never, and one that is listed twice counts twice. Order does not matter.

    Args:
        milestones: The milestones.
        epoch: The epoch, counted from 0.
        num_epochs: The budget, which percentages refer to.
        updates_per_epoch: Updates per epoch at the run's initial batch size.
    """
    return sum(to_whole_epoch(m, num_epochs, updates_per_epoch) <= epoch for m in milestones)
