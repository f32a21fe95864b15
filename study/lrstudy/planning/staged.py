"""Arms that train in stages, as one flat search space: the parameter `t0` of the first stage is called `stage1_t0`.

A common parameter that a stage does not give is the arm's own, under its own name. So its values are those of the other
arms in the cohort, and what the arms train alike has one name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lrstudy.config.common import COMMON, is_left_out
from lrstudy.config.sections import shown
from lrstudy.errors import Fault, InputError, faults_of
from lrstudy.planning.specs import Named, Shared, merged, momentum_of, named
from lrstudy.policies.stages import STAGE_KEYS, STAGES
from lrstudy.search.parameter import Configuration

_OF_STAGE = re.compile(r"^stage([1-9]\d*)_")
_TWO: tuple[Mapping[str, Any], ...] = (
    {"train": "head", "epochs": "30%", "policy": "sgdr", "t0": "100/3%", "t_mult": 1, "min_ratio": 0},
    {"train": "all", "policy": "sgdr_dlr", "t0": "100/7%", "t_mult": 2},
)
"""The form of fastai's lessons, which Mishra, Yamasaki and Imaizumi 2019 follow: three cycles of the head, then cycles of 1, 2 and 4."""
_EXPECTED = "a list of stages, each a map with train, policy, and what they take"
_ADVICE = "What belongs to a policy stands in its stage."


@dataclass(frozen=True)
class Staged:
    """An arm in stages: their policies, what its definition says of these, and the specs of all parameters by flat names."""

    policies: tuple[str, ...]
    definition: Mapping[str, Any]
    specs: Mapping[str, Any]


def unfolded(where: str, name: str, body: Mapping[str, Any], shared: Shared) -> Staged:
    """The stages of the arm `name`. Raises InputError with every fault."""
    stages = _stages(where, name, body)
    valid = (*COMMON, "stages")
    faults = [
        Fault(f"{where}.{key}", "unknown key beside `stages`", valid=valid, name=key, advice=_ADVICE)
        for key in body
        if key not in (*valid, "policy")
    ]
    level = {**shared.common, **{key: body[key] for key in COMMON if key in body}}
    if "optimizer" in body and "momentum" not in body:
        faults += faults_of(lambda: level.update(momentum=momentum_of(where, body["optimizer"], shared)))
    of_arm = replace(shared, common=level, is_momentum_given=shared.is_momentum_given or "momentum" in body)
    unfolding = [_Unfolding(f"{where}.stages[{k - 1}]", k, stage, of_arm) for k, stage in enumerate(stages, 1)]
    faults += [fault for one in unfolding for fault in one.faults]
    if faults:
        raise InputError(faults)
    inherited = [key for key in COMMON if any(key not in one.own for one in unfolding)]
    specs = {key: level[key] for key in inherited if key in level and not is_left_out(key, level[key])}
    of_stages = {key: spec for one in unfolding for key, spec in one.flat().items()}
    policies = [one.named for one in unfolding if one.named is not None]
    definition = {"policy": STAGES, "stages": [policy.definition for policy in policies]}
    return Staged(tuple(policy.policy for policy in policies), definition, {**specs, **of_stages})


def given_names(body: Mapping[str, Any]) -> set[str]:
    """The flat names of the parameters that the study file gives to an arm."""
    stages = body.get("stages")
    inside = enumerate(stages, 1) if isinstance(stages, list) else ()
    return {*body, *(f"stage{k}_{key}" for k, stage in inside for key in stage)}


def base_name(name: str) -> str:
    """What a parameter is called within its stage."""
    return _OF_STAGE.sub("", name)


def place(name: str) -> str:
    """Where the study file has a parameter of an arm: ``stages[0].t0`` for ``stage1_t0``."""
    return _OF_STAGE.sub(lambda match: f"stages[{int(match[1]) - 1}].", name)


def in_stage(fault: Fault) -> Fault:
    """A fault with its place as the study file has it."""
    return replace(fault, where=place(fault.where))


def of_stage(configuration: Configuration, number: int) -> Configuration:
    """The part of a configuration that a stage, counted from 1, is trained with, under the names that a stage has."""
    prefix = f"stage{number}_"
    own = {key.removeprefix(prefix): value for key, value in configuration.items() if key.startswith(prefix)}
    return {key: value for key, value in configuration.items() if key in COMMON} | own


def _stages(where: str, name: str, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The stages as maps. Raises InputError if they are none, or if the arm names a policy beside them."""
    stages = body["stages"]
    if stages == "two":
        policy = body.get("policy", name)
        if policy != "sgdr_dlr":
            expected = "two only with the policy sgdr_dlr, or a list of stages"
            raise InputError(Fault(f"{where}.stages", expected=expected, got=f"two with {shown(policy)}"))
        return _TWO
    if "policy" in body:
        raise InputError(Fault(f"{where}.policy", expected="a policy in every stage, and none beside `stages`"))
    if not isinstance(stages, list) or not stages:
        raise InputError(Fault(f"{where}.stages", expected=f"{_EXPECTED}, or two (with sgdr_dlr)", got=shown(stages)))
    faults = [
        Fault(f"{where}.stages[{k}]", expected="a map with train, policy, and what they take", got=shown(stage))
        for k, stage in enumerate(stages)
        if not isinstance(stage, Mapping)
    ]
    if faults:
        raise InputError(faults)
    return stages


class _Unfolding:
    """One stage: its policy, the specs of its parameters, which of the common ones are its `own`, and its faults."""

    def __init__(self, where: str, number: int, body: Mapping[str, Any], shared: Shared) -> None:
        self.number = number
        self.named: Named | None = None
        self.specs: dict[str, Any] = {}
        self.faults: list[Fault] = []
        try:
            self._read(where, body, shared)
        except InputError as error:
            self.faults += error.faults
        self.own = {key for key in self.specs if key not in COMMON or key in body or key not in shared.common}
        self.own |= {key for key in self.specs if key not in self.own and self.specs[key] is not shared.common[key]}

    def _read(self, where: str, body: Mapping[str, Any], shared: Shared) -> None:
        """Read the stage. Raises InputError if it has no policy."""
        keys = STAGE_KEYS if self.number > 1 else tuple(key for key in STAGE_KEYS if key != "reset_optimizer")
        if "train" not in body:
            self.faults.append(Fault(f"{where}.train", expected="head, upper or all", got="nothing"))
        if "policy" not in body:
            has = f"nothing beside {', '.join(map(str, body))}" if body else "nothing"
            raise InputError(Fault(f"{where}.policy", expected="the name of a policy", got=has))
        self.named = named(where, "", body, shared.base)
        specs, faults = merged(where, self.named.policy, body, shared, keys)
        self.faults += faults
        self.specs = {key: body[key] for key in keys if key in body} | specs

    def flat(self) -> dict[str, Any]:
        """The specs of what is the stage's own, by flat names; a `when` names the stage's own parameters."""
        return {f"stage{self.number}_{key}": self._flat(self.specs[key]) for key in self.specs if key in self.own}

    def _flat(self, spec: Any) -> Any:
        if not isinstance(spec, Mapping) or not isinstance(spec.get("when"), Mapping):
            return spec
        when = {f"stage{self.number}_{key}" if key in self.own else key: value for key, value in spec["when"].items()}
        return {**spec, "when": when}
