"""The study lock: what a study was when it ran, and what of it may change when it runs again.

Resources, limits, price and storage may change freely; more trials, seeds and arms extend. A changed arm
becomes `clr@2` and the old one is kept. Changed data, split, model, metric, selection or budget would
mix what cannot be compared: refused, with the way out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrstudy.arms import Arm, from_definition
from lrstudy.faults import InputError
from lrstudy.plan import Plan
from lrstudy.settings import canonical_json

FORMAT = 1


def read(folder: Path) -> dict[str, Any]:
    """The lock of an earlier run, or an empty map. Raises InputError if `folder` is somebody else's."""
    path = folder / "study.lock.json"
    if not path.exists():
        if folder.is_dir() and any(child.name not in ("driver.lock", "journal") for child in folder.iterdir()):
            raise InputError(
                f"storage.path: {folder} exists and is no study's folder (it has no study.lock.json). "
                "Choose another name with --as NAME, or another storage.path."
            )
        return {}
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Choose another name with --as NAME.") from None
    if not isinstance(lock, dict) or lock.get("lock_format") != FORMAT:
        raise InputError(
            f"{path}: expected lock format {FORMAT}; got {lock.get('lock_format') if isinstance(lock, dict) else lock!r}."
        )
    return lock


def reconcile(plan: Plan, lock: Mapping[str, Any], folder: Path) -> tuple[Plan, tuple[str, ...]]:
    """The plan with changed arms renamed and earlier arms kept; also notes for the user. Raises InputError."""
    if not lock:
        return plan, ()
    _refuse_changed_identity(plan, lock["identity"], folder)
    notes = []
    if lock["numerics"] != plan.workload.numerics:
        notes.append(
            "This machine or its settings compute differently from the last run: what was recorded there is not recalled."
        )
    known: dict[str, dict[str, Any]] = lock["arms"]
    arms: dict[str, Arm] = {}
    for name, arm in plan.arms.items():
        placed = _place(name, arm, known)
        if placed != name:
            notes.append(
                f"arms.{name} has changed since the last run: it goes on as {placed}, and what ran before is kept."
            )
        arms[placed] = replace(arm, name=placed)
    retired = {name: from_definition(name, known[name]["definition"]) for name in known if name not in arms}
    cohort = {placed: plan.cohort[name] for placed, name in zip(arms, plan.arms, strict=True)}
    return replace(plan, arms=arms | retired, cohort=cohort, retired=frozenset(retired)), tuple(notes)


def render(plan: Plan, overrides: Sequence[str], is_complete: bool, versions: Mapping[str, str]) -> str:
    """The text of study.lock.json."""
    study, workload = plan.study, plan.workload
    train, validation, test = workload.counts
    lock = {
        "lock_format": FORMAT,
        "name": study.name,
        "identity": identity(plan),
        "metric": study.metric,
        "mode": "max",
        "select": study.select,
        "budget_epochs": study.budget.epochs,
        "control": study.control,
        "margin": study.compare.margin,
        "target": study.target.model_dump(),
        "searchers": plan.methods,
        "arms": {
            name: {
                "policy": arm.policy,
                "parameters": [p.name for p in arm.space.searched],
                "definition": dict(arm.definition),
                "retired": name in plan.retired,
            }
            for name, arm in plan.arms.items()
        },
        "trials_per_arm": study.search.trials,
        "cohort": plan.cohort_size,
        "outstanding": plan.outstanding,
        "seeds": study.search.seeds,
        "confirm": study.confirm.model_dump(),
        "device_kind": workload.device,
        "unit": "GPU-hours" if workload.device == "cuda" else "CPU-core-hours",
        "price": price(plan),
        "data": {
            "source": workload.data.source,
            "classes": list(workload.classes),
            "train": train,
            "validation": validation,
            "test": test,
        },
        "model": plan.root(0).model,
        "numerics": workload.numerics,
        "overrides": list(overrides),
        "complete": is_complete,
        "versions": dict(versions),
    }
    return json.dumps(lock, indent=1, ensure_ascii=False)


def identity(plan: Plan) -> dict[str, Any]:
    """What must not change between runs of one study."""
    study, root = plan.study, plan.root(0)
    found = {
        "data": root.data,
        "split": root.split,
        "preprocessing": root.preprocessing,
        "model": root.model,
        "augment": study.workload.augment,
        "metric": study.metric,
        "select": study.select,
        "budget": study.budget.epochs,
    }
    return dict(json.loads(canonical_json(found)))


def price(plan: Plan) -> dict[str, Any] | None:
    """Money per device-hour, if the study states a price that fits its device."""
    given, workload = plan.study.price, plan.workload
    per_hour: float | None = given.cpu_core_hour
    if workload.device == "cuda":
        model = str(workload.numerics.get("device_model", ""))
        by_model = given.gpu_hour if isinstance(given.gpu_hour, dict) else {}
        flat = None if isinstance(given.gpu_hour, dict) else given.gpu_hour
        per_hour = next((value for name, value in by_model.items() if name.lower() in model.lower()), flat)
    return None if per_hour is None else {"device_hour": per_hour, "currency": given.currency}


def _refuse_changed_identity(plan: Plan, before: Mapping[str, Any], folder: Path) -> None:
    now = identity(plan)
    changed = [name for name in now if now[name] != before.get(name)]
    if changed:
        details = "; ".join(f"{name}: {_short(before.get(name))} before, {_short(now[name])} now" for name in changed)
        raise InputError(
            f"{folder} holds a study with other {' and '.join(changed)} ({details}). Results would not be comparable. "
            "Give this one a name of its own with --as NAME (training they share is still recalled), or restore the old value."
        )


def _place(name: str, arm: Arm, known: Mapping[str, Mapping[str, Any]]) -> str:
    """The name under which an arm runs: its own, or `name@k` if `name` was something else before."""
    definition, number, placed = canonical_json(dict(arm.definition)), 1, name
    while placed in known and canonical_json(known[placed]["definition"]) != definition:
        number += 1
        placed = f"{name}@{number}"
    return placed


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 48 else text[:45] + "..."
