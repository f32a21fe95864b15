"""Published claims by their ids, and what they expect of a study's numbers: fractions and ratios instead of printed units.

The claims are in published_claims.json as their sources print them. Units are turned into fractions here, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("published_claims.json")
Measure = Literal["value", "difference", "cost_ratio", "equal"]
Bound = Literal["at least", "at most"]
_NEUTRAL: Mapping[Measure, float] = {"difference": 0.0, "cost_ratio": 1.0}
"""The value of a measure that is on neither side: no difference, no saving."""
_SHARES = {"%": 0.01, "fraction": 1.0}
_COSTS = ("s", "USD/train")


@dataclass(frozen=True)
class Expected:
    """What a claim expects: a number, a side, or both.

    Attributes:
        number: A value or a difference of a metric as a fraction, or a ratio of costs; None if the claim has none.
        side: 1 if a difference is to be above 0, or a ratio above 1; -1 if below; None where no side is claimed.
        bound: Whether the number is claimed as the least or the most that it is; None if as the number itself.
    """

    number: float | None = None
    side: int | None = None
    bound: Bound | None = None


@dataclass(frozen=True)
class PublishedClaim:
    """A claim as its source has it; `fields` are those of the file."""

    fields: Mapping[str, Any]

    @property
    def text(self) -> str:
        """What is claimed, of what, against what and on which data, in one line."""
        of = [self.fields["treatment"]] if "treatment" in self.fields else []
        against = [f"against {self.fields['baseline']}"] if "baseline" in self.fields else []
        where = [
            self.fields[name] for name in ("dataset", "architecture", "variant", "optimizer") if name in self.fields
        ]
        text = f"{self.fields['claim']}: {' '.join([*of, *against])}" if of or against else self.fields["claim"]
        return f"{text} ({', '.join(where)})" if where else str(text)

    @property
    def source(self) -> str:
        """Where it was published."""
        return str(self.fields["source"])

    @property
    def note(self) -> str | None:
        """What a reader should know of the claim; None if nothing."""
        return self.fields.get("note")

    @property
    def printed(self) -> str | None:
        """The number in its printed unit, such as ``6.48 pp``, or ``79.59 % after 75.1``; None if there is none."""
        if "value" not in self.fields:
            return None
        before = f" after {self.fields['baseline_value']:g}" if "baseline_value" in self.fields else ""
        unit = str(self.fields.get("unit", "")).removeprefix("fraction")
        return f"{self.fields['value']:g} {unit}".strip() + before

    def expected(self, measure: Measure) -> Expected | None:
        """What the claim expects of a measure; None if its number is of something else.

        A difference and a ratio are taken as printed, or made of the numbers of treatment and baseline. One of no
        difference and no saving is none: those are claims of equality.
        """
        if measure == "equal":
            return Expected()
        kind, _, qualifier = str(self.fields.get("unit", "")).partition(" (")
        if measure == "difference" and kind.startswith("sign "):
            return Expected(side=1 if kind == "sign positive" else -1)
        if "value" not in self.fields or qualifier.startswith("absolute"):
            return None
        number = {"value": self._value, "difference": self._difference, "cost_ratio": self._ratio}[measure](kind)
        if number is None or number == _NEUTRAL.get(measure):
            return None
        return sided(measure, float(f"{number:.9g}"), _bound(qualifier))

    def _value(self, kind: str) -> float | None:
        share = self._share("value", kind)
        return share if share is not None and 0 <= share <= 1 else None

    def _difference(self, kind: str) -> float | None:
        if kind == "pp":
            return float(self.fields["value"]) / 100
        after, before = self._share("value", kind), self._share("baseline_value", kind)
        return None if after is None or before is None else after - before

    def _ratio(self, kind: str) -> float | None:
        """Baseline over treatment: above 1 if the treatment is cheaper."""
        if kind == "x":
            return float(self.fields["value"])
        if kind in _COSTS and "baseline_value" in self.fields:
            return float(self.fields["baseline_value"]) / float(self.fields["value"])
        return None

    def _share(self, field: str, kind: str) -> float | None:
        """A printed share as a fraction, of an error what is right; None if there is none."""
        if kind not in _SHARES or field not in self.fields:
            return None
        share = float(self.fields[field]) * _SHARES[kind]
        return 1 - share if self.fields["metric"] == "test_error" else share


def sided(measure: Measure, number: float, bound: Bound | None = None) -> Expected:
    """A number with the side that it lies on: of 0 for a difference, of 1 for a ratio, of nothing for a value."""
    neutral = _NEUTRAL.get(measure)
    return Expected(number, None if neutral is None else 1 if number > neutral else -1, bound)


@cache
def published() -> Mapping[str, PublishedClaim]:
    """All published claims by id, such as ``c014``."""
    return {fields["id"]: PublishedClaim(fields) for fields in json.loads(FILE.read_text(encoding="utf-8"))}


def _bound(qualifier: str) -> Bound | None:
    if qualifier.startswith("lower bound"):
        return "at least"
    return "at most" if qualifier.startswith(("upper bound", "up to")) else None
