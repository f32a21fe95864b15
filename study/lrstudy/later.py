"""What the design has and this version does not: refused with a clear 'not yet', never silently ignored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from lrstudy.faults import not_yet

_SOURCES = "Use digits, folder:PATH or parquet:PATH."
_PARTS = "Use a fraction, a count or given."
_POLICIES = "Use a built-in policy: constant, step, batch_increase, clr, sgdr or sgdr_dlr."
_METRICS = ("auroc", "average_precision", "f1", "exact_match")
_OPTIMIZERS = ("adam", "adamw", "rmsprop", "lars", "lamb", "schedule_free")
_DATA_SETS = ("cifar10", "cifar100", "mnist", "fashionmnist", "kmnist", "qmnist", "emnist", "svhn", "stl10", "eurosat")


@dataclass(frozen=True)
class _Later:
    """A part of the study file that is refused where `applies`; of a list that does not, each such item."""

    path: str
    applies: Callable[[Any], bool]
    what: str
    instead: str


def _given(value: Any) -> bool:
    return value is not None


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


def _begins(*prefixes: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value.startswith(prefixes)


def _is_later_source(value: Any) -> bool:
    return isinstance(value, str) and (value.partition(":")[0] in ("csv", "npz") or value.lower() in _DATA_SETS)


_LATER = (
    _Later("workloads", _given, "a map of workloads", "Write one study per workload; they share the memo."),
    _Later("workload.data", _is_later_source, "this source", _SOURCES),
    _Later("workload.data.source", _is_later_source, "this source", _SOURCES),
    _Later("workload.data.group", _given, "grouping of examples", "Divide by group beforehand, with split.test: given."),
    _Later("workload.data.root", _given, "a root for the paths of images", "Use folder:PATH or parquet:PATH."),
    _Later("workload.split.by", _one_of("group"), "splitting by group", "Use stratified, or a given test part."),
    _Later("workload.split.test", _is_map, "a column that splits", _PARTS),
    _Later("workload.split.validation", _is_map, "a column that splits", _PARTS),
    _Later("workload.augment", lambda v: isinstance(v, list), "a list of transforms", "Use none, flip or crop_flip."),
    _Later("workload.model", _begins("timm:"), "this model", "Use small_cnn, lenet or a torchvision name."),
    _Later("workload.weights", lambda v: isinstance(v, str) and v != "random", "this kind of weights", "Use random."),
    _Later("workload.task.kind", _one_of("binary", "multilabel"), "this task", "Use multiclass."),
    _Later("workload.task.class_weights", lambda v: _is_map(v) or v == "balanced", "weighting of classes",
           "Use none, and metric: balanced_accuracy."),
    _Later("workload.task.label", _given, "choosing one label of many", "Use a source with one label per image."),
    _Later("metric", _one_of(*_METRICS), "this metric", "Use accuracy or balanced_accuracy."),
    _Later("report_metrics", _one_of(*_METRICS), "this metric", "Use accuracy or balanced_accuracy."),
    _Later("select", _one_of("last_cycle"), "selection at the ends of cycles", "Use final or best."),
    _Later("common.optimizer", lambda v: _is_map(v) or v in _OPTIMIZERS, "this optimizer", "Use sgd."),
    _Later("search.method", _one_of("optuna"), "this searcher", "Use random, grid, hyperopt or smac."),
    _Later("early_stopping", lambda v: _is_map(v) or v in ("asha", "hyperband", "median"), "early stopping",
           "Use none: every trial trains the whole budget."),
    _Later("limits.money", _given, "a limit in money", "Use limits.gpu_hours or limits.wall."),
    _Later("storage.path", _begins("s3://", "gs://", "az://"), "object storage", "Use a folder."),
)  # fmt: skip

POLICIES = (
    "plateau", "plateau_lr", "batch_plateau", "adabatch", "batch_hybrid", "exponential", "linear", "cosine",
    "warmup_cosine", "one_cycle", "onecycle", "wsd", "two_stage", "clr_staged",
)  # fmt: skip
"""Policies that the catalogue will have."""

_PARAMETERS: tuple[tuple[str, str, Callable[[Any], bool], str, str], ...] = (
    ("clr", "mode", lambda spec: "exp_range" in _leaves(spec), "exp_range", "Use triangular or triangular2."),
    ("clr", "gamma", _given, "gamma, which mode exp_range needs,", "Use mode: triangular2."),
)

_OWN = re.compile(r".+\.py:\w+")


def refuse_later(raw: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """One fault for every part of a raw study file that belongs to a later version, and the study without them."""
    raw = deepcopy(raw)
    faults = _refuse_arms(raw)
    for later in _LATER:
        *above, last = later.path.split(".")
        node: Any = raw
        for key in above:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict) and last in node:
            faults += _refuse(later, node, last)
    return [*faults, *_refuse_own_code(raw, "")], raw


def _refuse(later: _Later, node: dict[str, Any], key: str) -> list[str]:
    """Remove `node[key]`, or those of its items that belong to a later version."""
    value = node[key]
    if later.applies(value):
        del node[key]
        if key == "source":
            node[key] = "digits"  # without one its map would be at fault
        shown = "" if isinstance(value, (dict, list)) else f" ({value!r})"
        return [_text(later.path, later.what + shown, later.instead)]
    if not isinstance(value, list):
        return []
    refused = [item for item in value if later.applies(item)]
    if refused:
        node[key] = [item for item in value if item not in refused]
        if not node[key]:
            del node[key]
    return [_text(later.path, f"{later.what} ({item!r})", later.instead) for item in refused]


def _refuse_arms(raw: dict[str, Any]) -> list[str]:
    """Arms whose policy comes later give way to `constant`, so that what else names them stays right."""
    arms = raw.get("arms")
    if isinstance(arms, list) and arms and all(isinstance(name, str) for name in arms) and len(set(arms)) == len(arms):
        arms = raw["arms"] = dict.fromkeys(arms)
    if not isinstance(arms, dict):
        return []
    faults = []
    for name, body in arms.items():
        own = body if isinstance(body, dict) else {}
        policy = own.get("policy", name)
        if isinstance(policy, str) and _is_later_policy(policy):
            where = f"arms.{name}.policy" if "policy" in own else f"arms.{name}"
            faults.append(_text(where, f"the policy {policy!r}", _POLICIES))
            arms[name] = {"policy": "constant"}
            continue
        for of_policy, parameter, applies, what, instead in _PARAMETERS:
            if policy == of_policy and parameter in own and applies(own[parameter]):
                faults.append(_text(f"arms.{name}.{parameter}", what, instead))
                del own[parameter]
        if "optimizer" in own:
            later = next(later for later in _LATER if later.path == "common.optimizer")
            faults += _refuse(replace(later, path=f"arms.{name}.optimizer"), own, "optimizer")
    return faults


def _refuse_own_code(node: Any, path: str) -> list[str]:
    """Remove every text such as ``./mine.py:name``, wherever it stands."""
    faults = []
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        where = f"{path}.{key}".lstrip(".") if isinstance(node, dict) else path
        if isinstance(value, (dict, list)):
            faults += _refuse_own_code(value, where)
        elif isinstance(value, str) and _OWN.fullmatch(value):
            instead = next((later.instead for later in _LATER if later.path == where), "Use what is built in.")
            faults.append(_text(where, f"code of your own ({value!r})", instead))
            if isinstance(node, dict):
                del node[key]
    if isinstance(node, list):
        node[:] = [item for item in node if not (isinstance(item, str) and _OWN.fullmatch(item))]
    return faults


def _is_later_policy(name: str) -> bool:
    return name in POLICIES or name.startswith("torch:") or bool(_OWN.fullmatch(name))


def _leaves(spec: Any) -> Iterator[Any]:
    """The values that a parameter's specification names."""
    if isinstance(spec, (dict, list)):
        for item in spec.values() if isinstance(spec, dict) else spec:
            yield from _leaves(item)
    else:
        yield spec


def _text(where: str, what: str, instead: str) -> str:
    return str(not_yet(where, what, instead))
