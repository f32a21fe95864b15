"""What has to be reached on each workload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard

Goal = Literal["min", "max"]
MINIMISED = frozenset(["ce_loss", "error_rate", "ctc_loss", "wer", "l1_loss", "loss", "ppl"])
MAXIMISED = frozenset(
    ["accuracy", "balanced_accuracy", "bleu", "mean_average_precision", "ssim", "f1", "auroc", "average_precision", "exact_match"]
)  # fmt: skip
"""Metrics whose goal needs not be said: those of AlgoPerf and our own. Any other one's goal is asked for."""


@dataclass(frozen=True)
class Target:
    """The value of a metric that has to be reached, and within what.

    `max_cost` are the seconds or steps after which an evaluation no longer counts, as the file says them under
    `max_time_s` and `max_steps`.
    """

    metric: str
    value: float
    goal: Goal
    step_hint: int | None = None
    max_time_s: float | None = None
    max_steps: float | None = None


@dataclass(frozen=True)
class Targets:
    """The targets by workload, the workloads that count, and the variants that each must also solve."""

    by_workload: Mapping[str, Target]
    base: tuple[str, ...]
    held_out: tuple[str, ...] = ()

    def variants(self, base: str) -> list[str]:
        """The held-out workloads that are variants of a base workload, which their names begin with."""
        return [name for name in self.held_out if self.base_of(name) == base]

    def base_of(self, held_out: str) -> str:
        """The base workload with the longest name that the name of a held-out one begins with."""
        return max((name for name in self.base if held_out.startswith(f"{name}_")), key=len)


def read_targets(path: Path, goals: Mapping[str, Goal]) -> Targets:
    """The targets in a JSON file.

    The file has `base_workloads`, perhaps `held_out_workloads`, and `workloads`: a map from the name of each to
    `target_metric_name`, `validation_target_value`, and perhaps `goal` (min or max), `step_hint`, `max_time_s` and
    `max_steps`. Workloads in neither list do not count.

    Args:
        path: The file.
        goals: The goals of metrics of which the file does not say it.

    Returns:
        The targets of the workloads that count.

    Raises:
        ValueError: The file cannot be read or is not of this form, or a goal is not known.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    listed = raw.get("workloads") if isinstance(raw, dict) else None
    if not isinstance(listed, dict) or not isinstance(raw.get("base_workloads"), list) or not raw["base_workloads"]:
        raise ValueError(f"{path}: expected `workloads`, a map, and `base_workloads`, a list of names")
    base, held_out = tuple(map(str, raw["base_workloads"])), tuple(map(str, raw.get("held_out_workloads") or ()))
    if missing := [name for name in (*base, *held_out) if name not in listed]:
        raise ValueError(f"{path}: no target of {', '.join(missing)}; `workloads` has {', '.join(listed)}")
    targets = {name: _target(path, name, listed[name], goals) for name in (*base, *held_out)}
    if orphans := [name for name in held_out if not any(name.startswith(f"{b}_") for b in base)]:
        raise ValueError(
            f"{path}: {', '.join(orphans)} is no variant of a base workload; a held-out workload is called after its own, as "
            f"{base[0]}_variant"
        )
    return Targets(targets, base, held_out)


def relaxed(targets: Targets, part: float) -> Targets:
    """The targets, each easier by a `part` of its size. Raises ValueError unless the part lies in [0, 1)."""
    if not 0 <= part < 1:
        raise ValueError(f"expected a part in [0, 1) by which targets are relaxed; got {part}")
    easier = {
        name: replace(t, value=t.value + (1 if t.goal == "min" else -1) * part * abs(t.value))
        for name, t in targets.by_workload.items()
    }
    return replace(targets, by_workload=easier)


def _target(path: Path, workload: str, raw: Any, goals: Mapping[str, Goal]) -> Target:
    """One target. Raises ValueError."""
    where = f"{path}: workloads.{workload}"
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: expected a map; got {raw!r}")
    metric, value = raw.get("target_metric_name"), raw.get("validation_target_value")
    if not isinstance(metric, str) or not _is_number(value):
        raise ValueError(
            f"{where}: expected target_metric_name, a text, and validation_target_value, a number; got {raw}"
        )
    limits = {key: raw.get(key) for key in ("step_hint", "max_time_s", "max_steps")}
    if bad := [key for key, limit in limits.items() if limit is not None and not (_is_number(limit) and limit > 0)]:
        raise ValueError(f"{where}.{bad[0]}: expected a number above 0; got {limits[bad[0]]!r}")
    goal = (
        goals.get(metric)
        or raw.get("goal")
        or ("min" if metric in MINIMISED else "max" if metric in MAXIMISED else None)
    )
    if goal not in ("min", "max"):
        raise ValueError(
            f"{where}: is {metric} to be minimised or maximised? Say `goal: min` or `max` there, or --goal {metric}=min"
        )
    return Target(metric, float(value), goal, limits["step_hint"], limits["max_time_s"], limits["max_steps"])


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
