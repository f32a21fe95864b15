"""Arms: named entries of a study, each a policy with its search space.

An arm's space is merged key by key, later ones winning: the policy's default space in search_spaces/<policy>.yaml, the
study's common parameters, and what the study file says about the arm.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lrstudy import policies, user_code
from lrstudy.config import StudyFile
from lrstudy.config import until as until_config
from lrstudy.config.common import COMMON, INITIAL, OF_POLICIES, default_momentum, is_left_out, recipe_faults
from lrstudy.config.range_question import RangeQuestion
from lrstudy.config.sections import shown
from lrstudy.errors import Fault, InputError, faults_of
from lrstudy.planning.rate_questions import RATE, parameter_of, questions_in
from lrstudy.planning.specs import Shared, is_momentum_given, merged, named, optimizer_of, own_momenta, own_momentum
from lrstudy.planning.staged import base_name, given_names, in_stage, of_stage, place, unfolded
from lrstudy.policies.base import Policy, parameter_names
from lrstudy.policies.parameters import checked
from lrstudy.policies.stages import STAGE_KEYS, STAGES, build_policy
from lrstudy.search.halton import spread
from lrstudy.search.parameter import Configuration, Parameter, Value, parse_parameter
from lrstudy.search.space import Space
from lrstudy.settings import Recipe
from lrstudy.trial.until import Until

_HERE = Path()
UNTIL = "until"
_NO_PARAMETER = ("policy", "source", "stages", UNTIL)
_ANY_POLICY: type[Policy] = Policy  # type: ignore[type-abstract]  # never constructed: its fields have the rules


@dataclass(frozen=True)
class Arm:
    """A policy with its search space.

    Attributes:
        name: The arm's name in the study.
        policy: The name of a built-in policy, ``torch:NAME``, a reference to a user's policy with an absolute path, or
            ``stages``.
        space: The parameters that are fixed or searched.
        definition: The policy and all parameters as the study file gives them, after merging; a later run is compared
            with it. For a user's policy it holds the reference as it is written, and the digest of the source; `until`
            only if there is one.
        stages: The policies of its stages, in the form of `policy`; that is then ``stages``.
        until: What ends a trial before its budget does: the arm's own, else the budget's.
        questions: How rates are found, by parameter, where range tests find them. Until they have, the space holds
            provisional ones.
    """

    name: str
    policy: str
    space: Space
    definition: Mapping[str, Any]
    stages: tuple[str, ...] = ()
    until: Until | None = None
    questions: Mapping[str, RangeQuestion] = field(default_factory=dict)

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies that train: the arm's, or those of its stages."""
        return self.stages or (self.policy,)

    @property
    def rates(self) -> list[str]:
        """The parameters that are the rates of its stages, in their order: its own, or `lr`; of an arm without stages `lr`."""
        own = [f"stage{k}_{RATE}" for k in range(1, len(self.stages) + 1)] or [RATE]
        return [name if name in self.space else RATE for name in own]

    @property
    def optimizer(self) -> str:
        """The optimizer of the default configuration, at the end of the training."""
        return str(self._of_last(self.space.default()).get("optimizer", COMMON["optimizer"].default))

    def build(self, configuration: Configuration) -> Policy:
        """The policy with the values of a configuration. Raises InputError."""
        return build_policy(self.policy, self.parameters(configuration))

    def parameters(self, configuration: Configuration) -> dict[str, Value]:
        """The part of a configuration that consists of the policy's parameters, with a momentum in any case."""
        if not self.stages:
            return _parameters(self.policy, configuration)
        stages = [_stage(policy, of_stage(configuration, k)) for k, policy in enumerate(self.stages, 1)]
        last: dict[str, Value] = stages[-1]["parameters"]
        return {name: last[name] for name in OF_POLICIES} | {"stages": tuple(stages)}

    def recipe(self, configuration: Configuration, base: Recipe) -> Recipe:
        """The recipe of a configuration, at the end of the training: `base` with weight decay and other recipe parameters."""
        return replace(base, **_recipe_values(self._of_last(configuration)))

    def faults(self, configuration: Configuration) -> list[Fault]:
        """Why the values of a configuration cannot be trained with, whatever the data."""
        faults = faults_of(lambda: self.build(configuration))
        for k in range(1, len(self.stages) + 1):
            inside = of_stage(configuration, k)
            faults += [fault.within(f"stages[{k - 1}]") for fault in recipe_faults(inside)]
        return faults if self.stages else [*faults, *recipe_faults(configuration)]

    def _of_last(self, configuration: Configuration) -> Configuration:
        return of_stage(configuration, len(self.stages)) if self.stages else configuration


def _parameters(policy: str, configuration: Configuration) -> dict[str, Value]:
    """The values of a policy's parameters, with a momentum in any case."""
    names = parameter_names(policies.resolve(policy))
    momentum = default_momentum(configuration.get("optimizer"))  # for where it is inactive
    return {"momentum": momentum} | {name: value for name, value in configuration.items() if name in names}


def _recipe_values(configuration: Configuration) -> dict[str, Value]:
    """The values of recipe parameters that a configuration has."""
    values = {name: configuration[name] for name in COMMON if name in configuration and name not in OF_POLICIES}
    if values.get("norm_batch") == INITIAL:
        values["norm_batch"] = configuration["batch_size"]
    return values


def _stage(policy: str, configuration: Configuration) -> dict[str, Any]:
    """A stage as `Stages` takes it, with all recipe parameters: those that are left out are not the last stage's."""
    defaults = {name: parameter.default for name, parameter in COMMON.items() if name not in OF_POLICIES}
    own = {name: value for name, value in configuration.items() if name in STAGE_KEYS}
    rest = {name: value for name, value in configuration.items() if name not in STAGE_KEYS}
    return {**own, "policy": policy, "parameters": _parameters(policy, rest), "recipe": defaults | _recipe_values(rest)}


def resolve(study: StudyFile, base: Path = _HERE) -> dict[str, Arm]:
    """The study's arms by name. References to users' policies are relative to the folder `base`.

    Raises InputError with every fault of the common parameters and of all arms.
    """
    common, is_given = common_definition(study), is_momentum_given(study)
    faults = _common_faults(common)
    if not is_given:
        faults += faults_of(lambda: own_momentum("common", optimizer_of(common)))
    at_fault = {fault.where.split(".")[1] for fault in faults}  # replaced by their defaults to check the arms
    sound = {name: COMMON[name].default if name in at_fault else spec for name, spec in common.items()}
    shared = Shared(sound, is_given, study.workload.model, base)
    arms: dict[str, Arm] = {}
    for name, body in study.arms.items():
        try:
            until, rest = _until(name, body, study)
            arm = _arm(name, rest, shared)
            arms[name] = replace(arm, until=until, definition={**arm.definition, **_defined(until)})
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

    A common parameter that the arm or a stage of it overrides takes values spread over their own range instead.
    """
    shared = {p.name for p in arm.space.searched if p.name in common and arm.definition[p.name] == common[p.name]}
    overridden = [p for p in arm.space.searched if base_name(p.name) in COMMON and p.name not in shared]
    return [
        arm.space.complete({**own, **{name: value for name, value in point.items() if name in shared}})
        for point, own in zip(points, spread(overridden, len(points)), strict=True)
    ]


def from_definition(name: str, definition: Mapping[str, Any], sources: Path = _HERE) -> Arm:
    """An arm of an earlier run, from its definition in the lock; `sources` is the folder that keeps users' policies."""
    parameters = [
        parameter_of(key, spec, f"arms.{name}.{key}") for key, spec in definition.items() if key not in _NO_PARAMETER
    ]
    space, until = Space(tuple(parameters)), _read_until(definition.get(UNTIL, "none"))
    questions = questions_in(definition, f"arms.{name}")
    if definition["policy"] == STAGES:
        stages = tuple(_kept(name, stage, sources) for stage in definition["stages"])
        return Arm(name, STAGES, space, definition, stages, until, questions)
    return Arm(name, _kept(name, definition, sources), space, definition, until=until, questions=questions)


def _kept(name: str, of: Mapping[str, Any], sources: Path) -> str:
    """The policy of an earlier arm or stage; for a user's, the reference to the copy that an earlier run kept.

    Raises InputError if there is none, or if it is not the source that the definition has the digest of: then it must not
    run.
    """
    written, source = str(of["policy"]), str(of.get("source"))
    if not user_code.is_reference(written):
        return written
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
    if not is_momentum_given(study):
        specs["momentum"] = max(own_momenta(specs["optimizer"]))
    return {name: spec for name, spec in specs.items() if not is_left_out(name, spec)}


def origin(study: StudyFile, arm: str, parameter: str) -> str:
    """The field of the study file that gives a parameter of an arm: ``common.lr``, ``arms.clr.lr``, ``arms.two.stages[0].lr``."""
    is_common = parameter in common_definition(study) and parameter not in study.arms.get(arm, {})
    return f"common.{parameter}" if is_common else f"arms.{arm}.{place(parameter)}"


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

    def of_values(configuration: Configuration) -> list[Fault]:
        of_policy = checked(_ANY_POLICY, {p: value for p, value in configuration.items() if p in names})[1]
        return [*of_policy, *recipe_faults(configuration)]

    return faults + [fault.within("common") for fault in _value_faults(space, of_values)]


def _arm(name: str, body: Mapping[str, Any], shared: Shared) -> Arm:
    """An arm from its `body` in the study file and what all arms share. Raises InputError with every fault."""
    where = f"arms.{name}"
    if "stages" in body:
        staged = unfolded(where, name, body, shared)
        policy, stages, of, specs = STAGES, staged.policies, dict(staged.definition), dict(staged.specs)
        faults, given = list[Fault](), given_names(body)
    else:
        one = named(where, name, body, shared.base)
        specs, faults = merged(where, one.policy, body, shared, (UNTIL,))
        specs = {key: spec for key, spec in specs.items() if not is_left_out(key, spec)}
        policy, stages, of, given = one.policy, (), dict(one.definition), set(body)
    space, questions = _space(where, specs, faults), questions_in(specs, where)
    asked = {key: question.model_dump() for key, question in questions.items()}  # written out: a default may change
    arm = Arm(name, policy, space, {**of, **specs, **asked}, stages, questions=questions)
    faults = [*_never_existing(space, given), *_value_faults(space, arm.faults)]
    if faults:
        raise InputError([in_stage(fault).within(where) for fault in faults])
    return arm


def _until(name: str, body: Mapping[str, Any], study: StudyFile) -> tuple[Until | None, dict[str, Any]]:
    """What ends the trials of an arm early, and the rest of its `body`. Raises InputError."""
    if UNTIL not in body:
        return _read_until(study.budget.until), dict(body)
    own = until_config.checked(body[UNTIL], f"arms.{name}.{UNTIL}", shown(body[UNTIL]))
    return _read_until(own), {key: value for key, value in body.items() if key != UNTIL}


def _read_until(value: Any) -> Until | None:
    """What a study file's `until` means, once it is checked."""
    return None if value == "none" else Until(*next(iter(value.items())))


def _defined(until: Until | None) -> dict[str, Any]:
    """What an arm's definition says of `until`."""
    return {} if until is None else {UNTIL: {until.metric: until.value}}


def _space(where: str, specs: Mapping[str, Any], faults: Sequence[Fault]) -> Space:
    """The space of an arm at `where`. Raises InputError with its faults and the `faults` that are known before."""
    parameters: list[Parameter] = []
    unreadable: list[Fault] = []
    for name, spec in specs.items():
        try:
            parameters.append(parameter_of(name, spec, f"{where}.{place(name)}"))
        except InputError as error:
            unreadable += error.faults
    if faults or unreadable:
        raise InputError([*faults, *unreadable])
    try:
        return Space(tuple(parameters))
    except InputError as error:
        raise InputError([in_stage(fault).within(where) for fault in error.faults]) from None


def _never_existing(space: Space, given: Container[str]) -> Iterator[Fault]:
    """The parameters that the study file gives to an arm, but whose `when` can never hold."""
    for parameter in space.parameters:
        if parameter.name in given and space.requirements(parameter.name) is None:
            problem = f"{_conditions(space, parameter)}, so {parameter.name} never exists"
            yield Fault(f"{parameter.name}.when", problem)


def _conditions(space: Space, parameter: Parameter) -> str:
    """What the `when` of `parameter` asks for and what is possible, in words for a fault."""
    return " and ".join(
        f"{other} must be {wanted!r} but is one of {list(space[other].values)}"
        for other, wanted in parameter.when.items()
    )


def _value_faults(space: Space, check: Callable[[Configuration], Sequence[Fault]]) -> list[Fault]:
    """The faults that `check` finds in a space, one for all values that break the same rule."""
    by_rule: dict[Fault, list[Fault]] = {}
    for configuration in one_at_a_time(space):
        for fault in check(configuration):
            by_rule.setdefault(replace(fault, got="", name=None), []).append(fault)
    return [
        replace(faults[0], got=", ".join(dict.fromkeys(fault.got for fault in faults))) for faults in by_rule.values()
    ]
