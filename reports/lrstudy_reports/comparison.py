"""The comparison of a study's arms: one row per arm, with its verdict."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lrstudy_reports.calibration import Calibration, calibrate
from lrstudy_reports.costs import tuning_costs
from lrstudy_reports.curves import (
    FRACTIONS,
    Curve,
    Readings,
    common_costs,
    readings,
    target_value,
    trial_curves,
)
from lrstudy_reports.schemas import ARMS
from lrstudy_reports.statistics import holm, smallest_detectable
from lrstudy_reports.tables import StudyTables
from lrstudy_reports.tuning import best_configurations
from lrstudy_reports.verdicts import Outcome, judge, outcomes, paired


@dataclass(frozen=True)
class Comparison:
    """The arms, compared. `arms` has the columns of arms.parquet, best first.

    `common` is the range of cost over which every completed confirm trial was observed. `comparisons` is the
    number of tests that Holm corrects for. `detectable` is the smallest true difference that the study could
    have detected, given the pooled spread of the differences. `final` says that all confirm trials have ended.
    """

    arms: pd.DataFrame
    curves: list[Curve]
    calibration: Calibration
    common: tuple[float, float]
    target: float
    comparisons: int
    detectable: float
    final: bool

    def rows(self) -> list[dict[str, Any]]:
        """The arms as dicts, with None for missing values."""
        return [
            {str(key): None if _missing(value) else value for key, value in row.items()}
            for row in self.arms.to_dict("records")
        ]


def compare(study: StudyTables) -> Comparison:
    """Compare each arm with the control, paired by seed, and adjust the p-values over all arms by Holm."""
    lock = study.lock
    calibration = calibrate(study)
    curves = trial_curves(study, calibration)
    common, target = common_costs(curves), target_value(study, curves)
    outcome_of = outcomes(study)
    tests = _tests(study, outcome_of)
    best, costs = best_configurations(study), tuning_costs(study)
    rows = []
    for arm in study.arms:
        mine = [curve for curve in curves if curve.arm == arm]
        row = _identity(study, arm, outcome_of[arm], mine, best) | tests[arm]
        row |= {str(key): value for key, value in costs.loc[arm].to_dict().items()}
        row |= _cost_columns(study, row, mine)
        row |= _reading_columns(readings(mine, common, target, lock.sign), common, target)
        rows.append(row)
    arms = _ranked(pd.DataFrame(rows).reindex(columns=ARMS.names), lock.control, lock.sign)
    comparisons = sum(arm != lock.control for arm in study.arms)
    return Comparison(
        arms=arms,
        curves=curves,
        calibration=calibration,
        common=common,
        target=target,
        comparisons=comparisons,
        detectable=_detectable(arms, comparisons),
        final=bool(outcome_of) and all(outcome.final for outcome in outcome_of.values()),
    )


def _tests(study: StudyTables, outcome_of: dict[str, Outcome]) -> dict[str, dict[str, Any]]:
    """The columns of test and verdict, by arm; the control gets the verdict `control` and no test."""
    lock = study.lock
    control = outcome_of.get(lock.control) if lock.control is not None else None
    others = [arm for arm in study.arms if arm != lock.control]
    pairs = {arm: paired(outcome_of[arm], control) for arm in others}
    adjusted = holm([pairs[arm].p for arm in others])
    columns: dict[str, dict[str, Any]] = {}
    for arm, p_holm in zip(others, adjusted, strict=True):
        difference = pairs[arm].difference
        judged, note = judge(lock, outcome_of[arm], control, pairs[arm], float(p_holm))
        columns[arm] = {
            "difference": difference.mean,
            "difference_low": difference.low,
            "difference_high": difference.high,
            "difference_sd": difference.sd,
            "pairs": difference.n,
            "p": pairs[arm].p,
            "p_holm": float(p_holm),
            "verdict": judged,
            "note": note or None,
            "smallest_detectable": smallest_detectable(difference.sd, difference.n, len(others)),
        }
    if lock.control in outcome_of:
        columns[lock.control] = {"verdict": "control", "note": outcome_of[lock.control].shortfall, "pairs": 0}
    return columns


def _detectable(arms: pd.DataFrame, comparisons: int) -> float:
    """The smallest true difference detected with power 0.8, given the pooled spread of the differences."""
    tested = arms[arms["difference_sd"] > 0]
    if tested.empty:
        return math.nan
    pooled = math.sqrt(float((tested["difference_sd"] ** 2).mean()))
    return smallest_detectable(pooled, int(tested["pairs"].min()), comparisons)


def _identity(
    study: StudyTables, arm: str, outcome: Outcome, curves: list[Curve], best: dict[str, tuple[str, float]]
) -> dict[str, Any]:
    """The columns that identify an arm and its configuration, with the means over its confirm trials."""
    trials = study.trials[study.trials["arm"] == arm]
    confirmed = study.confirming
    chosen = confirmed.loc[confirmed["arm"] == arm, "configuration"].dropna()
    tuned, value = best.get(arm, (None, math.nan))
    workload = trials["workload"].dropna()
    selected = [curve.selected for curve in curves if math.isfinite(curve.selected)]
    interval = outcome.interval
    return {
        "arm": arm,
        "workload": str(workload.iloc[0]) if len(workload) else None,
        "policy": study.policy(arm),
        "configuration": str(chosen.iloc[0]) if len(chosen) else tuned,
        "configuration_source": "confirmed" if len(chosen) else ("best so far" if tuned else None),
        "metric": study.lock.metric,
        "seeds": interval.n,
        "seeds_expected": outcome.expected,
        "diverged": outcome.diverged,
        "failed": outcome.failed,
        "val_metric": float(np.mean(selected)) if selected else value,
        "test_metric": interval.mean,
        "test_low": interval.low,
        "test_high": interval.high,
        "test_sd": interval.sd,
    }


def _cost_columns(study: StudyTables, row: dict[str, Any], curves: list[Curve]) -> dict[str, Any]:
    """The columns on the cost of one training (mean over completed confirm trials) and on money."""
    done = {curve.trial_id: float(curve.cost[-1]) for curve in curves if curve.status == "completed"}
    training = float(np.mean(list(done.values()))) if done else math.nan
    recorded = study.trials.loc[study.trials["trial_id"].isin(done), "standalone_device_s"].mean()
    columns: dict[str, Any] = {
        "training_device_s": training,
        "training_recorded_device_s": float(recorded),
        "metric_per_device_hour": row["test_metric"] * 3600 / training if training > 0 else math.nan,
    }
    price = study.lock.price
    if price is not None:
        columns["training_money"] = training / 3600 * price.device_hour
        columns["tuning_money"] = row["tuning_spent_device_s"] / 3600 * price.device_hour
        columns["currency"] = price.currency
    return columns


def _reading_columns(of_arm: Readings, common: tuple[float, float], target: float) -> dict[str, Any]:
    parts = zip(FRACTIONS, of_arm.at_fractions, strict=True)
    return {
        "area_over_log_cost": of_arm.area,
        **{f"metric_at_{round(100 * part)}": value for part, value in parts},
        "common_device_s": common[1],
        "target": target,
        "target_device_s": of_arm.to_target if math.isfinite(of_arm.to_target) else math.nan,
        "target_reached": of_arm.reached,
        "target_trials": of_arm.asked,
    }


def _ranked(arms: pd.DataFrame, control: str | None, sign: float) -> pd.DataFrame:
    """The arms in order of their mean test metric, with `rank` and `cost_ratio` filled in; ties share a rank.

    Arms that lost seeds to divergence have no rank and come after the ranked ones, since their mean covers only
    the seeds that went well; arms without a test value come last.
    """
    reference = arms.loc[arms["arm"] == control, "training_device_s"]
    arms["cost_ratio"] = arms["training_device_s"] / (float(reference.iloc[0]) if len(reference) else math.nan)
    quality = sign * arms["test_metric"].astype("float64")
    arms["rank"] = quality.where(arms["diverged"] == 0).rank(ascending=False, method="min").astype("Int64")
    order = pd.DataFrame({"rank": arms["rank"].astype("float64"), "quality": -quality})
    index = order.sort_values(["rank", "quality"], kind="stable", na_position="last").index
    return arms.loc[index].reset_index(drop=True)


def configuration_of(text: str | None) -> dict[str, Any]:
    """Parse a configuration; None gives an empty dict. Raises ValueError if `text` is not a JSON object."""
    parsed = json.loads(text) if text else {}
    if not isinstance(parsed, dict):
        raise ValueError(f"a configuration must be a JSON object; got {text}")
    return parsed


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
