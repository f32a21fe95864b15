"""Durations: `3` or `2.5` epochs, `30%` of the budget, `4000u` optimizer updates."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Annotated

from lrstudy.annotations import Rule


def _is_duration(value: int | float | str) -> bool:
    """Whether `in_epochs` can read a value; raises its ValueError otherwise."""
    in_epochs(value, 1, 1)
    return True


DURATION = Rule("a duration, like 4, '25%' or '2000u'", _is_duration)
Duration = Annotated[int | float | str, DURATION]
"""A duration as a study file writes it: epochs (a number), ``"30%"`` of the budget or ``"4000u"`` updates.

It may be written as a fraction, so that a third or a seventh of the budget is exact: ``"100/7%"``.
"""


@lru_cache(maxsize=4096, typed=True)  # True is no duration, though it equals 1
def in_epochs(duration: Duration, num_epochs: int, updates_per_epoch: int) -> Fraction:
    """Return `duration` in epochs, exactly.

    `num_epochs` is the budget that a percentage refers to; `updates_per_epoch` is the number of updates
    of an epoch at the run's initial batch size. Raises ValueError for what is no duration, a negative
    or infinite one included.
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
    """`duration` rounded to the nearest whole epoch, halves up: where an epoch-wise change takes place."""
    return int((in_epochs(duration, num_epochs, updates_per_epoch) + Fraction(1, 2)) // 1)


def count_passed(milestones: Iterable[Duration], epoch: int, num_epochs: int, updates_per_epoch: int) -> int:
    """How many of the `milestones` have acted when epoch `epoch` is trained.

    A milestone m acts before the first update of epoch m, after rounding to whole epochs: 0 acts at
    once, one at or beyond the budget never, one listed twice counts twice. Their order does not matter.
    """
    return sum(to_whole_epoch(m, num_epochs, updates_per_epoch) <= epoch for m in milestones)
