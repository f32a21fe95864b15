"""The parameters of policies: annotations for their values, and checks of values against annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import Field

from lrstudy.annotations import Reader, Rule, description, has_metadata, names, reader
from lrstudy.errors import Fault, InputError
from lrstudy.policies.durations import DURATION, Duration, in_epochs

LearningRate = Annotated[float, Field(gt=0, description="a finite number above 0")]
Count = Annotated[int, Field(ge=1, description="a whole number of at least 1")]
Ratio = Annotated[float, Field(gt=0, le=1, description="a number above 0 and at most 1")]
"""A fraction of the peak rate."""
Floor = Annotated[float, Field(ge=0, le=1, description="a number in [0, 1]")]
"""A fraction of the peak rate that may be 0; with 1 the rate stays at the peak."""
BelowOne = Annotated[float, Field(ge=0, lt=1, description="a number in [0, 1)")]
"""A momentum, or another share that may be 0 but never the whole."""
Factor = Annotated[int, Field(ge=2, description="a whole number of at least 2")]
"""What a batch size is multiplied by."""
PositiveDuration = Annotated[
    Duration, Rule("a duration above 0, like 4, '25%' or '2000u'", lambda value: in_epochs(value, 1, 1) > 0)
]


def require(holds: bool, parameter: str, expected: str, got: object) -> None:
    """Raise the InputError ``parameter: expected ...; got ...`` unless `holds`.

    Args:
        holds: Whether the value is as it should be.
        parameter: The name of the parameter.
        expected: What the value must be, as the words after "expected".
        got: The value.
    """
    if not holds:
        raise InputError(unfit(parameter, expected, got))


def unfit(parameter: str, expected: str, got: object) -> Fault:
    """The fault of a value that is not what was expected."""
    return Fault(parameter, expected=expected, got="null" if got is None else repr(got))


def checked(policy: type, values: Mapping[str, object]) -> tuple[dict[str, Any], list[Fault]]:
    """The `values`, converted as the policy's annotations ask for, and the faults of those that do not fit.

    Every name must be a parameter of the policy.
    """
    readers = _readers(policy)
    fitting: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in values.items():
        try:
            fitting[name] = readers[name](value)
        except (ValueError, OverflowError):
            faults.append(unfit_by(hints(policy)[name], name, value))
    return fitting, faults


def unfit_by(annotation: Any, parameter: str, got: object) -> Fault:
    """The fault of a value that its annotation refuses, with the valid names where the annotation lists them."""
    return replace(unfit(parameter, description(annotation), got), valid=names(annotation), name=str(got))


def expected(policy: type, parameter: str) -> str:
    """What a parameter's value must be, as the words after "expected"."""
    return description(hints(policy)[parameter])


@cache
def hints(policy: type) -> dict[str, Any]:
    """The annotations of a policy's parameters, with their rules."""
    return get_type_hints(policy, include_extras=True)


def is_duration(annotation: Any) -> bool:
    """Whether an annotation is `Duration`, perhaps with further rules, or `Duration | None`."""
    return has_metadata(annotation, DURATION)


def is_of_durations(annotation: Any) -> bool:
    """Whether an annotation is a duration or a list of durations, perhaps optional."""
    if is_duration(annotation):
        return True
    of_lists = get_origin(annotation) in (Annotated, tuple, list)
    return any(map(is_of_durations, get_args(annotation)[:1] if of_lists else get_args(annotation)))


@cache
def _readers(policy: type) -> dict[str, Reader]:
    """The reader of each parameter of a policy. Cached: a study builds one policy per trial."""
    return {field.name: reader(hints(policy)[field.name]) for field in fields(policy)}
