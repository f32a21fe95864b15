"""Search spaces: what values a configuration may take, free of any searcher.

A value in a study file is a scalar (fixed) or a mapping with one of `choice`, `ordered`, `uniform`,
`log`, `int`, optionally with `steps` (a ladder: so many values, searched by index), `default` and
`when` (the parameter exists only while another one has a given value).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, pairwise, product
from typing import Any, Literal

from lrstudy.errors import Fault, InputError, unknown
from lrstudy.settings import canonical_json

Value = Any  # a JSON value: number, string, bool, None or a list of them
Configuration = dict[str, Value]
Kind = Literal["fixed", "choice", "ordered", "uniform", "log", "int"]

_DOMAINS = ("choice", "ordered", "uniform", "log", "int")
_KEYS = (*_DOMAINS, "steps", "default", "when")
_MAX_LISTED = 1024  # an `int` range of at most so many whole numbers is a list of them, so it can be gridded


@dataclass(frozen=True)
class Parameter:
    """One dimension of a space.

    `values` is the finite list of values, in order, of a fixed value, a choice, an ordered list, a
    ladder or a short range of whole numbers; it is empty for a continuous range, which is [`low`, `high`]
    (linear for `uniform` and `int`, logarithmic for `log`; `int` means whole numbers). `when` maps other
    parameters to the value that each must have for this one to exist.

    A searcher sees a value as its *code*: the index in `values`, or the position in [0, 1] of a range.
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
        """Where each value stands in the list."""
        return {_comparable(value): index for index, value in enumerate(self.values)}

    def encode(self, value: Value) -> float:
        """The code of `value`. Raises InputError if this parameter cannot have it."""
        if self.values:
            found = self._places.get(_comparable(value))
            if found is not None:
                return found
        elif _is_number(value) and self.low <= value <= self.high:
            if self.kind == "log":
                return math.log(value / self.low) / math.log(self.high / self.low)
            if self.kind == "int":
                return float((value - self.low + 0.5) / (self.high - self.low + 1))
            return float((value - self.low) / (self.high - self.low))
        expected = f"one of {list(self.values)}" if self.values else f"a number in [{self.low}, {self.high}]"
        raise InputError(Fault(self.name, expected=expected, got=f"{value!r}"))

    def decode(self, code: float) -> Value:
        """The value of a code; for a list the very object in `values`. A code out of range is clipped."""
        if self.values:
            return self.values[min(max(round(code), 0), len(self.values) - 1)]
        return self.at(min(max(float(code), 0.0), 1.0))


@dataclass(frozen=True)
class Space:
    """The parameters of one arm, in a fixed order (common ones first).

    Raises InputError, with all faults, if a parameter's `when` names a parameter that does not exist, one
    that is a continuous range, or (over others) itself. A value that the other parameter cannot have is
    no fault: the arm has narrowed it, and the parameter never exists.
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        names = [p.name for p in self.parameters]
        faults: list[Fault] = []
        for parameter in self.parameters:
            for other in parameter.when:
                if other not in names:
                    faults.append(unknown(f"{parameter.name}.when", "parameter", other, names))
                elif not self[other].values:
                    problem = f"{other} is a continuous range, which never has exactly {parameter.when[other]!r}"
                    advice = f"Give {other} 'steps' or a 'choice'."
                    faults.append(Fault(f"{parameter.name}.when", problem, advice=advice))
        circular = [p.name for p in self.parameters if not faults and p not in self._parents_first]
        if circular:
            faults.append(Fault(f"{circular[0]}.when", f"{', '.join(circular)} depend on each other"))
        if faults:
            raise InputError(faults)

    def __getitem__(self, name: str) -> Parameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(p.name == name for p in self.parameters)

    @cached_property
    def searched(self) -> tuple[Parameter, ...]:
        """The parameters that a searcher decides."""
        return tuple(p for p in self.parameters if not p.is_fixed and self.requirements(p.name) is not None)

    @cached_property
    def size(self) -> float:
        """Number of distinct configurations; infinity if a range is continuous."""
        if any(not p.values for p in self.searched):
            return math.inf
        parents = [p for p in self.searched if any(p.name in q.when for q in self.parameters)]
        others = [p for p in self.searched if p not in parents]
        branches = (self.complete(point) for point in self._distinct(parents))
        return sum(math.prod(len(p.values) for p in others if p.name in branch) for branch in branches)

    def requirements(self, name: str) -> dict[str, Value] | None:
        """The values that other, not fixed parameters must have for this one to exist.

        Over all generations: a parent's own requirements are among them. None if it can never exist.
        """
        needed: dict[str, Value] = {}
        for other, value in self[name].when.items():
            above = self.requirements(other)
            if above is None or not any(_same(value, listed) for listed in self[other].values):
                return None
            own = {} if self[other].is_fixed else {other: value}
            for key, wanted in [*above.items(), *own.items()]:
                if not _same(needed.setdefault(key, wanted), wanted):
                    return None
        return needed

    def complete(self, searched: Mapping[str, Value]) -> Configuration:
        """The full configuration for values of searched parameters: fixed ones added, inactive dropped."""
        full: Configuration = {}
        for parameter in self._parents_first:
            if all(key in full and _same(full[key], value) for key, value in parameter.when.items()):
                fixed = parameter.values[0] if parameter.is_fixed else parameter.default
                full[parameter.name] = searched.get(parameter.name, fixed)
        return {p.name: full[p.name] for p in self.parameters if p.name in full}

    def default(self) -> Configuration:
        """The configuration with every parameter at its default."""
        return self.complete({})

    def encode(self, configuration: Configuration) -> dict[str, float]:
        """The codes of the searched parameters that exist in `configuration`.

        Raises ValueError if it is not a configuration of this space: a value out of its range, a parameter
        missing, or one that should not exist. Values of fixed parameters are not looked at.
        """
        codes = {p.name: p.encode(configuration[p.name]) for p in self.searched if p.name in configuration}
        if (names := set(self.complete(configuration))) != set(configuration):
            raise ValueError(f"expected the parameters {sorted(names)}; got {sorted(configuration)}.")
        return codes

    def decode(self, codes: Mapping[str, float]) -> Configuration:
        """The full configuration for codes of searched parameters; those of inactive ones are ignored."""
        return self.complete({p.name: p.decode(codes[p.name]) for p in self.searched if p.name in codes})

    def grid(self) -> Iterator[Configuration]:
        """Every distinct configuration, the first parameter varying slowest.

        Raises InputError if a range is continuous.
        """
        continuous = [p.name for p in self.searched if not p.values]
        if continuous:
            raise InputError(
                Fault(
                    "search.method",
                    f"grid needs finite parameters, but {', '.join(continuous)} is continuous",
                    advice="Give it 'steps: N' or a 'choice'.",
                )
            )
        return (self.complete(point) for point in self._distinct(self.searched))

    def _distinct(self, parameters: Sequence[Parameter]) -> Iterator[Configuration]:
        """Values of `parameters`, each combination of the existing ones once (the others at their first)."""
        for values in product(*(p.values for p in parameters)):
            point = {p.name: value for p, value in zip(parameters, values, strict=True)}
            full = self.complete(point)
            if all(p.name in full or point[p.name] is p.values[0] for p in parameters):
                yield point

    @cached_property
    def _parents_first(self) -> tuple[Parameter, ...]:
        """The parameters, each after those it depends on; those of a circle are missing."""
        placed: dict[str, Parameter] = {}
        for _ in self.parameters:
            for parameter in self.parameters:
                if parameter.name not in placed and all(other in placed for other in parameter.when):
                    placed[parameter.name] = parameter
        return tuple(placed.values())


def spread(parameters: Sequence[Parameter], count: int) -> list[Configuration]:
    """`count` points over `parameters`: the defaults first, then covering the range evenly.

    Halton's sequence (Numerische Mathematik, 1960), whose second half falls between the points of the
    first; base 2 goes to the parameter with most values. (Additive recurrences cover planes well and lines
    badly: with two parameters Roberts' R2 gave 8 points only 4 of 10 learning rates, this gives 8.)
    Points repeat only when there are fewer distinct ones than asked for. `when` is not looked at: a point
    holds a value for every parameter, and Space.complete drops some.
    """
    searched = [p for p in parameters if not p.is_fixed]
    axes = sorted(searched, key=lambda p: -len(p.values) if p.values else -math.inf)
    fixed = {p.name: p.values[0] for p in parameters if p.is_fixed}
    centre = fixed | {p.name: p.default for p in searched}
    points, seen = [centre], {canonical_json(centre)}
    bases = _primes(len(axes))
    for index in range(2, 64 * count):  # 1 is the centre of base 2, which the defaults stand for
        if len(points) >= count or not searched:
            break
        drawn = {p.name: p.at(_mirrored(index, base)) for p, base in zip(axes, bases, strict=True)}
        point = {name: drawn.get(name, value) for name, value in centre.items()}
        if (key := canonical_json(point)) not in seen:
            seen.add(key)
            points.append(point)
    distinct = len(points)
    while len(points) < count:
        points.append(points[len(points) % distinct])
    return points[:count]


def parse_parameter(name: str, spec: object, where: str) -> Parameter:
    """Read one entry of a study file. Raises InputError naming the field `where`."""
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
    if len(named) < len(listed) or any(_same(*pair) for pair in combinations(listed, 2)):
        raise InputError(Fault(f"{where}.{kind}", f"values repeat: {list(values)!r}"))
    middle = listed[len(listed) // 2] if kind == "ordered" else listed[0]
    default = _frozen(spec.get("default", middle))
    same = [value for value in listed if _same(value, default)]
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
    """`steps` values from low to high, both included.

    Over whole decades with 3 steps each the values are 1-2-5 per decade; other logarithmic ladders are
    geometric, rounded to 3 significant digits, or as many more as keep neighbours apart: with 3 digits
    `log: [0.999, 0.99999]` would climb to 1.0.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 2:
        raise InputError(Fault(f"{where}.steps", expected="a whole number >= 2", got=f"{steps!r}"))
    fractions = [index / (steps - 1) for index in range(steps)]
    if kind == "log":
        decades = math.log10(high / low)
        if abs(decades - round(decades)) < 1e-9 and steps == 3 * round(decades) + 1:
            mantissa = (1.0, 2.0, 5.0)
            values = [low * 10 ** (index // 3) * mantissa[index % 3] for index in range(steps)]
        else:
            values = [low * (high / low) ** fraction for fraction in fractions]
        for digits in range(3, 16):
            ladder = (float(low), *(float(f"{value:.{digits - 1}e}") for value in values[1:-1]), float(high))
            if all(left < right for left, right in pairwise(ladder)):
                return ladder
        raise InputError(Fault(f"{where}.steps", f"{steps} values between {low} and {high} are too close together"))
    if kind == "int":
        whole = sorted({round(low + (high - low) * fraction) for fraction in fractions})
        if len(whole) < steps:
            raise InputError(Fault(f"{where}.steps", f"there are only {len(whole)} whole numbers for {steps} steps"))
        return tuple(whole)
    return tuple(float(f"{low + (high - low) * fraction:.9g}") for fraction in fractions)


def _frozen(value: object) -> Value:
    """A list as a tuple-free, comparable JSON value (lists stay lists, numbers stay what they are)."""
    return [_frozen(item) for item in value] if isinstance(value, (list, tuple)) else value


def _same(value: Value, other: Value) -> bool:
    """Equality of values in a study file: 2 is 2.0, but `true` is not 1."""
    return _comparable(value) == _comparable(other)


def _comparable(value: Value) -> object:
    """Something hashable that is equal where values of a study file are."""
    if isinstance(value, (list, tuple)):
        return tuple(_comparable(item) for item in value)
    return (bool, value) if isinstance(value, bool) else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mirrored(index: int, base: int) -> float:
    """The digits of `index` in `base`, mirrored at the point: in base 2, 1, 2, 3 are 1/2, 1/4, 3/4."""
    result, unit = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        unit /= base
        result += digit * unit
    return result


def _primes(count: int) -> list[int]:
    primes: list[int] = []
    candidate = 2
    while len(primes) < count:
        if all(candidate % prime for prime in primes):
            primes.append(candidate)
        candidate += 1
    return primes
