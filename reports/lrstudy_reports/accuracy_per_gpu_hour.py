"""The table accuracy_per_gpu_hour: what each arm and each confirm trial reached on the test part, and what it cost.

Tables of several studies can be put below each other: each row names its study, data, model and device, and its unit of
cost. Nothing is ranked by the quotient, which rewards not training; the frontier compares value and cost as a pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from lrstudy_reports.comparison import Comparison
from lrstudy_reports.lock import Lock
from lrstudy_reports.tables import StudyTables

Row = dict[str, Any]


def accuracy_per_gpu_hour(study: StudyTables, comparison: Comparison) -> list[Row]:
    """The rows of the table: the arms, best first, then the confirm trials, those of each arm by rank and seed."""
    arms = comparison.rows()
    frontier = on_frontier(arms, study.lock.sign)
    rows = [_arm_row(study, arm) | {"on_frontier": frontier.get(arm["arm"])} for arm in arms]
    cost = comparison.calibration.cost_of_trials()
    confirm = study.trials[study.trials["phase"] == "confirm"].sort_values("trial_id", kind="stable")
    for arm in arms:
        for trial in confirm[confirm["arm"] == arm["arm"]].to_dict("records"):
            rows.append(_trial_row(study, arm, trial, float(cost.get(trial["trial_id"], math.nan))))
    calibration = comparison.calibration
    shared = calibration.identification(study.lock) | {
        "metric": study.lock.metric,
        "cost_source": "alone" if calibration.is_alone else "medians",
    }
    return [shared | _plain(row) for row in rows]


def on_frontier(arms: Iterable[Mapping[str, Any]], sign: float) -> dict[str, bool]:
    """Whether an arm lies on the Pareto front of mean test value and calibrated cost of a training, by arm.

    It does if no other arm has at least its value for at most its cost, and more or cheaper. Arms whose confirm trials
    diverged or failed are left out: their means cover only the seeds that went well.

    Args:
        arms: Rows with `arm`, `test_metric`, `training_device_s`, `diverged` and `failed`; numbers may be None.
        sign: 1 if more of the metric is better, else -1.
    """
    points = {
        str(arm["arm"]): (sign * arm["test_metric"], -arm["training_device_s"])
        for arm in arms
        if None not in (arm["test_metric"], arm["training_device_s"]) and not (arm["diverged"] or arm["failed"])
    }
    return {
        arm: not any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in points.values())
        for arm, point in points.items()
    }


def _arm_row(study: StudyTables, arm: Row) -> Row:
    """The row of an arm: means over its completed confirm trials, and the interval of the test value."""
    confirm = study.confirming
    done = confirm[(confirm["arm"] == arm["arm"]) & (confirm["status"] == "completed")]
    searchers = study.searchers()
    means = {name: float(done[name].mean()) for name in ("epochs", "updates", "examples")}
    values = {"test_value": arm["test_metric"], "test_low": arm["test_low"], "test_high": arm["test_high"]}
    row = {"row": "arm", "policy": arm["policy"], "arm": arm["arm"], "searcher": searchers[0] if searchers else None}
    row |= {"configuration": arm["configuration"], **means, **values}
    return row | _costs(study.lock, arm["test_metric"], arm["training_device_s"], arm["tuning_device_s"])


def _trial_row(study: StudyTables, arm: Row, trial: Mapping[Any, Any], device_s: float) -> Row:
    """The row of a confirm trial, whose training cost `device_s`; NaN if it trained nothing. Tuning is its arm's."""
    value = trial["test_metric"] if trial["status"] == "completed" else None
    same = ("arm", "searcher", "seed", "epochs", "updates", "examples", "trial_id", "status", "configuration", "repeat")
    row = {"row": "trial", "policy": arm["policy"], "test_value": value, **{name: trial[name] for name in same}}
    return row | _costs(study.lock, value, device_s, arm["tuning_device_s"])


def _costs(lock: Lock, value: float | None, training_s: float | None, tuning_s: float | None) -> Row:
    """The columns on cost. Hours of a GPU and of a CPU core are columns of their own, one of which stays empty."""
    hours = _number(training_s) / 3600
    with_tuning = hours + _number(tuning_s) / 3600
    kind = "gpu" if lock.unit.startswith("GPU") else "cpu_core"
    columns: Row = {
        f"{kind}_hours": hours,
        f"{kind}_hours_with_tuning": with_tuning,
        f"accuracy_per_{kind}_hour": _number(value) / hours if hours > 0 else math.nan,
    }
    if lock.price is not None:
        columns["money"] = hours * lock.price.device_hour
        columns["money_with_tuning"] = with_tuning * lock.price.device_hour
        columns["currency"] = lock.price.currency
    return columns


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(row: Row) -> Row:
    """The row with None for what is not a number."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
