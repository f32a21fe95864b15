"""Learning curves of the confirm trials over calibrated cost, and the values read off them.

A value read before the end of a curve belongs to a schedule made for the whole budget: the same policy,
scaled to a smaller budget, may do better. Nothing is read beyond the end of the cheapest trial, and nothing
is interpolated between observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lrstudy_reports.calibration import Calibration
from lrstudy_reports.lock import Lock
from lrstudy_reports.schemas import CURVES
from lrstudy_reports.statistics import (
    FloatArray,
    area_over_log_cost,
    cost_to_target,
    mean_interval,
    value_at,
)
from lrstudy_reports.tables import StudyTables

FRACTIONS = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Curve:
    """The learning curve of a confirm trial: validation metric and cumulative calibrated cost after each epoch.

    `selected` is the value after the epoch whose state was tested; NaN if the trial did not complete.
    """

    arm: str
    seed: int
    trial_id: str
    status: str
    cost: FloatArray
    value: FloatArray
    selected: float

    @property
    def seen(self) -> tuple[FloatArray, FloatArray]:
        """Cost and value of those epochs where both are finite."""
        finite = np.isfinite(self.value) & np.isfinite(self.cost)
        return self.cost[finite], self.value[finite]


@dataclass(frozen=True)
class Readings:
    """Values read off an arm's curves, averaged over its completed trials.

    `to_target` is a median, infinite if half of the trials or more did not reach the target; `reached` of `asked`
    trials did.
    """

    area: float
    at_fractions: tuple[float, ...]
    to_target: float
    reached: int
    asked: int


def trial_curves(study: StudyTables, calibration: Calibration) -> list[Curve]:
    """The curves of all confirm trials that have epochs, ordered by arm (as in the study) and seed."""
    groups = {str(key): rows for key, rows in calibration.epochs.groupby("trial_id")}
    trials = study.confirming
    curves = []
    for arm in study.arms:
        for trial in trials[trials["arm"] == arm].to_dict("records"):
            rows = groups.get(trial["trial_id"])
            if rows is None:
                continue
            cost = rows["calibrated_s"].cumsum().to_numpy(dtype=np.float64)
            value = rows["val_metric"].to_numpy(dtype=np.float64)
            selected = float(trial["selected_val_metric"])
            curves.append(
                Curve(arm, int(trial["seed"]), trial["trial_id"], str(trial["status"]), cost, value, selected)
            )
    return curves


def common_costs(curves: list[Curve]) -> tuple[float, float]:
    """The lowest and the highest cost at which all completed trials were observed; NaN if there are none."""
    ends = [curve.seen[0] for curve in curves if curve.status == "completed" and len(curve.seen[0])]
    if not ends:
        return math.nan, math.nan
    return max(float(cost[0]) for cost in ends), min(float(cost[-1]) for cost in ends)


def target_value(study: StudyTables, curves: list[Curve]) -> float:
    """The validation value that arms have to reach: the study's own, or a share of the control's mean selected value."""
    lock = study.lock
    if lock.target is not None:
        return lock.target
    mean = _mean([curve.selected for curve in curves if curve.arm == lock.control])
    share = lock.target_of_control
    return mean * (share if lock.mode == "max" else 1 / share) if mean > 0 else math.nan


def readings(curves: list[Curve], common: tuple[float, float], target: float, sign: float) -> Readings:
    """Read the values of one arm off its curves.

    Args:
        curves: The curves of the arm's confirm trials.
        common: The lowest and the highest cost at which all completed trials of the study were observed.
        target: The validation value to reach; NaN if there is none.
        sign: 1 where more of the metric is better, -1 where less is.

    Returns:
        The readings. A diverged trial that did not reach the target counts as one that never reaches it.
    """
    completed = [curve.seen for curve in curves if curve.status == "completed"]
    ended = [curve.seen for curve in curves if curve.status in ("completed", "diverged")]
    low, high = common
    costs = [cost_to_target(cost, value, target, sign) for cost, value in ended if not math.isnan(target)]
    return Readings(
        area=_mean([area_over_log_cost(cost, value, low, high) for cost, value in completed]),
        at_fractions=tuple(
            _mean([value_at(cost, value, part * high) for cost, value in completed]) for part in FRACTIONS
        ),
        to_target=_median(costs),
        reached=sum(math.isfinite(cost) for cost in costs),
        asked=len(costs),
    )


def mean_curves(curves: list[Curve], lock: Lock) -> pd.DataFrame:
    """Mean cost and metric after each epoch, by arm, with their intervals: the columns of curves.parquet.

    An epoch that not all completed trials of the arm have is left out.
    """
    rows = []
    for arm in dict.fromkeys(curve.arm for curve in curves):
        done = [curve for curve in curves if curve.arm == arm and curve.status == "completed"]
        for epoch in range(min((len(curve.value) for curve in done), default=0)):
            values = [curve.value[epoch] for curve in done]
            interval = mean_interval(values, lock.level, bounded=lock.is_bounded)
            cost = _mean([float(curve.cost[epoch]) for curve in done])
            rows.append((arm, epoch + 1, cost, interval.mean, interval.low, interval.high, interval.n, lock.name))
    return pd.DataFrame(rows, columns=CURVES.names)


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _median(costs: list[float]) -> float:
    """The median, where infinity means 'not reached'; NaN for an empty list."""
    if not costs:
        return math.nan
    ordered = sorted(costs)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
