"""Rates that range tests are to find, among the parameters of arms: `lr`, and of stages `stage1_lr`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrstudy.config.common import COMMON
from lrstudy.config.range_question import RangeQuestion, is_question, question_of
from lrstudy.planning.staged import base_name, place
from lrstudy.search.parameter import Parameter, parse_parameter

RATE = "lr"


def parameter_of(name: str, spec: object, where: str) -> Parameter:
    """`parse_parameter`; a rate that is to be found stands provisionally at the default of the common rate.

    Raises InputError naming the field `where`.
    """
    if _is_asked(name, spec):
        question_of(spec, where)
        spec = parse_parameter(name, COMMON[RATE].default, where).default
    return parse_parameter(name, spec, where)


def questions_in(specs: Mapping[str, Any], where: str) -> dict[str, RangeQuestion]:
    """How the rates of the arm at `where` are to be found, by parameter, as far as its `specs` leave that to range tests."""
    asked = {name: spec for name, spec in specs.items() if _is_asked(name, spec)}
    return {name: question_of(spec, f"{where}.{place(name)}") for name, spec in asked.items()}


def _is_asked(name: str, spec: object) -> bool:
    return base_name(name) == RATE and is_question(spec)
