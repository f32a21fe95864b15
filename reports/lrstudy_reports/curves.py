"""Learning curves of the confirm trials over calibrated cost, and what is read off them.

A reading before the end of a curve belongs to a schedule that was made for the study's whole budget: it
is not what the policy, scaled to the smaller budget, would reach. Nothing is read beyond the cheapest
trial's end, and nothing between two observations is interpolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lrstudy_reports.calibration import Calibration
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
    """One confirm trial: the validation metric after each epoch, at a cumulative calibrated cost."""

    arm: str
    seed: int
    trial_id: str
    status: str
    cost: FloatArray
    value: FloatArray

    @property
    def seen(self) -> tuple[FloatArray, FloatArray]:
        """Cost and value of the epochs where both are finite."""
        finite = np.isfinite(self.value) & np.isfinite(self.cost)
        return self.cost[finite], self.value[finite]


@dataclass(frozen=True)
class Readings:
    """An arm's readings, means over its completed trials. `to_target` is a median; infinity if censored."""

    area: float
    at_fractions: tuple[float, ...]
    to_target: float
    reached: int
    asked: int


def trial_curves(study: StudyTables, calibration: Calibration) -> list[Curve]:
    """The curves of all confirm trials that have epochs, by arm in the study's order, then by seed."""
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
            curves.append(Curve(arm, int(trial["seed"]), trial["trial_id"], str(trial["status"]), cost, value))
    return curves


def common_costs(curves: list[Curve]) -> tuple[float, float]:
    """The costs between which every completed trial was observed; NaN where there is no such range."""
    ends = [curve.seen[0] for curve in curves if curve.status == "completed" and len(curve.seen[0])]
    if not ends:
        return math.nan, math.nan
    return max(float(cost[0]) for cost in ends), min(float(cost[-1]) for cost in ends)


def target_value(study: StudyTables, curves: list[Curve]) -> float:
    """The validation value whose cost is compared: the lock's, or a share of the control's mean final one."""
    lock = study.lock
    if lock.target is not None:
        return lock.target
    finals = [
        float(curve.seen[1][-1])
        for curve in curves
        if curve.arm == lock.control and curve.status == "completed" and len(curve.seen[1])
    ]
    if not finals or not np.mean(finals) > 0:
        return math.nan
    share = lock.target_of_control
    return float(np.mean(finals)) * (share if lock.mode == "max" else 1 / share)


def readings(curves: list[Curve], common: tuple[float, float], target: float, sign: float) -> Readings:
    """What one arm's `curves` say. A diverged trial that did not reach the target counts as censored."""
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


def mean_curves(curves: list[Curve]) -> pd.DataFrame:
    """Mean metric and cost after each epoch by arm, over its completed trials, with t intervals.

    Columns: arm, epoch (1 = after the first), device_s, value, low, high, n. An epoch that not all of the
    arm's completed trials have is left out.
    """
    rows = []
    for arm in dict.fromkeys(curve.arm for curve in curves):
        done = [curve for curve in curves if curve.arm == arm and curve.status == "completed"]
        for epoch in range(min((len(curve.value) for curve in done), default=0)):
            interval = mean_interval([curve.value[epoch] for curve in done])
            cost = _mean([float(curve.cost[epoch]) for curve in done])
            rows.append((arm, epoch + 1, cost, interval.mean, interval.low, interval.high, interval.n))
    return pd.DataFrame(rows, columns=CURVES.names)


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _median(costs: list[float]) -> float:
    """Median where infinity means 'not reached'; NaN for no costs."""
    if not costs:
        return math.nan
    ordered = sorted(costs)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
