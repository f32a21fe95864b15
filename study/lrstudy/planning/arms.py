"""Arms: named entries of a study, each a policy with its search space.

search_spaces/<policy>.yaml  <-  common  <-  the arm, key by key
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrstudy import policies, user_code
from lrstudy.config import StudyFile
from lrstudy.config.common import COMMON, INITIAL, OF_POLICIES, is_left_out, recipe_faults
from lrstudy.config.sections import shown
from lrstudy.errors import Fault, InputError, faults_of, unknown
from lrstudy.policies import build, registry
from lrstudy.policies.base import Policy, parameter_names
from lrstudy.policies.parameters import checked
from lrstudy.policies.spaces import default_space
from lrstudy.search.halton import spread
from lrstudy.search.parameter import Configuration, Parameter, Value, parse_parameter
from lrstudy.search.space import Space
from lrstudy.settings import Recipe

_HERE = Path()
_NO_PARAMETER = ("policy", "source")
_ANY_POLICY: type[Policy] = Policy  # type: ignore[type-abstract]  # never constructed: its fields have the rules


@dataclass(frozen=True)
class Arm:
    """A policy with its search space; `definition` is what the study file says of it, merged, for comparison.

    `policy` is the name of a built-in policy, ``torch:NAME`` or a reference to a user's, with an absolute path.
    The definition holds a user's policy as the file has it, and the digest of its source.
    """

    name: str
    policy: str
    space: Space
    definition: Mapping[str, Any]

    def parameters(self, configuration: Configuration) -> dict[str, Value]:
        """The part of a configuration that the policy takes."""
        names = parameter_names(policies.resolve(self.policy))
        return {name: value for name, value in configuration.items() if name in names}

    def recipe(self, configuration: Configuration, base: Recipe) -> Recipe:
        """The recipe of a configuration: `base` with the configuration's weight decay and the like."""
        names = [name for name in COMMON if name in configuration and name not in OF_POLICIES]
        values = {name: configuration[name] for name in names}
        if values.get("norm_batch") == INITIAL:
            values["norm_batch"] = configuration["batch_size"]
        return replace(base, **values)


def resolve(study: StudyFile, base: Path = _HERE) -> dict[str, Arm]:
    """The study's arms by name; references to a user's policies start at the folder `base`.

    Raises InputError with every fault of the common parameters and every arm.
    """
    common = common_definition(study)
    faults = _common_faults(common)
    at_fault = {fault.where.split(".")[1] for fault in faults}  # their defaults stand in for them below
    sound = {name: COMMON[name].default if name in at_fault else spec for name, spec in common.items()}
    arms: dict[str, Arm] = {}
    for name, body in study.arms.items():
        try:
            arms[name] = _arm(name, body, sound, base)
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return arms


def cohort(study: StudyFile, count: int) -> list[dict[str, Value]]:
    """`count` points over the common parameters, drawn once for all arms: the centre first, covering the range."""
    common = [parse_parameter(name, spec, f"common.{name}") for name, spec in common_definition(study).items()]
    return spread(common, count)


def at_cohort_points(arm: Arm, points: Sequence[Mapping[str, Value]], common: Mapping[str, Any]) -> list[Configuration]:
    """The arm's configurations at points of the common parameters: its policy's parameters at their defaults.

    A common parameter that the arm overrides is spread over the arm's own range instead.
    """
    shared = {p.name for p in arm.space.searched if p.name in common and arm.definition[p.name] == common[p.name]}
    overridden = [p for p in arm.space.searched if p.name in COMMON and p.name not in shared]
    return [
        arm.space.complete({**mine, **{name: value for name, value in point.items() if name in shared}})
        for point, mine in zip(points, spread(overridden, len(points)), strict=True)
    ]


def from_definition(name: str, definition: Mapping[str, Any], sources: Path = _HERE) -> Arm:
    """An arm of an earlier run, from what its lock says of it; `sources` is where a user's policies were kept."""
    parameters = [
        parse_parameter(key, spec, f"arms.{name}.{key}") for key, spec in definition.items() if key not in _NO_PARAMETER
    ]
    policy = str(definition["policy"])
    if "source" in definition:
        policy = user_code.kept(policy, str(definition["source"]), sources)
    return Arm(name, policy, Space(tuple(parameters)), definition)


def common_definition(study: StudyFile) -> dict[str, Any]:
    """The common parameters as the study file says them; those left at an optional default are left out."""
    given = {name: getattr(study.common, name) for name in COMMON}
    return {name: spec for name, spec in given.items() if not is_left_out(name, spec)}


def origin(study: StudyFile, arm: str, parameter: str) -> str:
    """Where the study file says a parameter of an arm: ``common.lr`` or ``arms.clr.lr``."""
    is_common = parameter in common_definition(study) and parameter not in study.arms.get(arm, {})
    return f"common.{parameter}" if is_common else f"arms.{arm}.{parameter}"


def one_at_a_time(space: Space) -> Iterator[Configuration]:
    """The defaults, then every value of every parameter in turn (of a range: both ends and the middle)."""
    yield space.default()
    for parameter in space.searched:
        needed = space.requirements(parameter.name) or {}
        for value in parameter.values or [parameter.at(position) for position in (0.0, 0.5, 1.0)]:
            yield space.complete({**needed, parameter.name: value})


def _common_faults(common: Mapping[str, Any]) -> list[Fault]:
    """The faults of the common parameters, placed in `common`."""
    faults: list[Fault] = []
    parameters = []
    for name, spec in common.items():
        try:
            parameters.append(parse_parameter(name, spec, f"common.{name}"))
        except InputError as error:
            faults += error.faults
            parameters.append(parse_parameter(name, COMMON[name].default, name))
    try:
        space = Space(tuple(parameters))
    except InputError as error:
        return faults + [fault.within("common") for fault in error.faults]
    names = parameter_names(_ANY_POLICY)
    unfitting = _value_faults(space, lambda c: checked(_ANY_POLICY, {p: v for p, v in c.items() if p in names})[1])
    return faults + [fault.within("common") for fault in unfitting]


def _arm(name: str, body: Mapping[str, Any], common: Mapping[str, Any], base: Path) -> Arm:
    where = f"arms.{name}"
    written = _policy(where, name, body)
    policy, source = _with_source(where, written, base)
    valid = list(dict.fromkeys([*COMMON, *parameter_names(policies.resolve(policy)), "policy"]))
    faults = [Fault(f"{where}.{key}", "unknown key", valid=tuple(valid), name=key) for key in body if key not in valid]
    merged = {**common, **(default_space(policy) if policy in registry() else {}), **body}
    names = [key for key in valid[:-1] if key in merged and not is_left_out(key, merged[key])]  # in one order
    parameters = []
    for key in names:
        try:
            parameters.append(parse_parameter(key, merged[key], f"{where}.{key}"))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    try:
        space = Space(tuple(parameters))
    except InputError as error:
        raise error.within(where) from None
    never = [p for p in space.parameters if p.name in body and space.requirements(p.name) is None]
    faults = [Fault(f"{where}.{p.name}.when", f"{_conditions(space, p)}, so {p.name} never exists") for p in never]
    arm = Arm(name, policy, space, {"policy": written, **source, **{key: merged[key] for key in names}})
    of_values = _value_faults(space, lambda c: faults_of(lambda: build(arm.policy, arm.parameters(c))))
    faults += [fault.within(where) for fault in of_values]
    if faults:
        raise InputError(faults)
    return arm


def _policy(where: str, name: str, body: Mapping[str, Any]) -> str:
    """The policy of an arm: as it says, else the one it is called after. Raises InputError for an unknown one."""
    policy, built_in = body.get("policy", name), registry()
    if not isinstance(policy, str):
        valid = tuple(built_in)
        raise InputError(Fault(f"{where}.policy", expected="the name of a policy", got=shown(policy), valid=valid))
    if policy in built_in or user_code.is_reference(policy) or policy.startswith("torch:"):
        return policy
    if "policy" in body:
        raise InputError(unknown(f"{where}.policy", "policy", policy, built_in))
    advice = "An arm that is not called after its policy names it, as policy: NAME."
    raise InputError(replace(unknown(where, "policy", policy, built_in), advice=advice))


def _with_source(where: str, written: str, base: Path) -> tuple[str, dict[str, str]]:
    """A policy as `Arm.policy` names it, and the digest of its source if it is a user's. Raises InputError."""
    try:
        policy = user_code.resolve(written, base) if user_code.is_reference(written) else written
        policies.resolve(policy)
        return policy, {"source": user_code.digest(policy)} if user_code.is_reference(policy) else {}
    except InputError as error:
        raise error.within(where) from None


def _conditions(space: Space, parameter: Parameter) -> str:
    """What the parameters that `parameter` depends on may be, for a fault."""
    return " and ".join(
        f"{other} must be {wanted!r} but is one of {list(space[other].values)}"
        for other, wanted in parameter.when.items()
    )


def _value_faults(space: Space, check: Callable[[Configuration], Sequence[Fault]]) -> list[Fault]:
    """What `check` and the recipe's rules say of the space's values: one fault for all values that break a rule."""
    by_rule: dict[Fault, list[Fault]] = {}
    for configuration in one_at_a_time(space):
        for fault in (*check(configuration), *recipe_faults(configuration)):
            by_rule.setdefault(replace(fault, got="", name=None), []).append(fault)
    return [
        replace(faults[0], got=", ".join(dict.fromkeys(fault.got for fault in faults))) for faults in by_rule.values()
    ]
