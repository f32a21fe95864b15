"""Arms: named entries of a study, each a policy with its search space.

search_spaces/<policy>.yaml  <-  common  <-  the arm, key by key
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lrstudy.config import Common, StudyFile
from lrstudy.faults import InputError, choices, unknown
from lrstudy.policies import build, registry
from lrstudy.policies.base import parameter_names
from lrstudy.policies.spaces import default_space
from lrstudy.settings import Recipe
from lrstudy.space import Configuration, Parameter, Space, Value, parse_parameter, spread

COMMON = ("lr", "batch_size", "momentum", "weight_decay", "nesterov", "clip_norm")
RECIPE = ("weight_decay", "nesterov", "clip_norm")
_OPTIONAL = ("nesterov", "clip_norm")  # absent from a configuration unless the study says something


@dataclass(frozen=True)
class Arm:
    """A policy with its search space; `definition` is what the study file says of it, merged, for comparison."""

    name: str
    policy: str
    space: Space
    definition: Mapping[str, Any]

    def parameters(self, configuration: Configuration) -> dict[str, Value]:
        """The part of a configuration that the policy takes."""
        names = parameter_names(registry()[self.policy])
        return {name: value for name, value in configuration.items() if name in names}

    def recipe(self, configuration: Configuration, base: Recipe) -> Recipe:
        """The recipe of a configuration: `base` with the configuration's weight decay and the like."""
        given = {name: configuration[name] for name in RECIPE if name in configuration}
        if "weight_decay" in given:
            given["weight_decay"] = float(given["weight_decay"])
        return replace(base, **given)


def resolve(study: StudyFile) -> dict[str, Arm]:
    """The study's arms by name. Raises InputError with every fault of every arm."""
    common = _common(study.common)
    arms: dict[str, Arm] = {}
    faults: list[str] = []
    for name, body in study.arms.items():
        try:
            arms[name] = _arm(name, body, common)
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(list(dict.fromkeys(faults)))
    return arms


def cohort(study: StudyFile, arms: Mapping[str, Arm], count: int) -> list[dict[str, Value]]:
    """`count` points over the common parameters, drawn once for all arms: the centre first, covering the range."""
    common = [parse_parameter(name, spec, f"common.{name}") for name, spec in _common(study.common).items()]
    return spread(common, count)


def at_cohort_point(arm: Arm, point: Mapping[str, Value], common: Mapping[str, Any]) -> Configuration:
    """The arm's configuration at a point of the common parameters: its own ones at their defaults.

    A common parameter that the arm overrides takes the arm's default.
    """
    shared = {name: value for name, value in point.items() if arm.definition.get(name) == common.get(name)}
    searched = {p.name for p in arm.space.searched}
    return arm.space.complete({name: value for name, value in shared.items() if name in searched})


def from_definition(name: str, definition: Mapping[str, Any]) -> Arm:
    """An arm of an earlier run, from what its lock says of it."""
    parameters = [
        parse_parameter(key, spec, f"arms.{name}.{key}") for key, spec in definition.items() if key != "policy"
    ]
    return Arm(name, str(definition["policy"]), Space(tuple(parameters)), definition)


def common_definition(study: StudyFile) -> dict[str, Any]:
    """The common parameters as the study file says them."""
    return _common(study.common)


def _common(common: Common) -> dict[str, Any]:
    given = {name: getattr(common, name) for name in COMMON}
    return {name: value for name, value in given.items() if name not in _OPTIONAL or value}


def _arm(name: str, body: Mapping[str, Any], common: Mapping[str, Any]) -> Arm:
    where = f"arms.{name}"
    policy = body.get("policy", name)
    policies = registry()
    if policy not in policies:
        raise InputError(unknown(f"{where}.policy" if "policy" in body else where, "policy", policy, policies))
    own = parameter_names(policies[policy])
    valid = list(dict.fromkeys([*COMMON, *own, "policy"]))
    faults = [f"{where}: unknown key {key!r}. {choices(valid, key)}" for key in body if key not in valid]
    merged = {
        **common,
        **default_space(policy),
        **{k: v for k, v in body.items() if k in valid and k != "policy"},
    }
    parameters: list[Parameter] = []
    for key, spec in merged.items():
        origin = f"common.{key}" if key in common and key not in body else f"{where}.{key}"
        try:
            parameters.append(parse_parameter(key, spec, origin))
        except InputError as error:
            faults += error.faults
    names = [p.name for p in parameters]
    for parameter in parameters:
        faults += [
            unknown(f"{where}.{parameter.name}.when", "parameter", other, names)
            for other in parameter.when
            if other not in names
        ]
    if faults:
        raise InputError(faults)
    arm = Arm(name, policy, Space(tuple(parameters)), {"policy": policy, **merged})
    _check_values(arm, body, common)
    return arm


def _check_values(arm: Arm, body: Mapping[str, Any], common: Mapping[str, Any]) -> None:
    """Build the policy at the defaults and with every single value (of a range: both ends) in turn."""
    faults: list[str] = []
    for configuration in _one_at_a_time(arm.space):
        try:
            build(arm.policy, arm.parameters(configuration))
        except InputError as error:
            faults += error.faults
        faults += _recipe_faults(configuration)
    if faults:
        located = []
        for fault in faults:
            key = fault.partition(":")[0]
            located.append(f"{'common' if key in common and key not in body else f'arms.{arm.name}'}.{fault}")
        raise InputError(list(dict.fromkeys(located)))


def _one_at_a_time(space: Space) -> Iterator[Configuration]:
    yield space.default()
    for parameter in space.searched:
        for value in parameter.values or (parameter.low, parameter.high):
            needed = dict(parameter.when)
            yield space.complete({**needed, parameter.name: value})


def _recipe_faults(configuration: Configuration) -> Iterator[str]:
    decay = configuration.get("weight_decay", 0.0)
    if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay < 1:
        yield f"weight_decay: expected a number in [0, 1); got {decay!r}"
    clip = configuration.get("clip_norm", 1.0)
    if isinstance(clip, bool) or not isinstance(clip, (int, float)) or clip <= 0:
        yield f"clip_norm: expected a number above 0; got {clip!r}"
    nesterov = configuration.get("nesterov", False)
    if not isinstance(nesterov, bool):
        yield f"nesterov: expected true or false; got {nesterov!r}"
    elif nesterov and not configuration.get("momentum", 0.9):
        yield "nesterov: needs a momentum above 0; got momentum 0"
