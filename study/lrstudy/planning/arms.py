"""Arms: named entries of a study, each a policy with its search space.

search_spaces/<policy>.yaml  <-  common  <-  the arm, key by key
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrstudy import policies, user_code
from lrstudy.config import Common, StudyFile
from lrstudy.config.sections import shown
from lrstudy.errors import InputError, choices, unknown
from lrstudy.policies import build, registry
from lrstudy.policies.base import Policy, parameter_names
from lrstudy.policies.parameters import checked
from lrstudy.policies.spaces import default_space
from lrstudy.search.space import Configuration, Parameter, Space, Value, parse_parameter, spread
from lrstudy.settings import OPTIMIZER_CONSTANTS, Recipe

_SWITCHED_OFF = {"optimizer": "sgd", "nesterov": False, "tail": "keep"} | dict.fromkeys(
    ("clip_norm", "beta2", "eps", "alpha", "norm_batch", "micro_batch")
)
"""Common parameters that a configuration lacks where the study leaves them at these values."""
RECIPE = ("weight_decay", *_SWITCHED_OFF)
COMMON = ("lr", "batch_size", "momentum", *RECIPE)
_DEFAULTS = Common().model_dump()
INITIAL = "initial"
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
        values = {name: configuration[name] for name in RECIPE if name in configuration}
        if values.get("norm_batch") == INITIAL:
            values["norm_batch"] = configuration["batch_size"]
        return replace(base, **values)


def resolve(study: StudyFile, base: Path = _HERE) -> dict[str, Arm]:
    """The study's arms by name; references to a user's policies start at the folder `base`.

    Raises InputError with every fault of the common parameters and every arm.
    """
    common = common_definition(study)
    faults = _common_faults(common)
    at_fault = {fault.split(":")[0].split(".")[1] for fault in faults}  # their defaults stand in for them below
    sound = {name: _DEFAULTS[name] if name in at_fault else spec for name, spec in common.items()}
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
    """The common parameters as the study file says them; those that are switched off are left out."""
    given = {name: getattr(study.common, name) for name in COMMON}
    return {name: spec for name, spec in given.items() if not _is_switched_off(name, spec)}


def _is_switched_off(name: str, spec: object) -> bool:
    return name in _SWITCHED_OFF and not isinstance(spec, Mapping) and spec == _SWITCHED_OFF[name]


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


def _common_faults(common: Mapping[str, Any]) -> list[str]:
    faults: list[str] = []
    parameters = []
    for name, spec in common.items():
        try:
            parameters.append(parse_parameter(name, spec, f"common.{name}"))
        except InputError as error:
            faults += error.faults
            parameters.append(parse_parameter(name, _DEFAULTS[name], name))
    try:
        space = Space(tuple(parameters))
    except InputError as error:
        return faults + [f"common.{fault}" for fault in error.faults]
    names = parameter_names(_ANY_POLICY)
    found = _value_faults(space, lambda c: checked(_ANY_POLICY, {p: v for p, v in c.items() if p in names})[1])
    return faults + [f"common.{fault}" for fault in found]


def _arm(name: str, body: Mapping[str, Any], common: Mapping[str, Any], base: Path) -> Arm:
    where = f"arms.{name}"
    written = _policy(where, name, body)
    policy, source = _with_source(where, written, base)
    valid = list(dict.fromkeys([*COMMON, *parameter_names(policies.resolve(policy)), "policy"]))
    faults = [f"{where}.{key}: unknown key. {choices(valid, key)}" for key in body if key not in valid]
    merged = {**common, **(default_space(policy) if policy in registry() else {}), **body}
    names = [key for key in valid[:-1] if key in merged and not _is_switched_off(key, merged[key])]  # in one order
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
        raise InputError([f"{where}.{fault}" for fault in error.faults]) from None
    never = [p for p in space.parameters if p.name in body and space.requirements(p.name) is None]
    faults = [f"{where}.{p.name}.when: {_conditions(space, p)}, so {p.name} never exists." for p in never]
    arm = Arm(name, policy, space, {"policy": written, **source, **{key: merged[key] for key in names}})
    faults += [f"{where}.{fault}" for fault in _value_faults(space, lambda c: _policy_faults(arm, c))]
    if faults:
        raise InputError(faults)
    return arm


def _policy(where: str, name: str, body: Mapping[str, Any]) -> str:
    """The policy of an arm: as it says, else the one it is called after. Raises InputError for an unknown one."""
    policy, built_in = body.get("policy", name), registry()
    if not isinstance(policy, str):
        raise InputError(f"{where}.policy: expected the name of a policy; got {shown(policy)}. {choices(built_in)}")
    if policy in built_in or user_code.is_reference(policy) or policy.startswith("torch:"):
        return policy
    if "policy" in body:
        raise InputError(unknown(f"{where}.policy", "policy", policy, built_in))
    hint = " An arm that is not called after its policy names it, as policy: NAME."
    raise InputError(unknown(where, "policy", policy, built_in) + hint)


def _with_source(where: str, written: str, base: Path) -> tuple[str, dict[str, str]]:
    """A policy as `Arm.policy` names it, and the digest of its source if it is a user's. Raises InputError."""
    try:
        policy = user_code.resolve(written, base) if user_code.is_reference(written) else written
        policies.resolve(policy)
        return policy, {"source": user_code.digest(policy)} if user_code.is_reference(policy) else {}
    except InputError as error:
        raise InputError([f"{where}.{fault}" for fault in error.faults]) from None


def _conditions(space: Space, parameter: Parameter) -> str:
    """What the parameters that `parameter` depends on may be, for a fault."""
    return " and ".join(
        f"{other} must be {wanted!r} but is one of {list(space[other].values)}"
        for other, wanted in parameter.when.items()
    )


def _value_faults(space: Space, check: Callable[[Configuration], Sequence[str]]) -> list[str]:
    """What `check` and the recipe's rules say of the space's values: a sentence for each that is expected."""
    arrived: dict[str, list[str]] = {}
    for configuration in one_at_a_time(space):
        for fault in (*check(configuration), *_recipe_faults(configuration)):
            expected, _, got = fault.removesuffix(".").partition("; got ")
            if got not in arrived.setdefault(expected, []):
                arrived[expected].append(got)
    said = [f"{expected}; got {', '.join(got)}" if got[0] else expected for expected, got in arrived.items()]
    return [text if text.endswith("?") else f"{text}." for text in said]


def _policy_faults(arm: Arm, configuration: Configuration) -> Sequence[str]:
    try:
        build(arm.policy, arm.parameters(configuration))
    except InputError as error:
        return error.faults
    return ()


def _recipe_faults(configuration: Configuration) -> Iterator[str]:
    """The rules of what an arm's recipe takes from its configuration."""
    for name, (words, holds) in _RECIPE_RULES.items():
        if name in configuration and not holds(configuration[name]):
            yield f"{name}: expected {words}; got {configuration[name]!r}"
    optimizer = configuration.get("optimizer", "sgd")
    if not isinstance(optimizer, str) or optimizer not in OPTIMIZER_CONSTANTS:
        return
    for name in ("beta2", "eps", "alpha"):
        if configuration.get(name) is not None and name not in OPTIMIZER_CONSTANTS[optimizer]:
            having = ", ".join(o for o, constants in OPTIMIZER_CONSTANTS.items() if name in constants)
            yield f"{name}: expected it only with an optimizer that has it ({having}); got optimizer {optimizer}"
    if configuration.get("nesterov") is True and optimizer != "sgd":
        yield f"nesterov: expected it only with optimizer sgd; got optimizer {optimizer}"
    elif configuration.get("nesterov") is True and not configuration.get("momentum", 0.9):
        yield "nesterov: expected a momentum above 0 with it; got 0"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_examples(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


_RECIPE_RULES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "optimizer": (
        f"one of {', '.join(OPTIMIZER_CONSTANTS)}",
        lambda v: isinstance(v, str) and v in OPTIMIZER_CONSTANTS,
    ),
    "weight_decay": ("a number in [0, 1)", lambda v: _is_number(v) and 0 <= v < 1),
    "clip_norm": ("a number above 0, or null for none", lambda v: v is None or (_is_number(v) and v > 0)),
    "nesterov": ("true or false", lambda v: isinstance(v, bool)),
    "beta2": ("a number in [0, 1)", lambda v: v is None or (_is_number(v) and 0 <= v < 1)),
    "alpha": ("a number in [0, 1)", lambda v: v is None or (_is_number(v) and 0 <= v < 1)),
    "eps": ("a number above 0", lambda v: v is None or (_is_number(v) and v > 0)),
    "norm_batch": (
        "a whole number of examples, initial (the trial's batch_size), or null",
        lambda v: v == INITIAL or _is_examples(v),
    ),
    "micro_batch": ("a whole number of examples, or null", _is_examples),
    "tail": ("keep or drop", lambda v: v in ("keep", "drop")),
}
