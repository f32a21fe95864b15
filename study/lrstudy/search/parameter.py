"""One parameter of a search space: the values that it may take, and how a study file writes them.

A value in a study file is a scalar (fixed) or a mapping with exactly one of `choice`, `ordered`, `uniform`, `log` and
`int`. The mapping may also have `steps` (search a ladder of so many values, by index), `default`, and `when` (the
parameter exists only while another one has a given value).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any, Literal

from lrstudy.errors import Fault, InputError
from lrstudy.settings import canonical_json

Value = Any  # a JSON value: number, string, bool, None or a list of them
Configuration = dict[str, Value]
Kind = Literal["fixed", "choice", "ordered", "uniform", "log", "int"]

_DOMAINS = ("choice", "ordered", "uniform", "log", "int")
_KEYS = (*_DOMAINS, "steps", "default", "when")
_MAX_LISTED = 1024  # an `int` range of at most this many whole numbers is stored as a list, so that it can be gridded


@dataclass(frozen=True)
class Parameter:
    """One dimension of a space.

    A searcher sees a value as its *code*: the index in `values`, or the position in [0, 1] of a range.

    Attributes:
        name: The parameter's name.
        kind: ``fixed``, or the domain that the study file gives.
        values: The finite list of values, in order, of a fixed value, a choice, an ordered list, a ladder or a short
            range of whole numbers. Empty for a range.
        low, high: The bounds of a range, both included. Positions in it are linear for `uniform` and `int` (which holds
            whole numbers) and logarithmic for `log`.
        default: The value that the parameter has where no searcher decides it.
        when: The value that each of the named other parameters must have for this one to exist.
    """

    name: str
    kind: Kind
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    default: Value = None
    when: Mapping[str, Value] = field(default_factory=dict)

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to search."""
        return self.kind == "fixed" or len(self.values) == 1

    @property
    def is_ordinal(self) -> bool:
        """Whether neighbours in `values` are alike (ladders and ordered lists, not choices)."""
        return bool(self.values) and self.kind not in ("choice", "fixed")

    def at(self, position: float) -> Value:
        """The value at `position` in [0, 1] of the range; 0.5 is its centre."""
        if self.values:
            return self.values[min(int(position * len(self.values)), len(self.values) - 1)]
        if self.kind == "log":
            return min(max(self.low * (self.high / self.low) ** position, float(self.low)), float(self.high))
        if self.kind == "int":
            return int(min(self.low + math.floor(position * (self.high - self.low + 1)), self.high))
        return min(self.low + (self.high - self.low) * position, float(self.high))

    @cached_property
    def _places(self) -> dict[object, int]:
        """The index of each value in `values`."""
        return {_comparable(value): index for index, value in enumerate(self.values)}

    def encode(self, value: Value) -> float:
        """The code of `value`. Raises InputError if this parameter cannot have it."""
        if self.values:
            index = self._places.get(_comparable(value))
            if index is not None:
                return index
        elif _is_number(value) and self.low <= value <= self.high:
            if self.kind == "log":
                return math.log(value / self.low) / math.log(self.high / self.low)
            if self.kind == "int":
                return float((value - self.low + 0.5) / (self.high - self.low + 1))
            return float((value - self.low) / (self.high - self.low))
        expected = f"one of {list(self.values)}" if self.values else f"a number in [{self.low}, {self.high}]"
        raise InputError(Fault(self.name, expected=expected, got=f"{value!r}"))

    def decode(self, code: float) -> Value:
        """The value of a code; for a list, the object in `values` itself. A code out of range is clipped."""
        if self.values:
            return self.values[min(max(round(code), 0), len(self.values) - 1)]
        return self.at(min(max(float(code), 0.0), 1.0))


def parse_parameter(name: str, spec: object, where: str) -> Parameter:
    """Read one parameter of a study file, a scalar or a mapping. Raises InputError naming the field `where`."""
    if not isinstance(spec, Mapping):
        return Parameter(name, "fixed", (_frozen(spec),), default=_frozen(spec))
    faults = [Fault(where, f"unknown key {key!r}", valid=_KEYS, name=str(key)) for key in spec if key not in _KEYS]
    domains = [key for key in _DOMAINS if key in spec]
    if len(domains) != 1:
        got = " and ".join(domains) or ", ".join(map(str, spec)) or "nothing"
        faults.append(Fault(where, expected=f"a scalar or exactly one of {', '.join(_DOMAINS)}", got=got))
    conditions = spec.get("when") or {}
    if not isinstance(conditions, Mapping):
        faults.append(Fault(f"{where}.when", expected="a map from parameter to value", got=f"{conditions!r}"))
    if faults:
        raise InputError(faults)
    kind: Any = domains[0]
    when = {key: _frozen(value) for key, value in conditions.items()}
    if kind in ("choice", "ordered"):
        return _listed(name, kind, spec, when, where)
    return _ranged(name, kind, spec, when, where)


def _listed(name: str, kind: Kind, spec: Mapping[str, Any], when: dict[str, Value], where: str) -> Parameter:
    values = spec[kind]
    if not isinstance(values, (list, tuple)) or not values:
        raise InputError(Fault(f"{where}.{kind}", expected="a list of at least one value", got=f"{values!r}"))
    if "steps" in spec:
        raise InputError(
            Fault(f"{where}.steps", f"only ranges (uniform, log, int) take steps; a {kind} is a list already")
        )
    listed = tuple(_frozen(value) for value in values)
    named = {canonical_json(value) for value in listed}
    if len(named) < len(listed) or any(is_same(*pair) for pair in combinations(listed, 2)):
        raise InputError(Fault(f"{where}.{kind}", f"values repeat: {list(values)!r}"))
    middle = listed[len(listed) // 2] if kind == "ordered" else listed[0]
    default = _frozen(spec.get("default", middle))
    same = [value for value in listed if is_same(value, default)]
    if not same:
        raise InputError(Fault(f"{where}.default", f"{default!r} is not among {list(values)!r}"))
    return Parameter(name, kind, listed, default=same[0], when=when)


def _ranged(name: str, kind: Kind, spec: Mapping[str, Any], when: dict[str, Value], where: str) -> Parameter:
    bounds = spec[kind]
    if not (isinstance(bounds, (list, tuple)) and len(bounds) == 2 and all(_is_number(bound) for bound in bounds)):
        raise InputError(Fault(f"{where}.{kind}", expected="[low, high], two numbers", got=f"{bounds!r}"))
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high) and not (low == high and kind == "int"):
        raise InputError(Fault(f"{where}.{kind}", expected="low < high, both finite", got=f"[{low}, {high}]"))
    if kind == "log" and low <= 0:
        raise InputError(Fault(f"{where}.log", expected="bounds above 0", got=f"[{low}, {high}]"))
    if kind == "int" and not (float(low).is_integer() and float(high).is_integer()):
        raise InputError(Fault(f"{where}.int", expected="whole numbers", got=f"[{low}, {high}]"))
    values: tuple[Value, ...] = ()
    if "steps" in spec:
        values = _ladder(kind, low, high, spec["steps"], where)
    elif kind == "int" and high - low < _MAX_LISTED:
        values = tuple(range(int(low), int(high) + 1))
    parameter = Parameter(name, kind, values, low, high, when=when)
    default = spec.get("default", parameter.at(0.5))
    try:
        code = parameter.encode(default)
    except InputError as error:
        raise InputError([replace(fault, where=f"{where}.default") for fault in error.faults]) from None
    typed = parameter.decode(code) if values else int(default) if kind == "int" else float(default)
    return Parameter(name, kind, values, low, high, typed, when)


def _ladder(kind: str, low: float, high: float, steps: object, where: str) -> tuple[Value, ...]:
    """`steps` values from low to high, both included. Raises InputError if there are not so many distinct ones."""
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 2:
        raise InputError(Fault(f"{where}.steps", expected="a whole number >= 2", got=f"{steps!r}"))
    if kind == "log":
        return _log_ladder(low, high, steps, where)
    fractions = [index / (steps - 1) for index in range(steps)]
    if kind == "int":
        whole = sorted({round(low + (high - low) * fraction) for fraction in fractions})
        if len(whole) < steps:
            raise InputError(Fault(f"{where}.steps", f"there are only {len(whole)} whole numbers for {steps} steps"))
        return tuple(whole)
    return tuple(float(f"{low + (high - low) * fraction:.9g}") for fraction in fractions)


def _log_ladder(low: float, high: float, steps: int, where: str) -> tuple[Value, ...]:
    """The values of a logarithmic ladder.

    They are 1-2-5 per decade if the range is whole decades with 3 steps each. Otherwise they form a geometric series,
    rounded to 3 significant digits, or to as many more as keep neighbours apart: with 3 digits `log: [0.999, 0.99999]`
    would climb to 1.0.
    """
    decades = math.log10(high / low)
    if abs(decades - round(decades)) < 1e-9 and steps == 3 * round(decades) + 1:
        mantissa = (1.0, 2.0, 5.0)
        values = [low * 10 ** (index // 3) * mantissa[index % 3] for index in range(steps)]
    else:
        values = [low * (high / low) ** (index / (steps - 1)) for index in range(steps)]
    for digits in range(3, 16):
        ladder = (float(low), *(float(f"{value:.{digits - 1}e}") for value in values[1:-1]), float(high))
        if all(left < right for left, right in pairwise(ladder)):
            return ladder
    raise InputError(Fault(f"{where}.steps", f"{steps} values between {low} and {high} are too close together"))


def _frozen(value: object) -> Value:
    """A copy of the value with lists for tuples, as JSON has them; numbers keep their type."""
    return [_frozen(item) for item in value] if isinstance(value, (list, tuple)) else value


def is_same(value: Value, other: Value) -> bool:
    """Whether two values of a study file are equal: 2 is 2.0, but `true` is not 1."""
    return _comparable(value) == _comparable(other)


def _comparable(value: Value) -> object:
    """A hashable key that two values share exactly if `is_same` holds for them."""
    if isinstance(value, (list, tuple)):
        return tuple(_comparable(item) for item in value)
    return (bool, value) if isinstance(value, bool) else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
