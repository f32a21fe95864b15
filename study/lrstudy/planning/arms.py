"""Arms: named entries of a study, each a policy with its search space.

An arm's space is merged key by key, later ones winning: the policy's default space in search_spaces/<policy>.yaml, the
study's common parameters, and what the study file says about the arm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrstudy import policies, user_code
from lrstudy.config import StudyFile
from lrstudy.config.common import COMMON, INITIAL, OF_POLICIES, default_momentum, is_left_out, recipe_faults
from lrstudy.config.range_question import RangeQuestion
from lrstudy.config.sections import shown
from lrstudy.errors import Fault, InputError, faults_of, unknown
from lrstudy.models.catalogue import has_batchnorm
from lrstudy.planning.rate_questions import RATE, parameter_of, question_in
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
    """A policy with its search space.

    Attributes:
        name: The arm's name in the study.
        policy: The name of a built-in policy, ``torch:NAME``, or a reference to a user's policy with an absolute path.
        space: The parameters that are fixed or searched.
        definition: The policy and all parameters as the study file gives them, after merging; a later run is compared
            with it. For a user's policy it holds the reference as it is written, and the digest of the source.
        question: How the rate is found, if a range test finds it. Until it has, the space holds a provisional rate.
    """

    name: str
    policy: str
    space: Space
    definition: Mapping[str, Any]
    question: RangeQuestion | None = None

    @property
    def optimizer(self) -> str:
        """The optimizer of the default configuration."""
        return str(self.space.default().get("optimizer", COMMON["optimizer"].default))

    def parameters(self, configuration: Configuration) -> dict[str, Value]:
        """The part of a configuration that consists of the policy's parameters, with a momentum in any case."""
        names = parameter_names(policies.resolve(self.policy))
        momentum = default_momentum(configuration.get("optimizer"))  # for where it is inactive
        return {"momentum": momentum} | {name: value for name, value in configuration.items() if name in names}

    def recipe(self, configuration: Configuration, base: Recipe) -> Recipe:
        """The recipe of a configuration: `base` with the configuration's weight decay and other recipe parameters."""
        names = [name for name in COMMON if name in configuration and name not in OF_POLICIES]
        values = {name: configuration[name] for name in names}
        if values.get("norm_batch") == INITIAL:
            values["norm_batch"] = configuration["batch_size"]
        return replace(base, **values)


def resolve(study: StudyFile, base: Path = _HERE) -> dict[str, Arm]:
    """The study's arms by name. References to users' policies are relative to the folder `base`.

    Raises InputError with every fault of the common parameters and of all arms.
    """
    common, is_momentum_given = common_definition(study), _is_momentum_given(study)
    faults = _common_faults(common)
    if not is_momentum_given:
        faults += faults_of(lambda: _own_momentum("common", _optimizer(common)))
    at_fault = {fault.where.split(".")[1] for fault in faults}  # replaced by their defaults to check the arms
    sound = {name: COMMON[name].default if name in at_fault else spec for name, spec in common.items()}
    arms: dict[str, Arm] = {}
    for name, body in study.arms.items():
        try:
            arms[name] = _arm(name, body, sound, base, study.workload.model, is_momentum_given)
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return arms


def cohort(study: StudyFile, count: int) -> list[dict[str, Value]]:
    """`count` points over the common parameters, the same for all arms: the defaults, then points over the ranges."""
    common = [parameter_of(name, spec, f"common.{name}") for name, spec in common_definition(study).items()]
    return spread(common, count)


def at_cohort_points(arm: Arm, points: Sequence[Mapping[str, Value]], common: Mapping[str, Any]) -> list[Configuration]:
    """The arm's configurations at the cohort's points, with the policy's own parameters at their defaults.

    A common parameter that the arm overrides takes values spread over the arm's own range instead.
    """
    shared = {p.name for p in arm.space.searched if p.name in common and arm.definition[p.name] == common[p.name]}
    overridden = [p for p in arm.space.searched if p.name in COMMON and p.name not in shared]
    return [
        arm.space.complete({**own, **{name: value for name, value in point.items() if name in shared}})
        for point, own in zip(points, spread(overridden, len(points)), strict=True)
    ]


def from_definition(name: str, definition: Mapping[str, Any], sources: Path = _HERE) -> Arm:
    """An arm of an earlier run, from its definition in the lock; `sources` is the folder that keeps users' policies."""
    parameters = [
        parameter_of(key, spec, f"arms.{name}.{key}") for key, spec in definition.items() if key not in _NO_PARAMETER
    ]
    policy = str(definition["policy"])
    if user_code.is_reference(policy):
        policy = _kept(name, policy, str(definition.get("source")), sources)
    return Arm(name, policy, Space(tuple(parameters)), definition, question_in(definition.get(RATE), f"arms.{name}"))


def _kept(name: str, written: str, source: str, sources: Path) -> str:
    """The reference to the copy of a user's policy that an earlier run kept.

    Raises InputError if there is none, or if it is not the source that the arm's definition has the digest of: then it
    must not run.
    """
    kept = user_code.kept(written, source, sources)
    try:
        digest = user_code.digest(kept)
    except InputError:
        digest = ""
    if digest != source:
        raise InputError(
            Fault(
                f"arms.{name}",
                f"an earlier run had this arm with a policy of {written} as it was then, and there is no copy of that on "
                "this machine",
                advice="Code is never taken from a bucket. Run the study where it ran before, or under another name with "
                "--as NAME.",
            )
        )
    return kept


def common_definition(study: StudyFile) -> dict[str, Any]:
    """The common parameters as the study file gives them, without optional ones that are at their default."""
    specs = {name: getattr(study.common, name) for name in COMMON}
    if not _is_momentum_given(study):
        specs["momentum"] = max(_own_momenta(specs["optimizer"]))
    return {name: spec for name, spec in specs.items() if not is_left_out(name, spec)}


def origin(study: StudyFile, arm: str, parameter: str) -> str:
    """The field of the study file that gives a parameter of an arm: ``common.lr`` or ``arms.clr.lr``."""
    is_common = parameter in common_definition(study) and parameter not in study.arms.get(arm, {})
    return f"common.{parameter}" if is_common else f"arms.{arm}.{parameter}"


def one_at_a_time(space: Space) -> Iterator[Configuration]:
    """The defaults, then every value of every parameter in turn; of a continuous range, both ends and the middle."""
    yield space.default()
    for parameter in space.searched:
        needed = space.requirements(parameter.name) or {}
        for value in parameter.values or [parameter.at(position) for position in (0.0, 0.5, 1.0)]:
            yield space.complete({**needed, parameter.name: value})


def _common_faults(common: Mapping[str, Any]) -> list[Fault]:
    """The faults of the common parameters, with their place in `common`."""
    faults: list[Fault] = []
    parameters = []
    for name, spec in common.items():
        try:
            parameters.append(parameter_of(name, spec, f"common.{name}"))
        except InputError as error:
            faults += error.faults
            parameters.append(parse_parameter(name, COMMON[name].default, name))
    try:
        space = Space(tuple(parameters))
    except InputError as error:
        return faults + [fault.within("common") for fault in error.faults]
    names = parameter_names(_ANY_POLICY)
    of_values = _value_faults(space, lambda c: checked(_ANY_POLICY, {p: v for p, v in c.items() if p in names})[1])
    return faults + [fault.within("common") for fault in of_values]


def _arm(
    name: str, body: Mapping[str, Any], common: Mapping[str, Any], base: Path, model: str, is_momentum_given: bool
) -> Arm:
    """An arm from its `body` in the study file and the common parameters.

    Args:
        name: The arm's name.
        body: What the study file says about the arm.
        common: The common parameters.
        base: The folder that references to users' policies are relative to.
        model: The study's model, which may have BatchNorm or not.
        is_momentum_given: Whether the study file says what the common momentum is.

    Raises:
        InputError: With every fault.
    """
    where = f"arms.{name}"
    written = _policy(where, name, body)
    policy, source = _with_source(where, written, base)
    valid = list(dict.fromkeys([*COMMON, *parameter_names(policies.resolve(policy)), "policy"]))
    faults = [Fault(f"{where}.{key}", "unknown key", valid=tuple(valid), name=key) for key in body if key not in valid]
    merged = {**_defaults(policy, body, model), **common, **body}
    if "optimizer" in body and "momentum" not in body:
        try:
            merged["momentum"] = _momentum(where, body["optimizer"], common, is_momentum_given)
        except InputError as error:
            faults += error.faults
    # The order of `valid`, so that it does not matter in which order a study file lists parameters.
    specs = {key: merged[key] for key in valid[:-1] if key in merged and not is_left_out(key, merged[key])}
    space = _space(where, specs, faults)
    question = question_in(specs.get(RATE), where)
    asked = {} if question is None else {RATE: question.model_dump()}  # written out: a default may change
    arm = Arm(name, policy, space, {"policy": written, **source, **specs, **asked}, question)
    of_values = _value_faults(space, lambda c: faults_of(lambda: build(arm.policy, arm.parameters(c))))
    faults = [*_never_existing(where, space, body), *(fault.within(where) for fault in of_values)]
    if faults:
        raise InputError(faults)
    return arm


def _defaults(policy: str, body: Mapping[str, Any], model: str) -> dict[str, object]:
    """The default space of a policy; ghost batches where its batch grows, unless the model is known to have no BatchNorm."""
    space = default_space(policy) if policy in registry() else {}
    if body.get("batch_milestones"):
        space["norm_batch"] = INITIAL
    if has_batchnorm(model) is False:
        space.pop("norm_batch", None)
    return space


def _is_momentum_given(study: StudyFile) -> bool:
    common: Any = study.common  # a model that is made from COMMON, which mypy cannot follow
    return "momentum" in common.model_fields_set


def _optimizer(common: Mapping[str, Any]) -> object:
    """The common optimizer or its space."""
    return common.get("optimizer", COMMON["optimizer"].default)


def _momentum(where: str, optimizer: object, common: Mapping[str, Any], is_momentum_given: bool) -> Any:
    """The momentum of an arm that has an optimizer of its own and no momentum: the common one, or the optimizer's own.

    A momentum that was not given, or was given for other optimizers than RMSprop, is not handed to an RMSprop. Raises
    InputError if the arm searches optimizers that have different ones.
    """
    own = _own_momenta(optimizer)
    of_common = _own_momenta(_optimizer(common))
    if is_momentum_given and (own <= of_common or 0.0 not in own):
        return common["momentum"]
    return _own_momentum(where, optimizer)


def _own_momentum(where: str, optimizer: object) -> float:
    """The momentum of an optimizer for which none was given. Raises InputError if a space has some that differ in it."""
    momenta = _own_momenta(optimizer)
    if len(momenta) > 1:
        expected = "one, or one for each with `when`, as RMSprop has 0 by default and the others 0.9"
        raise InputError(Fault(f"{where}.momentum", expected=expected, got="nothing beside a choice of both"))
    return momenta.pop()


def _own_momenta(optimizer: object) -> set[float]:
    """The default momenta of an optimizer or of those that a space has. One that cannot be read is a fault elsewhere."""
    try:
        names = parse_parameter("optimizer", optimizer, "optimizer").values
    except InputError:
        names = ()
    return {default_momentum(name) for name in names or (None,)}


def _space(where: str, specs: Mapping[str, Any], faults: Sequence[Fault]) -> Space:
    """The space of an arm at `where`. Raises InputError with its faults and the `faults` that are known before."""
    parameters: list[Parameter] = []
    unreadable: list[Fault] = []
    for name, spec in specs.items():
        try:
            parameters.append(parameter_of(name, spec, f"{where}.{name}"))
        except InputError as error:
            unreadable += error.faults
    if faults or unreadable:
        raise InputError([*faults, *unreadable])
    try:
        return Space(tuple(parameters))
    except InputError as error:
        raise error.within(where) from None


def _never_existing(where: str, space: Space, body: Mapping[str, Any]) -> Iterator[Fault]:
    """The parameters that the study file gives to an arm, but whose `when` can never hold."""
    for parameter in space.parameters:
        if parameter.name in body and space.requirements(parameter.name) is None:
            problem = f"{_conditions(space, parameter)}, so {parameter.name} never exists"
            yield Fault(f"{where}.{parameter.name}.when", problem)


def _policy(where: str, name: str, body: Mapping[str, Any]) -> str:
    """The policy that an arm names, else the one that the arm is called after. Raises InputError if it is unknown."""
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
    """A policy in the form of `Arm.policy`, and for a user's policy the digest of its source. Raises InputError."""
    try:
        policy = user_code.resolve(written, base) if user_code.is_reference(written) else written
        policies.resolve(policy)
        return policy, {"source": user_code.digest(policy)} if user_code.is_reference(policy) else {}
    except InputError as error:
        raise error.within(where) from None


def _conditions(space: Space, parameter: Parameter) -> str:
    """What the `when` of `parameter` asks for and what is possible, in words for a fault."""
    return " and ".join(
        f"{other} must be {wanted!r} but is one of {list(space[other].values)}"
        for other, wanted in parameter.when.items()
    )


def _value_faults(space: Space, check: Callable[[Configuration], Sequence[Fault]]) -> list[Fault]:
    """The faults that `check` and the recipe's rules find in a space, one for all values that break the same rule."""
    by_rule: dict[Fault, list[Fault]] = {}
    for configuration in one_at_a_time(space):
        for fault in (*check(configuration), *recipe_faults(configuration)):
            by_rule.setdefault(replace(fault, got="", name=None), []).append(fault)
    return [
        replace(faults[0], got=", ".join(dict.fromkeys(fault.got for fault in faults))) for faults in by_rule.values()
    ]
