"""The catalogue: every built-in policy by name, torch's schedulers, and the policies that users write.

A family is one module in families/ and one YAML file per policy in search_spaces/; nothing has to be registered. The
classes are also attributes of this package, spelt as the class is or in capitals: `lrstudy.policies.Sgdr`,
`lrstudy.policies.SGDR`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib import import_module
from inspect import getmembers, isclass
from pkgutil import iter_modules
from types import MappingProxyType

from lrstudy.annotations import Rule
from lrstudy.errors import Fault, InputError, unknown
from lrstudy.policies import families
from lrstudy.policies.base import Policy, RatePolicy, parameter_names
from lrstudy.policies.durations import Duration
from lrstudy.policies.parameters import checked, expected
from lrstudy.policies.run import History, Run
from lrstudy.settings import Settings
from lrstudy.user_code import is_reference

__all__ = [
    "Duration", "History", "Policy", "RatePolicy", "Rule", "Run", "Settings", "build", "registry", "resolve",
]  # fmt: skip

TORCH = "torch:"
"""The prefix of the names of torch's schedulers."""


@cache
def registry() -> Mapping[str, type[Policy]]:
    """All built-in policies by name, sorted: the subclasses of Policy in families/ that define a `name`."""
    policies: dict[str, type[Policy]] = {}
    for info in iter_modules(families.__path__, f"{families.__name__}."):
        for _, policy in getmembers(import_module(info.name), isclass):
            if issubclass(policy, Policy) and policy.__module__ == info.name and "name" in vars(policy):
                assert policy.name not in policies, f"two policies are called {policy.name}"
                policies[policy.name] = policy
    return MappingProxyType(dict(sorted(policies.items())))


def resolve(name: str) -> type[Policy]:
    """The class of a policy: a built-in one, ``torch:NAME``, or a reference to a user's file with an absolute path.

    Imports torch for its schedulers, and the user's file for a reference. Raises InputError if the name is unknown or
    the user's file does not define a usable policy.
    """
    policies = registry()
    if name in policies:
        return policies[name]
    if name.startswith(TORCH):
        from lrstudy.policies.torch_schedulers import policy_of_scheduler

        return policy_of_scheduler(name.removeprefix(TORCH))
    if is_reference(name):
        from lrstudy.policies.user_policies import policy_of

        return policy_of(name)
    raise InputError(unknown("policy", "policy", name, policies))


def build(name: str, parameters: Mapping[str, object]) -> Policy:
    """The policy `name`, in the forms that `resolve` takes, with these values. Parameters left out have their defaults.

    Raises InputError with all faults, each beginning with its parameter's name: unknown names (with the nearest valid
    ones), missing parameters, and values of the wrong type or out of range.
    """
    return build_from(resolve(name), parameters)


def build_from(policy: type[Policy], parameters: Mapping[str, object]) -> Policy:
    """The same as `build`, given the class of the policy instead of its name."""
    names = parameter_names(policy)
    problem = f"{policy.name} has no such parameter"
    faults = [Fault(name, problem, valid=names, name=name) for name in parameters if name not in names]
    faults += [
        Fault(f.name, expected=expected(policy, f.name), got="nothing")
        for f in fields(policy)
        if f.name not in parameters and f.default is MISSING and f.default_factory is MISSING
    ]
    values, unfitting = checked(policy, {p: value for p, value in parameters.items() if p in names})
    if faults or unfitting:
        raise InputError([*faults, *unfitting])
    return policy(**values)


def __getattr__(name: str) -> type[Policy]:
    """The class of a built-in policy, by the name of the class or of the policy in any mix of capitals."""
    if name[:1].isupper():
        for policy in registry().values():
            if name.upper() in (policy.__name__.upper(), policy.name.upper()):
                return policy
        classes = ", ".join(policy.__name__ for policy in registry().values())
        raise AttributeError(f"there is no policy {name}; valid: {classes}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(policy.__name__ for policy in registry().values())]
