"""The section on trainings that end once a validation metric reaches a target: how many got there, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lrstudy_reports import formats
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.curves import Curve
from lrstudy_reports.page import Cell, PageSection, Table
from lrstudy_reports.schemas import UNTIL
from lrstudy_reports.statistics import mean_interval, median_of_censored, share_interval
from lrstudy_reports.tables import StudyTables

_NOTE = (
    "A training that never reaches its target is censored: it took longer than its budget, nobody knows how much. With "
    "censored ones there is no mean; the median counts them as longer than all others, and is missing where half of them or "
    "more did not get there. Those that diverged count as never reaching it. Epochs and cost are those of the whole training, "
    "which ends at its target."
)


def until_table(study: StudyTables, curves: Sequence[Curve]) -> pd.DataFrame:
    """The columns of until.csv: one row per arm whose trainings end at a target and of which confirm trials have ended."""
    trials = study.confirming[study.confirming["status"].isin(["completed", "diverged"])]
    cost = {curve.trial_id: float(curve.cost[-1]) for curve in curves}
    rows = []
    for arm in study.arms:
        mine = trials[(trials["arm"] == arm) & trials["until_value"].notna()]
        if mine.empty:
            continue
        has_reached = mine["reached_epoch"].notna()
        spent = mine["trial_id"].map(cost).astype("float64")
        share = share_interval(int(has_reached.sum()), len(mine), study.lock.level)
        rows.append(
            {
                "arm": arm,
                "metric": mine["until_metric"].iloc[0],
                "value": mine["until_value"].iloc[0],
                "trials": len(mine),
                "reached": int(has_reached.sum()),
                "share_low": share[0],
                "share_high": share[1],
                "statistic": "mean" if has_reached.all() else "median",
                **_columns("epochs", mine["reached_epoch"] + 1, study.lock.level),
                **_columns("device_s", spent.where(has_reached), study.lock.level),
                **_columns("wall_s", mine["reached_s"], study.lock.level),
            }
        )
    return pd.DataFrame(rows, columns=UNTIL.names)


def until(analysis: Analysis) -> PageSection:
    """The section; empty if no arm's trainings end at a target."""
    rows = analysis.until.to_dict("records")
    unit = formats.time_unit(analysis.study.lock.unit, [_finite(row["device_s"]) for row in rows])
    cells = []
    for row in rows:
        share = formats.interval(row["share_low"], row["share_high"], 2)
        cells.append(
            [
                analysis.arm(row["arm"]),
                Cell(f"{row['metric'].replace('_', ' ')} {row['value']:g}"),
                Cell(f"{row['reached']} of {row['trials']}", share),
                Cell(row["statistic"]),
                _with_interval(row, "epochs", 1.0),
                _with_interval(row, "device_s", unit.seconds),
                _with_interval(row, "wall_s", 1.0),
            ]
        )
    columns = ["Arm", "Target on validation", "Reached", "Over trials", "Epochs", unit.label, "Seconds as run"]
    level = formats.percent(analysis.study.lock.level)
    caption = f"Training until a target, by confirm trials; {level} intervals in brackets"
    tables = [Table(caption, columns, cells, frozenset({2, 4, 5, 6}))] if rows else []
    return PageSection("until", "Training until a target", tables=tables, notes=[_NOTE] if rows else [])


def _columns(name: str, values: pd.Series[float], level: float) -> dict[str, float]:
    """Mean with t interval of values to a target if all trials reached it, else the median without an interval."""
    if values.notna().all():
        interval = mean_interval(values, level)
        return {name: interval.mean, f"{name}_low": max(interval.low, 0.0), f"{name}_high": interval.high}
    median = median_of_censored(values.fillna(math.inf))
    return {name: median if math.isfinite(median) else math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan}


def _with_interval(row: Mapping[Any, Any], name: str, unit: float) -> Cell:
    """A value with its interval, both in `unit`."""
    value, low, high = (row[key] / unit for key in (name, f"{name}_low", f"{name}_high"))
    text = formats.significant(value)
    if not math.isfinite(low):
        return Cell(text)
    return Cell(text, f"[{formats.significant(low)}, {formats.significant(high)}]")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
