"""What a study file says of an arm or a stage: its policy, and the spec of each parameter, merged with the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrstudy import policies, user_code
from lrstudy.config import StudyFile
from lrstudy.config.common import COMMON, INITIAL, default_momentum
from lrstudy.config.sections import shown
from lrstudy.errors import Fault, InputError, unknown
from lrstudy.models.catalogue import has_batchnorm
from lrstudy.policies import registry
from lrstudy.policies.base import parameter_names
from lrstudy.policies.spaces import default_space
from lrstudy.search.parameter import parse_parameter

_TWO_STAGE = (
    "Training the head first and then the whole network is written `sgdr_dlr: {stages: two}`, or in full as a list: "
    "stages: [{train: head, epochs: 30%, policy: sgdr}, {train: all, policy: sgdr_dlr}]."
)


@dataclass(frozen=True)
class Shared:
    """What the arms of a study share.

    Attributes:
        common: The specs of the common parameters.
        is_momentum_given: Whether the study file gives the momentum among them.
        model: The study's model, which may have BatchNorm or not.
        base: The folder that references to users' policies are relative to.
    """

    common: Mapping[str, Any]
    is_momentum_given: bool
    model: str
    base: Path


@dataclass(frozen=True)
class Named:
    """A policy as the study file writes it, in the form of `Arm.policy`, and the digest of its source if it is a user's."""

    written: str
    policy: str
    source: str | None

    @property
    def definition(self) -> dict[str, str]:
        """What the definition of an arm says of it."""
        return {"policy": self.written} | ({} if self.source is None else {"source": self.source})


def is_momentum_given(study: StudyFile) -> bool:
    """Whether the study file says what the common momentum is."""
    common: Any = study.common  # a model that is made from COMMON, which mypy cannot follow
    return "momentum" in common.model_fields_set


def named(where: str, name: str, body: Mapping[str, Any], base: Path) -> Named:
    """The policy that an arm or a stage names, else the one that the arm is called after. Raises InputError."""
    written = _policy(where, name, body)
    try:
        policy = user_code.resolve(written, base) if user_code.is_reference(written) else written
        policies.resolve(policy)
        return Named(written, policy, user_code.digest(policy) if user_code.is_reference(policy) else None)
    except InputError as error:
        raise error.within(where) from None


def merged(
    where: str, policy: str, body: Mapping[str, Any], shared: Shared, others: Sequence[str] = ()
) -> tuple[dict[str, Any], list[Fault]]:
    """The specs of all parameters of a policy: its default space, then the common ones, then the `body` of an arm or stage.

    They have one order, whatever that of the study file. Common ones that are left at their defaults are left out, unless
    the body has them. Returns the faults besides: keys that are neither parameters nor among the `others`, and a momentum
    that cannot be decided.
    """
    parameters = [
        key for key in dict.fromkeys([*COMMON, *parameter_names(policies.resolve(policy))]) if key not in others
    ]
    valid = (*parameters, "policy", *others)
    faults = [Fault(f"{where}.{key}", "unknown key", valid=valid, name=key) for key in body if key not in valid]
    specs = {**_defaults(policy, body, shared.model), **shared.common, **body}
    if "optimizer" in body and "momentum" not in body:
        try:
            specs["momentum"] = momentum_of(where, body["optimizer"], shared)
        except InputError as error:
            faults += error.faults
    return {key: specs[key] for key in parameters if key in specs}, faults


def _policy(where: str, name: str, body: Mapping[str, Any]) -> str:
    """The policy that an arm names, else the one that the arm is called after. Raises InputError if it is unknown."""
    policy, built_in = body.get("policy", name), registry()
    if not isinstance(policy, str):
        valid = tuple(built_in)
        raise InputError(Fault(f"{where}.policy", expected="the name of a policy", got=shown(policy), valid=valid))
    if policy in built_in or user_code.is_reference(policy) or policy.startswith("torch:"):
        return policy
    if policy == "two_stage":
        place = f"{where}.policy" if "policy" in body else where
        raise InputError(Fault(place, "there is no policy 'two_stage'", advice=_TWO_STAGE))
    if "policy" in body:
        raise InputError(unknown(f"{where}.policy", "policy", policy, built_in))
    advice = "An arm that is not called after its policy names it, as policy: NAME."
    raise InputError(replace(unknown(where, "policy", policy, built_in), advice=advice))


def _defaults(policy: str, body: Mapping[str, Any], model: str) -> dict[str, object]:
    """The default space of a policy; ghost batches where its batch grows, unless the model is known to have no BatchNorm."""
    space = default_space(policy) if policy in registry() else {}
    if body.get("batch_milestones"):
        space["norm_batch"] = INITIAL
    if has_batchnorm(model) is False:
        space.pop("norm_batch", None)
    return space


def optimizer_of(common: Mapping[str, Any]) -> object:
    """The common optimizer or its space."""
    return common.get("optimizer", COMMON["optimizer"].default)


def momentum_of(where: str, optimizer: object, shared: Shared) -> Any:
    """The momentum of an arm or stage that has an optimizer of its own and no momentum: the common one, or the optimizer's own.

    A momentum that was not given, or was given for other optimizers than RMSprop, is not handed to an RMSprop. Raises
    InputError if the arm searches optimizers that have different ones.
    """
    own = own_momenta(optimizer)
    of_common = own_momenta(optimizer_of(shared.common))
    if shared.is_momentum_given and (own <= of_common or 0.0 not in own):
        return shared.common["momentum"]
    return own_momentum(where, optimizer)


def own_momentum(where: str, optimizer: object) -> float:
    """The momentum of an optimizer for which none was given. Raises InputError if a space has some that differ in it."""
    momenta = own_momenta(optimizer)
    if len(momenta) > 1:
        expected = "one, or one for each with `when`, as RMSprop has 0 by default and the others 0.9"
        raise InputError(Fault(f"{where}.momentum", expected=expected, got="nothing beside a choice of both"))
    return momenta.pop()


def own_momenta(optimizer: object) -> set[float]:
    """The default momenta of an optimizer or of those that a space has. One that cannot be read is a fault elsewhere."""
    try:
        names = parse_parameter("optimizer", optimizer, "optimizer").values
    except InputError:
        names = ()
    return {default_momentum(name) for name in names or (None,)}
