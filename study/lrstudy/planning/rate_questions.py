"""Rates that a range test is to find, among the parameters of arms."""

from __future__ import annotations

from lrstudy.config.common import COMMON
from lrstudy.config.range_question import RangeQuestion, is_question, question_of
from lrstudy.search.parameter import Parameter, parse_parameter

RATE = "lr"


def parameter_of(name: str, spec: object, where: str) -> Parameter:
    """`parse_parameter`; a rate that is to be found stands provisionally at the default of the common rate.

    Raises InputError naming the field `where`.
    """
    if name == RATE and is_question(spec):
        question_of(spec, where)
        spec = parse_parameter(name, COMMON[name].default, where).default
    return parse_parameter(name, spec, where)


def question_in(spec: object, where: str) -> RangeQuestion | None:
    """How the rate of the arm at `where` is to be found, which has the rate `spec`; None if there is nothing to find."""
    return question_of(spec, f"{where}.{RATE}") if is_question(spec) else None
