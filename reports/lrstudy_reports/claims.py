"""Claims held against what a study measured: verdicts, and how many seeds would decide. Pure functions of numbers.

Everything is judged on a scale on which "no difference" is 0: values and differences of a metric as they are, ratios of
costs by their logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lrstudy_reports.statistics import FEWEST, Interval, equivalence_p, smallest_detectable

ClaimVerdict = Literal["supported", "contradicted", "undecided", "not testable"]
MOST_SEEDS = 1000
"""No more seeds than these are said to decide a claim: a difference that needs them is too small to be worth it."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim as the study lock has it; docs/study-file.md says what the fields mean.

    `expected` is a fraction, or for `cost_ratio` the cost of `against` over that of `arm`. `side` is 1 if a difference is
    claimed to be above 0, or a ratio above 1, and -1 if below. `bound` says whether `expected` is the least or the most.
    """

    text: str
    source: str = ""
    claim: str | None = None
    printed: str | None = None
    note: str | None = None
    measure: str | None = None
    not_testable: str | None = None
    arm: str | None = None
    against: str | None = None
    metric: str | None = None
    label: str | None = None
    margin: float | None = None
    expected: float | None = None
    side: int | None = None
    bound: str | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it is about: one, or two."""
        return tuple(arm for arm in (self.arm, self.against) if arm is not None)

    @property
    def on_scale(self) -> float | None:
        """`expected` on the scale on which claims are judged."""
        if self.expected is None or self.measure != "cost_ratio":
            return self.expected
        return math.log(self.expected)


_NEEDED = {
    None: ("text", "not_testable"),
    "value": ("text", "arm", "metric", "expected"),
    "equal": ("text", "arm", "against", "metric", "margin"),
    "difference": ("text", "arm", "against", "metric", "side"),
    "cost_ratio": ("text", "arm", "against", "side"),
}
"""What a claim has by its measure; None is that of one that cannot be tested."""
_NUMBERS = ("margin", "expected", "side")


def parse_claims(entries: Iterable[Mapping[str, Any]]) -> list[Claim]:
    """The claims of a lock. Raises ValueError if an entry is not as the engine writes it."""
    return [_parsed(entry) for entry in entries]


def _parsed(entry: Mapping[str, Any]) -> Claim:
    values = {name: entry[name] for name in Claim.__dataclass_fields__ if entry.get(name) is not None}
    is_sound = all(isinstance(value, (int, float) if name in _NUMBERS else str) for name, value in values.items())
    measure = values.get("measure") if is_sound else "unsound"
    is_ratio = measure == "cost_ratio"
    if not values.keys() >= set(_NEEDED.get(measure, ("unknown",))) or (is_ratio and values.get("expected", 1) <= 0):
        raise ValueError(f"study.lock.json has a claim that no run has written: {dict(entry)}")
    return Claim(**values)


def judge_claim(claim: Claim, measured: Interval, alpha: float) -> ClaimVerdict:
    """Judge a claim by the interval of what was measured, both on the scale.

    - `difference` and `cost_ratio`, by their direction: supported if the interval lies on the claimed side of 0,
      contradicted if it lies on the other side. The size is another question: `holds_size`.
    - `value`: supported if the expected value lies in the interval, contradicted if not; with a bound, supported if the
      whole interval keeps to it, contradicted if none of it does.
    - `equal`: supported if two one-sided tests against the margin say so at `alpha` (the interval lies within it),
      contradicted if the interval lies wholly outside.

    Without an interval nothing is decided. An interval of width zero is that of a number known exactly.
    """
    low, high = measured.low, measured.high
    if math.isnan(low) or math.isnan(high):
        return "undecided"
    if claim.measure == "value":
        expected = claim.expected or 0.0
        least = -math.inf if claim.bound == "at most" else expected
        most = math.inf if claim.bound == "at least" else expected
        if claim.bound is None:
            return "supported" if low <= expected <= high else "contradicted"
        return _by_sides(least <= low and high <= most, high < least or low > most)
    if claim.measure == "equal":
        margin = claim.margin or 0.0
        return _by_sides(equivalence_p(measured, margin) < alpha, low > margin or high < -margin)
    side = claim.side or 0
    if low == high:
        return "supported" if side * low > 0 else "contradicted"
    return _by_sides(min(side * low, side * high) > 0, max(side * low, side * high) < 0)


def holds_size(claim: Claim, measured: Interval) -> bool | None:
    """Whether the interval of a difference or a ratio holds the claimed size, or with a bound one that keeps to it.

    None if no size is claimed, without an interval, and where the verdict is about the size itself.
    """
    expected = claim.on_scale
    if claim.measure not in ("difference", "cost_ratio") or expected is None or not measured.low < measured.high:
        return None
    return (claim.bound == "at least" or measured.low <= expected) and (
        claim.bound == "at most" or expected <= measured.high
    )


def seeds_needed(claim: Claim, measured: Interval, looks: int = 1) -> int | None:
    """How many seeds would decide with power 0.8, if mean and spread stay what they are; None if more than MOST_SEEDS.

    With fewer than three values that is three, as nothing is known of the spread. Otherwise it is the smallest n with
    `smallest_detectable(sd, n)` ≤ d, where d is how far the mean lies from where the verdict changes: |mean| for a
    difference or the logarithm of a ratio, |margin - |mean|| for equality, |mean - expected| for a bounded value.
    """
    if measured.n < FEWEST:
        return FEWEST
    distance = _distance(claim, measured.mean)
    if not measured.sd > 0 or not smallest_detectable(measured.sd, MOST_SEEDS, looks) <= distance:
        return None
    enough, short = MOST_SEEDS, measured.n  # undecided, so n are too few
    while enough - short > 1:
        middle = (enough + short) // 2
        if smallest_detectable(measured.sd, middle, looks) <= distance:
            enough = middle
        else:
            short = middle
    return enough


def _distance(claim: Claim, mean: float) -> float:
    if claim.measure == "equal":
        return abs((claim.margin or 0.0) - abs(mean))
    return abs(mean - (claim.expected or 0.0)) if claim.measure == "value" else abs(mean)


def _by_sides(is_supported: bool, is_contradicted: bool) -> ClaimVerdict:
    return "supported" if is_supported else "contradicted" if is_contradicted else "undecided"
