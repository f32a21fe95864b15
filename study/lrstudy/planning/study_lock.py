"""The study lock, study.lock.json: what a study was when it ran, and what may change when it runs again.

Resources, limits, price, storage and claims may change freely. More trials, seeds and arms extend the study. A changed arm
becomes `clr@2`, and the old one is kept. Changed data, split, model, metric, selection or budget are refused with advice,
because results would not be comparable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrstudy import user_code
from lrstudy.config import claims
from lrstudy.errors import Fault, InputError
from lrstudy.planning.arms import Arm, from_definition
from lrstudy.planning.caveats import caveats
from lrstudy.planning.plan import Plan
from lrstudy.policies.stages import STAGES
from lrstudy.settings import canonical_json
from lrstudy.workload.workload import Workload

FORMAT = 1
SOURCES = "source"
"""The folder in a study's folder that keeps the source of users' policies, so that a changed arm's old policy stays."""
_NEEDED = ("identity", "arms", "cohort", "outstanding", "seeds", "searchers", "numerics")
_SOURCE = re.compile(r"[0-9a-f]{32}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def _are_arms(value: Any) -> bool:
    """Whether these are arms with their definitions."""
    return isinstance(value, dict) and all(
        isinstance(arm, dict)
        and _names_policy(definition := arm.get("definition", {}))
        and isinstance(stages := definition.get("stages", []), list)
        and (bool(stages) == (definition["policy"] == STAGES))
        and all(map(_names_policy, stages))
        for arm in value.values()
    )


def _names_policy(value: Any) -> bool:
    """Whether an arm or a stage names its policy. A user's has the digest of its source, which names a folder."""
    if not (isinstance(value, dict) and isinstance(policy := value.get("policy"), str)):
        return False
    return bool(_SOURCE.fullmatch(str(value.get("source")))) == user_code.is_reference(policy)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "identity": lambda value: isinstance(value, dict),
    "numerics": lambda value: isinstance(value, dict),
    "arms": _are_arms,
    "cohort": _is_count,
    "outstanding": lambda value: _is_count(value) and value > 0,
    "search_seed": _is_count,
    "search_repeats": _is_count,
    "seeds": lambda value: isinstance(value, list) and all(map(_is_count, value)),
    "searchers": _are_texts,
    "complete": lambda value: isinstance(value, bool),
}
"""What the fields of a lock may hold. A storage that others write to may hold anything."""
_BEFORE = {"batchnorm": "running", "weights": "random"}
"""What a study was in respects that the lock of an earlier version does not name."""
_WAY_OUT = "Choose another name with --as NAME, or another storage.path."


def read(folder: Path) -> dict[str, Any]:
    """The lock of an earlier run, or an empty map if there was none.

    Raises InputError if `folder` is not a study's, or if the lock cannot be read.
    """
    path = folder / "study.lock.json"
    if not path.exists():
        if folder.is_dir() and any(not _is_begun_by_us(child.name) for child in folder.iterdir()):
            raise InputError(
                Fault(
                    "storage.path",
                    f"{folder} exists and is no study's folder (it has no study.lock.json)",
                    advice=_WAY_OUT,
                )
            )
        return {}
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(Fault("storage.path", f"{path} cannot be read ({error})", advice=_WAY_OUT)) from None
    lock_format = lock.get("lock_format") if isinstance(lock, dict) else None
    if lock_format != FORMAT:
        problem = f"{path} has lock format {lock_format!r}; expected {FORMAT}"
        raise InputError(Fault("storage.path", problem, advice=_WAY_OUT))
    if missing := [key for key in _NEEDED if key not in lock]:
        raise InputError(Fault("storage.path", f"{path} is incomplete (no {', '.join(missing)})", advice=_WAY_OUT))
    if wrong := [key for key, is_sound in _CHECKS.items() if key in lock and not is_sound(lock[key])]:
        problem = f"{path} holds what no run has written ({', '.join(wrong)})"
        raise InputError(Fault("storage.path", problem, advice=_WAY_OUT))
    return dict(lock)


def reconcile(plan: Plan, lock: Mapping[str, Any], folder: Path) -> tuple[Plan, tuple[str, ...]]:
    """Compare a plan with the lock of the study's last run.

    Returns the plan, in which changed arms have new names and earlier arms are retired, and notes for the user. Raises
    InputError if something has changed that must not.
    """
    notes = [*_unpriced(plan), *plan.workload.weights.told]
    if not lock:
        return plan, tuple(notes)
    _refuse_changed_identity(plan, lock["identity"], folder)
    notes += _notes(plan, lock)
    known: dict[str, dict[str, Any]] = lock["arms"]
    arms: dict[str, Arm] = {}
    for name, arm in plan.arms.items():
        placed = _place(name, arm, known)
        if placed != name:
            now = "goes on as" if placed in known else "has changed since the last run: it runs as"
            notes.append(f"arms.{name} {now} {placed}, and what ran before is kept.")
        arms[placed] = replace(arm, name=placed)
    gone = [name for name in known if name not in arms]
    retired = {name: from_definition(name, known[name]["definition"], folder / SOURCES) for name in gone}
    cohort = {placed: plan.cohort[name] for placed, name in zip(arms, plan.arms, strict=True)}
    return replace(plan, arms=arms | retired, cohort=cohort, retired=frozenset(retired)), tuple(notes)


def render(
    plan: Plan,
    overrides: Sequence[str],
    is_complete: bool,
    versions: Mapping[str, str],
    deviations: Sequence[str] = (),
    progress: Mapping[str, int] | None = None,
    base: Path | None = None,
) -> str:
    """The text of study.lock.json.

    Args:
        plan: The plan of the study.
        overrides: The ``key=value`` texts of the command line.
        is_complete: Whether every trial of the study has ended.
        versions: The versions of packages by name.
        deviations: Departures from the protocol that a report must show, a sentence each.
        progress: `num_seeds`, with how many fresh seeds every arm is confirmed up to the present look, and
            `planned_trials`, how many trials that makes; by default those of the whole study.
        base: The folder that relative paths of the study file start from, if it is known.
    """
    study, workload = plan.study, plan.workload
    progress = progress or {"num_seeds": study.confirm.looks[-1], "planned_trials": plan.num_trials}
    lock = {
        "lock_format": FORMAT,
        "name": study.name,
        "identity": identity(plan),
        "metric": study.metric,
        "report_metrics": study.report_metrics,
        "task": {"kind": workload.task.kind},
        "mode": "max",
        "select": study.select,
        "budget_epochs": study.budget.epochs,
        "control": plan.control,
        "margin": study.compare.margin,
        "claims": claims.for_lock(study, plan.running_names),
        "target": study.target.model_dump(),
        "searchers": plan.methods,
        "arms": {name: _arm(plan, arm) for name, arm in plan.arms.items()},
        "trials_per_arm": study.search.trials,
        "cohort": plan.cohort_size,
        "outstanding": plan.outstanding,
        "search_seed": plan.search_seed,
        "search_repeats": study.search.repeats,
        "seeds": study.search.seeds,
        "confirm": {"top": study.confirm.top, "seeds": progress["num_seeds"], "looks": study.confirm.looks},
        "planned_trials": progress["planned_trials"],
        "device_kind": workload.device,
        "unit": "GPU-hours" if workload.device == "cuda" else "CPU-core-hours",
        "price": price(plan),
        "data": _data(workload),
        "model": plan.root(0).model,
        "weights": workload.weights.to_json(),
        "numerics": workload.numerics,
        "overrides": list(overrides),
        "base": None if base is None else str(base),
        "deviations": list(deviations),
        "complete": is_complete,
        "versions": dict(versions),
    }
    return json.dumps(lock, indent=1, ensure_ascii=False)


def identity(plan: Plan) -> dict[str, Any]:
    """What must not change between runs of one study."""
    study, root = plan.study, plan.root(0)
    values = {
        "data": root.data,
        "split": root.split,
        "preprocessing": root.preprocessing,
        "model": root.model,
        "weights": root.weights,
        "augment": plan.workload.recipe.augment,
        "source": dict(plan.workload.source_digests),
        "numerics": study.workload.numerics.model_dump(),
        "task": {"kind": root.task, "class_weights": study.workload.task.class_weights},
        "metric": study.metric,
        "select": study.select,
        "budget": study.budget.epochs,
        "batchnorm": study.workload.batchnorm,
    }
    return {name: json.loads(canonical_json(value)) for name, value in values.items()}


def price(plan: Plan) -> dict[str, Any] | None:
    """Money per device-hour, if the study states a price that fits its device."""
    prices, workload = plan.study.price, plan.workload
    per_hour: float | None = prices.cpu_core_hour
    if workload.device == "cuda":
        by_model = prices.gpu_hour
        per_hour = _of_model(by_model, _device_model(workload)) if isinstance(by_model, dict) else by_model
    return None if per_hour is None else {"device_hour": per_hour, "currency": prices.currency}


def _of_model(prices: Mapping[str, float], model: str) -> float | None:
    """The price of a GPU by its model's name: of all names whose words it has, in their order, the longest one's.

    Words are letters and digits, in capitals or not, the maker aside: `A100-80GB` fits NVIDIA A100-SXM4-80GB, as `A100`
    does, and `A10` does not.
    """
    words = _words(model)
    fitting = [name for name in prices if _words(name) and _is_within(_words(name), words)]
    longest = max(fitting, key=lambda name: (len(_words(name)), len(name)), default=None)
    return None if longest is None else prices[longest]


def _words(name: str) -> list[str]:
    return [word for word in re.findall(r"[a-z0-9]+", name.lower()) if word != "nvidia"]


def _is_within(few: Sequence[str], many: Sequence[str]) -> bool:
    """Whether all the words of `few` are in `many`, in the same order."""
    rest = iter(many)
    return all(word in rest for word in few)


def _device_model(workload: Workload) -> str:
    return str(workload.numerics.get("device_model", ""))


def _unpriced(plan: Plan) -> Iterator[str]:
    """A note, if the study states prices of GPUs by model and none fits the one it runs on."""
    prices, workload = plan.study.price.gpu_hour, plan.workload
    if workload.device == "cuda" and isinstance(prices, dict) and price(plan) is None:
        yield (
            f"price.gpu_hour has no price of {_device_model(workload)} (it has {', '.join(prices)}): no money is shown."
        )


def _arm(plan: Plan, arm: Arm) -> dict[str, Any]:
    """What the lock says about an arm."""
    return {
        "policy": arm.definition["policy"],
        "parameters": [p.name for p in arm.space.searched],
        "definition": dict(arm.definition),
        "retired": arm.name in plan.retired,
        "caveats": list(caveats(plan, arm)),
    }


def _data(workload: Workload) -> dict[str, Any]:
    """What the lock says about the data."""
    train, validation, test = workload.counts
    return {
        "source": workload.data.source,
        "classes": list(workload.classes),
        "train": train,
        "validation": validation,
        "test": test,
        "statistics": workload.statistics.to_json(),
    }


def _is_begun_by_us(name: str) -> bool:
    """Whether a file may have been left by a run that was killed before it wrote its lock."""
    return name in ("driver.lock", "journal", "study.yaml") or name.startswith(".")


def _notes(plan: Plan, lock: Mapping[str, Any]) -> Iterator[str]:
    """What the user should know about changes that are neither adopted nor refused."""
    search = plan.study.search
    if lock["numerics"] != plan.workload.numerics:
        yield (
            "This machine or its settings compute differently from the last run: "
            "what was recorded there is not recalled."
        )
    for name, wanted, kept in (
        ("cohort", search.cohort, plan.cohort_size),
        ("outstanding", search.outstanding, plan.outstanding),
        ("seed", search.seed, plan.search_seed),
    ):
        if wanted is not None and wanted != kept:
            yield f"search.{name} stays {kept}, as in the first run, whatever the file says now ({wanted})."
    for name, before, now in (
        ("method", lock["searchers"], search.method),
        ("seeds", lock["seeds"], search.seeds),
    ):
        if gone := [value for value in before if value not in now]:
            shown = ", ".join(map(str, gone))
            yield f"search.{name} no longer has {shown}: trials with it stay recorded but leave the tables."
    if search.repeats < (before := lock.get("search_repeats", 1)):
        yield (
            f"search.repeats was {before} and is {search.repeats}: trials of the later searches stay recorded but leave "
            "the tables."
        )


def _refuse_changed_identity(plan: Plan, before: dict[str, Any], folder: Path) -> None:
    now, before = identity(plan), _BEFORE | before
    changed = [name for name in now if now[name] != before.get(name)]
    details = [detail for name in changed for detail in _differences(name, before.get(name), now[name])]
    shown_preprocessing = any(detail.startswith("preprocessing") for detail in details)
    if "preprocessing" in changed and len(changed) > 1 and not shown_preprocessing:
        changed.remove("preprocessing")  # only its constants differ, and those are computed from data and split
    if changed:
        what = " and ".join(filter(None, (", ".join(changed[:-1]), changed[-1])))
        shown = f" ({'; '.join(details)})" if details else ""
        raise InputError(
            Fault(
                "storage.path",
                f"{folder} holds a study with other {what}{shown}",
                advice="Results would not be comparable. Give this one a name of its own with --as NAME (training they "
                "share is still recalled), or restore the old value.",
            )
        )


def _differences(name: str, before: Any, now: Any) -> Iterator[str]:
    """``metric: accuracy before, balanced_accuracy now``. Digests are left out, as they mean nothing to a reader."""
    if name == "source":
        for role in now:
            if now[role] != (before or {}).get(role):
                yield f"{'what is in' if role == 'files' else 'the code behind'} workload.{role} has changed"
    elif isinstance(before, dict) and isinstance(now, dict):
        for key in now:
            if key != "constants":
                yield from _differences(f"{name}.{key}", before.get(key), now[key])
    elif name not in ("data", "split", "weights") and now != before:
        yield f"{name}: {before} before, {now} now"


def _place(name: str, arm: Arm, known: Mapping[str, Mapping[str, Any]]) -> str:
    """The name under which an arm runs: its own, or `name@k` if `name` was something else before."""
    definition, number, placed = _comparable(arm.definition), 1, name
    while placed in known and _comparable(known[placed]["definition"]) != definition:
        number += 1
        placed = f"{name}@{number}"
    return placed


def _comparable(definition: Mapping[str, Any]) -> Any:
    """A definition in a form that is compared by value.

    The folder of a user's policy is left out, because the definition has the digest of its source.
    """
    policy = str(definition["policy"])
    plain = {**definition, "policy": policy.rpartition("/")[2] if "source" in definition else policy}
    if "stages" in definition:
        plain["stages"] = [_comparable(stage) for stage in definition["stages"]]
    return _by_value(plain)


def _by_value(definition: Any) -> Any:
    """A definition in which 0 equals 0.0 and a list equals a tuple, but no truth value equals a number."""
    if isinstance(definition, Mapping):
        return {key: _by_value(value) for key, value in definition.items()}
    if isinstance(definition, (list, tuple)):
        return [_by_value(value) for value in definition]
    return ("truth", definition) if isinstance(definition, bool) else definition
