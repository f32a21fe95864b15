"""What a policy's parameter may be: the rules behind its annotation, checking values against them, saying what does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from lrstudy.errors import InputError
from lrstudy.policies.durations import Duration, in_epochs


@dataclass(frozen=True)
class Rule:
    """What a parameter must fulfil beyond its type, written as ``Annotated[float, Rule(...)]``.

    `expected` completes "expected ..." in the error; `holds` is asked with a value of the right type.
    """

    expected: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Rule("a whole number of at least 1", lambda value: value >= 1)]
Ratio = Annotated[float, Rule("a number above 0 and at most 1", lambda value: 0 < value <= 1)]
"""A share of the peak rate."""
Floor = Annotated[float, Rule("a number in [0, 1)", lambda value: 0 <= value < 1)]
"""A share of the peak rate below it, which may be 0. Also the range of momentum."""
Factor = Annotated[int, Rule("a whole number of at least 2", lambda value: value >= 2)]
"""How many times a batch grows."""
PositiveDuration = Annotated[
    Duration, Rule("a duration above 0, like 4, '25%' or '2000u'", lambda value: in_epochs(value, 1, 1) > 0)
]


def require(holds: bool, parameter: str, expected: str, arrived: object) -> None:
    """Raise InputError ``parameter: expected ...; got ...`` unless `holds`."""
    if not holds:
        raise InputError(fault(parameter, expected, arrived))


def fault(parameter: str, expected: str, arrived: object) -> str:
    """The sentence that says so."""
    return f"{parameter}: expected {expected}; got {'null' if arrived is None else repr(arrived)}"


def checked(policy: type, values: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
    """The `values` as the policy's annotations want them, and a sentence for each that does not fit.

    Whole numbers are converted for floats and lists for tuples, also inside lists; nothing else is
    repaired: truth values and strings are no numbers, 32.0 is no whole number. All names must exist.
    """
    converters = _converters(policy)
    fitting: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in values.items():
        try:
            fitting[name] = converters[name](value)
        except (ValueError, OverflowError):
            faults.append(fault(name, expected(policy, name), value) + _nearest(hints(policy)[name], value))
    return fitting, faults


def expected(policy: type, parameter: str) -> str:
    """What a parameter's value must be, as the words after "expected"."""
    return _described(hints(policy)[parameter])


@cache
def hints(policy: type) -> dict[str, Any]:
    """The annotations of a policy's parameters, rules included."""
    return get_type_hints(policy, include_extras=True)


def is_duration(hint: Any) -> bool:
    """Whether an annotation is `Duration`, perhaps or None: a union flattens, so its three types are looked for."""
    return get_origin(hint) in (Union, UnionType) and set(get_args(Duration)) <= set(get_args(hint))


def is_of_durations(hint: Any) -> bool:
    """Whether an annotation asks for a duration, a list of them, or either or nothing."""
    if get_origin(hint) in (Annotated, tuple, list):
        return is_of_durations(get_args(hint)[0])
    is_union = get_origin(hint) in (Union, UnionType)
    return is_duration(hint) or (is_union and any(map(is_of_durations, get_args(hint))))


_Converter = Callable[[Any], Any]
"""Gives a value as an annotation wants it, or raises ValueError."""


@cache
def _converters(policy: type) -> dict[str, _Converter]:
    """One for each of a policy's parameters, made once: a study of many trials builds as many policies."""
    return {name: _converter(hint) for name, hint in hints(policy).items()}


def _converter(hint: Any) -> _Converter:
    """How values become what the annotation `hint` wants; an author's own types pass."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _ruled(_converter(inner[0]), [rule.holds for rule in inner[1:] if isinstance(rule, Rule)])
    if is_duration(hint):
        return _absent_or(_duration) if NoneType in inner else _duration
    if origin in (Union, UnionType):
        return _first_that_fits([_converter(option) for option in inner])
    if origin in (tuple, list):
        return _each(_converter(inner[0]))
    if origin is Literal:
        return _ruled(_unchanged, [lambda value: value in inner])
    if hint in (float, int):
        return _number(hint)
    if hint in (bool, str, NoneType):
        return _ruled(_unchanged, [lambda value: isinstance(value, hint)])
    return _unchanged


def _unchanged(value: Any) -> Any:
    return value


def _ruled(convert: _Converter, rules: list[Callable[[Any], bool]]) -> _Converter:
    def converted(value: Any) -> Any:
        found = convert(value)
        for holds in rules:
            if not holds(found):
                raise ValueError(f"{value!r} does not fit")
        return found

    return converted


def _duration(value: Any) -> Any:
    if not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is no duration")
    in_epochs(value, 1, 1)
    return value


def _absent_or(convert: _Converter) -> _Converter:
    return lambda value: None if value is None else convert(value)


def _each(convert: _Converter) -> _Converter:
    def converted(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{value!r} is no list")
        return tuple(map(convert, value))

    return converted


def _number(kind: type[float] | type[int]) -> _Converter:
    wanted: Any = Real if kind is float else Integral

    def converted(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, wanted) or not math.isfinite(found := kind(value)):
            raise ValueError(f"{value!r} is no {kind.__name__}")
        return found

    return converted


def _first_that_fits(options: list[_Converter]) -> _Converter:
    def converted(value: Any) -> Any:
        for convert in options:
            try:
                return convert(value)
            except ValueError:
                continue
        raise ValueError(f"{value!r} fits none")

    return converted


def _described(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return next(rule.expected for rule in reversed(inner) if isinstance(rule, Rule))
    if is_duration(hint):
        return "a duration, like 4, '25%' or '2000u'" + (" or null" if NoneType in inner else "")
    if origin in (Union, UnionType):
        return " or ".join(_described(option) for option in inner)
    if origin in (tuple, list):
        return f"a list of which each is {_described(inner[0])}"
    if origin is Literal:
        return " or ".join(filter(None, (", ".join(inner[:-1]), inner[-1])))
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", NoneType: "null"}
    return words.get(hint, str(hint))


def _nearest(hint: Any, arrived: object) -> str:
    """``. Did you mean 'this'?`` for a name that is almost one of those that the annotation lists."""
    names = [name for option in (hint, *get_args(hint)) if get_origin(option) is Literal for name in get_args(option)]
    near = get_close_matches(str(arrived), names, n=2)
    return f". Did you mean {' or '.join(map(repr, near))}?" if near else ""
