"""The catalogue: every policy of this package by name.

A family is one module here and one YAML per policy in search_spaces/; nothing has to be registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib import import_module
from inspect import getmembers, isclass
from pkgutil import iter_modules
from types import MappingProxyType

from lrstudy.faults import InputError, choices, unknown
from lrstudy.policies.base import Policy, checked, expected, parameter_names


@cache
def registry() -> Mapping[str, type[Policy]]:
    """All policies by name, sorted: the Policy subclasses with a `name` in the package's modules."""
    found: dict[str, type[Policy]] = {}
    for info in iter_modules(__path__, f"{__name__}."):
        for _, policy in getmembers(import_module(info.name), isclass):
            if issubclass(policy, Policy) and policy.__module__ == info.name and "name" in vars(policy):
                assert policy.name not in found, f"two policies are called {policy.name}"
                found[policy.name] = policy
    return MappingProxyType(dict(sorted(found.items())))


def build(name: str, parameters: Mapping[str, object]) -> Policy:
    """The policy `name` with these values; parameters left out take their defaults.

    Raises InputError with every fault at once, each led by its parameter's name: unknown names (with the
    nearest valid ones), missing ones, and values of the wrong type or out of range.
    """
    policies = registry()
    if name not in policies:
        raise InputError(unknown("policy", "policy", name, policies))
    policy = policies[name]
    names = parameter_names(policy)
    faults = [f"{p}: {name} has no such parameter. {choices(names, p)}" for p in parameters if p not in names]
    faults += [
        f"{f.name}: expected {expected(policy, f.name)}; got nothing"
        for f in fields(policy)
        if f.name not in parameters and f.default is MISSING and f.default_factory is MISSING
    ]
    values, unfit = checked(policy, {p: value for p, value in parameters.items() if p in names})
    if faults or unfit:
        raise InputError([*faults, *unfit])
    return policy(**values)
