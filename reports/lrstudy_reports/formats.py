"""Numbers as text: as many decimals as the uncertainty justifies, and device time in a readable unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MINUS = "\u2212"
MISSING = "–"
_TIE = "\u00a0"  # a non-breaking space


@dataclass(frozen=True)
class Unit:
    """A unit of device time: its `label`, e.g. 'CPU-core-minutes', and its length in seconds."""

    label: str
    seconds: float

    def __call__(self, device_s: float | None) -> str:
        """`device_s` in this unit with three significant digits, without the label."""
        return significant(None if device_s is None else device_s / self.seconds)

    def column(self, device_s: Iterable[float]) -> list[str]:
        """Several durations in this unit, all with as many decimals as give the largest four significant digits."""
        values = [value / self.seconds for value in device_s]
        largest = max((abs(value) for value in values), default=0.0)
        decimals = min(max(3 - math.floor(math.log10(largest)), 0), 6) if largest > 0 else 0
        rounded = [round(value, decimals) + 0.0 for value in values]  # + 0.0 turns -0 into 0
        return [f"{value:.{decimals}f}".replace("-", MINUS) for value in rounded]


def time_unit(study_unit: str, device_s: Iterable[float | None]) -> Unit:
    """Seconds, minutes or hours of the study's kind of device ('GPU-hours'), as suits the largest of `device_s`."""
    kind = study_unit.removesuffix("-hours")
    largest = max((value for value in device_s if value is not None and math.isfinite(value)), default=0.0)
    if largest < 180:
        return Unit(f"{kind}-seconds", 1.0)
    if largest < 3 * 3600:
        return Unit(f"{kind}-minutes", 60.0)
    return Unit(f"{kind}-hours", 3600.0)


def one_time(study_unit: str, device_s: float) -> str:
    """A single duration with its unit."""
    unit = time_unit(study_unit, [device_s])
    return f"{unit(device_s)} {unit.label}"


def fixed(value: float | None, decimals: int, sign: bool = False) -> str:
    """`value` with so many decimals and a true minus sign; with a plus if `sign`; a dash if it is missing.

    What would round to zero and is not zero keeps its sign: '<0.001', '−<0.001'.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{abs(value):.{decimals}f}"
    if value == 0:
        return text
    if float(text) == 0:
        text = f"<{10.0**-decimals:.{decimals}f}"
    return (MINUS if value < 0 else "+" if sign else "") + text


def significant(value: float | None, digits: int = 3) -> str:
    """`value` with at least so many significant digits; with an exponent only below 0.001 or from a million on."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -3 or magnitude >= 6:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return f"{value:,.{max(digits - 1 - magnitude, 0)}f}".replace("-", MINUS)


def decimals_for(half_widths: Iterable[float | None]) -> int:
    """How many decimals suit intervals with these half widths: 2 to 5, by the median; 3 if there are none.

    A half width is shown with one significant digit if that is at least 3, else with two: 0.004, but 0.010.
    """
    known = sorted(width for width in half_widths if width is not None and width > 0 and math.isfinite(width))
    if not known:
        return 3
    return min(max(math.ceil(-math.log10(known[len(known) // 2] / 3)), 2), 5)


def half_width(low: float | None, high: float | None) -> float | None:
    """Half the width of an interval; None if there is none."""
    return None if low is None or high is None else (high - low) / 2


def interval(low: float | None, high: float | None, decimals: int, sign: bool = False) -> str:
    """An interval as '[low, high]'.

    Args:
        low: Lower end.
        high: Upper end.
        decimals: Number of decimals of both ends.
        sign: Whether positive ends get a plus.

    Returns:
        The text; empty if an end is None or not finite.
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{fixed(low, decimals, sign)}, {fixed(high, decimals, sign)}]"


def p_value(p: float | None) -> str:
    """A p-value with three decimals, or '< 0.001'; a dash if it is missing."""
    if p is None or math.isnan(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def value(item: object) -> str:
    """A value of a configuration, of the lock or of a table as short text."""
    if isinstance(item, bool) or item is None:
        return {True: "yes", False: "no", None: MISSING}[item]
    if isinstance(item, float):
        return f"{item:g}"
    if isinstance(item, Mapping):
        return ", ".join(f"{key} {value(entry)}" for key, entry in item.items())
    if isinstance(item, list | tuple):
        return ", ".join(value(entry) for entry in item)
    return str(item)


def configuration(values: Mapping[str, Any], only: Iterable[str] = ()) -> str:
    """A configuration as 'lr 0.05, factor 2': its entries named in `only`, or all if it has none of them."""
    wanted = [name for name in only if name in values] or list(values)
    return ", ".join(f"{name}{_TIE}{value(values[name])}" for name in wanted) or MISSING


def count(number: float, noun: str) -> str:
    """A number with its noun: '1 seed', '5 seeds', '1,200 epochs'."""
    return f"{number:,.0f} {noun}" + ("" if number == 1 else "s")


def listed(words: list[str], link: str = "and") -> str:
    """Words as a list in a sentence: 'a', 'a and b', 'a, b and c'; or with another `link`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {link} {words[-1]}" if words else ""


def percent(level: float) -> str:
    """A level of confidence: '95%', '97.5%'."""
    return f"{100 * level:.4g}%"
