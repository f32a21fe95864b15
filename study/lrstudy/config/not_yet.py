"""Parts of the design that this version does not have: they are refused as not available yet, never ignored."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from lrstudy.errors import Fault, not_yet

_OPTIMIZERS = ("lars", "lamb", "schedule_free")


@dataclass(frozen=True)
class _Later:
    """A part of the study file that is refused if `applies` holds for it; of a list, the items for which it holds."""

    path: str
    applies: Callable[[Any], bool]
    what: str
    instead: str


def _is_present(value: Any) -> bool:
    return value is not None


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


def _begins(*prefixes: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value.startswith(prefixes)


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and ".py:" in value


_LATER = (
    _Later("workload.task.loss", _is_reference, "a loss of your own", "Use workload.train_step, which computes the loss."),
    _Later("common.optimizer", _one_of(*_OPTIMIZERS), "this optimizer", "Use sgd, adam, adamw or rmsprop."),
    _Later("search.method", _is_reference, "a searcher of your own", "Use random, grid, hyperopt, smac or optuna."),
    _Later("early_stopping", lambda v: _is_map(v) or v in ("asha", "hyperband", "median"), "early stopping",
           "Use none: every trial trains the whole budget."),
    _Later("limits.money", _is_present, "a limit in money", "Use limits.gpu_hours or limits.wall."),
    _Later("storage.path", _begins("az://", "abfs://", "abfss://"), "Azure storage", "Use a folder, s3:// or gs://."),
)  # fmt: skip


def refuse_later(raw: dict[str, Any]) -> tuple[list[Fault], dict[str, Any]]:
    """A fault for every part of a raw study file that needs a later version, and a copy without these parts."""
    raw = deepcopy(raw)
    faults = _refuse_arms(raw)
    for later in _LATER:
        *above, last = later.path.split(".")
        node: Any = raw
        for key in above:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict) and last in node:
            faults += _refuse(later, node, last)
    return faults, raw


def _refuse(later: _Later, node: dict[str, Any], key: str) -> list[Fault]:
    """Remove `node[key]`, or those of its items that need a later version, and return the faults."""
    value = node[key]
    if later.applies(value):
        del node[key]
        shown = "" if isinstance(value, (dict, list)) else f" ({value!r})"
        return [_fault(later.path, later.what + shown, later.instead)]
    if not isinstance(value, list):
        return []
    refused = [item for item in value if later.applies(item)]
    if refused:
        node[key] = [item for item in value if item not in refused]
        if not node[key]:
            del node[key]
    return [_fault(later.path, f"{later.what} ({item!r})", later.instead) for item in refused]


def _refuse_arms(raw: dict[str, Any]) -> list[Fault]:
    """Leave out what of an arm needs a later version."""
    arms = raw.get("arms")
    if isinstance(arms, list) and arms and all(isinstance(name, str) for name in arms) and len(set(arms)) == len(arms):
        arms = raw["arms"] = dict.fromkeys(arms)
    if not isinstance(arms, dict):
        return []
    faults = []
    for name, body in arms.items():
        parameters = body if isinstance(body, dict) else {}
        if "optimizer" in parameters:
            later = next(later for later in _LATER if later.path == "common.optimizer")
            faults += _refuse(replace(later, path=f"arms.{name}.optimizer"), parameters, "optimizer")
    return faults


def _fault(where: str, what: str, instead: str) -> Fault:
    return not_yet(where, what, instead).faults[0]
