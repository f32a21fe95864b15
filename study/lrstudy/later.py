"""What the design has and this version does not: refused with a clear 'not yet', never silently ignored."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lrstudy.faults import not_yet

_Test = Callable[[Any], bool]

_PRESENT: _Test = lambda value: value is not None  # noqa: E731
_LATER: tuple[tuple[str, _Test, str, str], ...] = (
    ("workloads", _PRESENT, "a map of workloads", "Write one study per workload; they share the memo."),
    ("workload.data", lambda v: _source(v) in ("csv", "npz"), "this kind of source", "Use digits, folder: or parquet:."),
    ("workload.data", lambda v: _source(v).startswith("./"), "a data function of your own", "Use digits, folder: or parquet:."),
    ("workload.data.group", _PRESENT, "grouping of examples", "Leave it out, or split by group beforehand into test."),
    ("workload.data.root", _PRESENT, "a root for image paths", "Use folder: or parquet:."),
    ("workload.split.by", lambda v: v == "group", "splitting by group", "Use stratified or random, or a given test part."),
    ("workload.split.test", lambda v: isinstance(v, dict), "a split column", "Use a fraction, a count or given."),
    ("workload.split.validation", lambda v: isinstance(v, dict), "a split column", "Use a fraction, a count or given."),
    ("workload.augment", lambda v: isinstance(v, list) or _is_own(v), "augmentation of your own", "Use none, flip or crop_flip."),
    ("workload.model", lambda v: _is_own(v) or str(v).startswith("timm:"), "a model from there", "Use small_cnn, lenet or a torchvision name."),
    ("workload.weights", lambda v: v not in (None, "random"), "pretrained weights", "Use random."),
    ("workload.task.kind", lambda v: v in ("binary", "multilabel"), "this task", "Use multiclass."),
    ("workload.task.class_weights", lambda v: v not in (None, "none"), "weighting of classes", "Use none, and metric: balanced_accuracy."),
    ("workload.task.label", _PRESENT, "choosing one label of many", "Use a source with one label per image."),
    ("metric", lambda v: v in ("auroc", "average_precision", "f1", "exact_match"), "this metric", "Use accuracy or balanced_accuracy."),
    ("select", lambda v: v == "last_cycle", "selection at cycle ends", "Use final or best."),
    ("common.optimizer", lambda v: v in ("adam", "adamw", "rmsprop") or isinstance(v, dict), "this optimizer", "Use sgd."),
    ("search.method", lambda v: "optuna" in (v if isinstance(v, list) else [v]), "the Optuna searcher", "Use random, grid, hyperopt or smac."),
    ("early_stopping", lambda v: v not in (None, "none"), "early stopping", "Use none: every trial trains the whole budget."),
    ("limits.money", _PRESENT, "a limit in money", "Use limits.gpu_hours."),
)  # fmt: skip


def refuse_later(raw: dict[str, Any]) -> list[str]:
    """One fault for every part of a raw study file that belongs to a later version."""
    faults = []
    for path, applies, what, instead in _LATER:
        node: Any = raw
        for key in path.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        if node is not None and applies(node):
            shown = "" if isinstance(node, dict) else f" ({node!r})"
            faults.append(str(not_yet(path, what + shown, instead)))
    for name, arm in (raw.get("arms") or {}).items() if isinstance(raw.get("arms"), dict) else ():
        policy = str((arm or {}).get("policy", name)) if isinstance(arm, dict) or arm is None else ""
        if _is_own(policy) or policy.startswith("torch:"):
            faults.append(str(not_yet(f"arms.{name}.policy", f"a policy from {policy!r}", "Use a built-in policy.")))
    return faults


def _source(value: Any) -> str:
    text = str(value.get("source", "") if isinstance(value, dict) else value)
    return text if text.startswith("./") else text.partition(":")[0]


def _is_own(value: Any) -> bool:
    return isinstance(value, str) and bool(re.match(r"\.{0,2}/?[\w./-]+\.py:\w+$", value))
