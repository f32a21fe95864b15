"""The targets by name."""

from __future__ import annotations

from importlib import import_module

from lrstudy.errors import InputError, unknown
from lrstudy_cluster.target import Target

_MODULES = {
    "local": "local",
    "slurm": "slurm",
    "kuberay": "kuberay",
    "skypilot": "skypilot",
    "aws": "aws",
    "onprem": "onprem",
    "job": "job",
}
"""The module of every target; it has the target as TARGETS[name]."""


def names() -> tuple[str, ...]:
    """The names of all targets."""
    return tuple(_MODULES)


def target(name: str) -> Target:
    """The target with this name; only its own module is imported. Raises InputError if there is none."""
    if name not in _MODULES:
        raise InputError(unknown("launch", "target", name, names()))
    found: Target = import_module(f"lrstudy_cluster.{_MODULES[name]}").TARGETS[name]
    return found
