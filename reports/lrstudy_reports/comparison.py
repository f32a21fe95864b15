"""The comparison of a study's arms: one row per arm, with its verdict."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lrstudy_reports.best import AgainstBest, against_best
from lrstudy_reports.calibration import Calibration, calibrate
from lrstudy_reports.costs import arm_costs
from lrstudy_reports.curves import (
    FRACTIONS,
    Curve,
    Readings,
    common_costs,
    readings,
    target_value,
    trial_curves,
)
from lrstudy_reports.lock import Lock
from lrstudy_reports.schemas import ARMS
from lrstudy_reports.statistics import (
    FloatArray,
    Paired,
    equivalence_p,
    holm,
    smallest_detectable,
)
from lrstudy_reports.tables import StudyTables
from lrstudy_reports.training_part import fitted
from lrstudy_reports.tuning import best_configurations
from lrstudy_reports.verdicts import Evidence, Outcome, judge, outcomes, over_seeds, paired


@dataclass(frozen=True)
class Comparison:
    """The arms, compared. `arms` has the columns of arms.parquet, best first.

    `common` is the range of cost over which every completed confirm trial was observed. `comparisons` is the
    number of tests that Holm corrects for. `final` says that all confirm trials have ended.
    """

    arms: pd.DataFrame
    curves: list[Curve]
    calibration: Calibration
    common: tuple[float, float]
    target: float
    comparisons: int
    final: bool

    def rows(self) -> list[dict[str, Any]]:
        """The arms as dicts, with None for missing values."""
        return [
            {str(key): None if _missing(value) else value for key, value in row.items()}
            for row in self.arms.to_dict("records")
        ]


def compare(study: StudyTables) -> Comparison:
    """Compare each arm with the control and with the best of all, paired by seed.

    P-values are adjusted by Holm over the arms of the study file; a retired arm is shown and not tested.
    """
    lock = study.lock
    calibration = calibrate(study)
    curves = trial_curves(study, calibration)
    common, target = common_costs(curves), target_value(study, curves)
    outcome_of = outcomes(study)
    family = _family(study)
    is_final = bool(outcome_of) and all(outcome.final for outcome in outcome_of.values())
    tests = _tests(study, outcome_of, family, is_final)
    best_of_all = _against_best(study, outcome_of, tests) if is_final else {}
    best, costs = best_configurations(study), arm_costs(study, calibration)
    rows = []
    for arm in study.arms:
        mine = [curve for curve in curves if curve.arm == arm]
        row = _identity(study, arm, outcome_of[arm], mine, best) | tests[arm] | best_of_all.get(arm, {})
        row |= {str(key): value for key, value in costs.loc[arm].to_dict().items()}
        row |= _cost_columns(study, row, mine) | calibration.identification(study.lock)
        row |= _reading_columns(readings(mine, common, target, lock.sign), common, target)
        rows.append(row)
    arms = _ranked(pd.DataFrame(rows).reindex(columns=ARMS.names), lock)
    return Comparison(
        arms=arms,
        curves=curves,
        calibration=calibration,
        common=common,
        target=target,
        comparisons=len(family),
        final=is_final,
    )


def verdicts_by_look(study: StudyTables) -> dict[int, dict[str, str]]:
    """By number of seeds, the verdicts of the arms at each look that has ended; empty if only one was planned."""
    seen: dict[int, dict[str, str]] = {}
    for seeds in study.lock.looks if len(study.lock.looks) > 1 else ():
        outcome_of = outcomes(study, seeds)
        if not all(outcome.final for outcome in outcome_of.values()):
            break
        tests = _tests(study, outcome_of, _family(study), is_final=True)
        seen[seeds] = {arm: str(columns["verdict"]) for arm, columns in tests.items()}
    return seen


def _family(study: StudyTables) -> list[str]:
    """The arms that are compared with the control."""
    return [arm for arm in study.arms if arm != study.lock.control and arm not in study.lock.retired]


def _tests(
    study: StudyTables, outcome_of: dict[str, Outcome], family: list[str], is_final: bool
) -> dict[str, dict[str, Any]]:
    """The columns of test and verdict, by arm.

    The control gets the verdict `control`, a retired arm `retired`; neither is tested. Adjusted p-values are for the
    whole family, so there are none before all confirm trials have ended.
    """
    lock = study.lock
    control = outcome_of.get(lock.control) if lock.control is not None else None
    pairs = {arm: paired(study, outcome, control) for arm, outcome in outcome_of.items() if arm != lock.control}
    columns = {arm: _difference_columns(pair) for arm, pair in pairs.items()}
    p_values = holm([pairs[arm].p if is_final else math.nan for arm in family])
    equivalence = holm([equivalence_p(pairs[arm].difference, lock.margin) if is_final else math.nan for arm in family])
    for arm, p, p_equivalence in zip(family, p_values, equivalence, strict=True):
        evidence = Evidence(pairs[arm], float(p), float(p_equivalence), len(family))
        judged, note = judge(lock, outcome_of[arm], control, evidence, is_final)
        difference, tests = pairs[arm].difference, len(family) * max(len(lock.looks), 1)
        columns[arm] |= {
            "p": pairs[arm].p,
            "p_holm": evidence.p,
            "p_equivalence": evidence.p_equivalence,
            "verdict": judged,
            "note": note or None,
            "smallest_detectable": smallest_detectable(difference.sd, difference.n, tests),
        }
    for arm in lock.retired & columns.keys():
        columns[arm] |= {"verdict": "retired", "note": "of an earlier run; not in the study file any more, not tested"}
    if lock.control in outcome_of:
        columns[lock.control] = {"verdict": "control", "note": outcome_of[lock.control].shortfall, "pairs": 0}
    return columns


def _difference_columns(pair: Paired) -> dict[str, Any]:
    return {
        "difference": pair.difference.mean,
        "difference_low": pair.difference.low,
        "difference_high": pair.difference.high,
        "difference_sd": pair.difference.sd,
        "pairs": pair.difference.n,
    }


def _against_best(
    study: StudyTables, outcome_of: dict[str, Outcome], tests: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The columns on the comparison with the best of the other arms, of those that were tested on all seeds.

    Both comparisons are read together, so neither may contradict the other: an arm that is worse than the control is
    not the best, and the control may be the best as long as no arm is better than it.
    """
    lock = study.lock
    whole = [arm for arm in study.arms if arm not in lock.retired and _is_whole(outcome_of[arm])]
    found = against_best(lock.sign * _blocks(study, outcome_of, whole), lock.level) if len(whole) > 1 else []
    is_beaten = any(tests[arm]["verdict"] == "better" for arm in study.arms)
    columns = {}
    for arm, mine in zip(whole, found, strict=False):
        is_candidate = not is_beaten if arm == lock.control else mine.may_be_best and tests[arm]["verdict"] != "worse"
        columns[arm] = _best_columns(mine, lock.sign) | {"may_be_best": is_candidate}
    return columns


def _is_whole(outcome: Outcome) -> bool:
    return outcome.trials > 0 and not outcome.lost and all(math.isfinite(value) for value in outcome.tested.values())


def _blocks(study: StudyTables, outcome_of: dict[str, Outcome], arms: list[str]) -> FloatArray:
    """Test values of `arms` by block, shape (blocks, arms): a block is a seed, or the mean of a search if there are several."""
    keys = sorted(set.intersection(*(set(outcome_of[arm].tested) for arm in arms)))
    values = np.array([[outcome_of[arm].tested[key] for arm in arms] for key in keys]).reshape(-1, len(arms))
    if study.num_searches == 1:
        return values
    search = np.array([key[0] for key in keys])
    return np.array([values[search == number].mean(axis=0) for number in np.unique(search)])


def _best_columns(mine: AgainstBest, sign: float) -> dict[str, float]:
    low, high = (mine.low, mine.high) if sign > 0 else (-mine.high, -mine.low)
    return {"best_difference": sign * mine.difference, "best_low": low, "best_high": high}


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
    interval, on_training = over_seeds(study, outcome.tested, bounded=study.lock.is_bounded), fitted(study, arm)
    return {
        "arm": arm,
        "workload": str(workload.iloc[0]) if len(workload) else None,
        "policy": study.policy(arm),
        "configuration": str(chosen.iloc[0]) if len(chosen) else tuned,
        "configuration_source": "confirmed" if len(chosen) else ("best so far" if tuned else None),
        "metric": study.lock.metric,
        "seeds": sum(math.isfinite(test) for test in outcome.tested.values()),
        "seeds_expected": outcome.expected,
        "diverged": outcome.diverged,
        "failed": outcome.failed,
        "exploratory": study.lock.is_exploratory,
        "tuned_val_metric": value,
        "confirmed_val_metric": _confirmed_validation(study, arm),
        "val_metric": float(np.mean(selected)) if selected else value,
        "test_metric": interval.mean,
        "test_low": interval.low,
        "test_high": interval.high,
        "test_sd": interval.sd,
        "train_metric": on_training.mean,
        "train_low": on_training.low,
        "train_high": on_training.high,
    }


def _confirmed_validation(study: StudyTables, arm: str) -> float:
    """Mean over completed confirm trials of the validation value that configurations are chosen by."""
    trials = study.confirming[(study.confirming["arm"] == arm) & (study.confirming["status"] == "completed")]
    return float(trials["best_val_metric" if study.lock.select == "best" else "final_val_metric"].mean())


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
        paid = row["tuning_paid_device_s"] + row["confirm_paid_device_s"]
        columns["paid_money"] = paid / 3600 * price.device_hour
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


def _ranked(arms: pd.DataFrame, lock: Lock) -> pd.DataFrame:
    """The arms in order of their mean test metric, with `rank` and `cost_ratio` filled in; ties share a rank.

    Arms that lost seeds have no rank and come after the ranked ones, since their mean covers only the seeds that went
    well; so do retired ones; arms without a test value come last.
    """
    reference = arms.loc[arms["arm"] == lock.control, "training_device_s"]
    arms["cost_ratio"] = arms["training_device_s"] / (float(reference.iloc[0]) if len(reference) else math.nan)
    quality = lock.sign * arms["test_metric"].astype("float64")
    is_ranked = (arms["diverged"] == 0) & (arms["failed"] == 0) & ~arms["arm"].isin(lock.retired)
    arms["rank"] = quality.where(is_ranked).rank(ascending=False, method="min").astype("Int64")
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
