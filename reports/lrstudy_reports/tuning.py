"""The results of tuning: the value of each configuration, the best after t trials, and searchers side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from lrstudy_reports.schemas import BEST_AFTER, SEARCHERS
from lrstudy_reports.statistics import expected_best
from lrstudy_reports.tables import ENDED, StudyTables

MAX_POINTS = 64  # of a curve of the best after t trials; more are thinned evenly in log t


def configurations(study: StudyTables, searcher: str) -> pd.DataFrame:
    """The configurations of `searcher` whose trials have all ended, one row each.

    The columns are arm, phase, index, configuration, completed (all seeds did), device_s and value: the
    validation metric that the study selects by, averaged over the tuning seeds; NaN if a seed diverged or failed.
    """
    trials = study.of_searcher(searcher)
    trials = trials.assign(
        value=trials["selected_val_metric"],
        ended=trials["status"].isin(ENDED),
        completed=trials["status"] == "completed",
    )
    grouped = trials.groupby(["arm", "phase", "index"])
    tuned = grouped.agg(
        configuration=("configuration", "first"),
        ended=("ended", "all"),
        completed=("completed", "all"),
        device_s=("standalone_device_s", "sum"),
    )
    tuned["value"] = grouped["value"].mean().where(grouped["value"].count() == grouped.size())
    return tuned[tuned["ended"]].drop(columns="ended").reset_index()


def best_configurations(study: StudyTables) -> dict[str, tuple[str, float]]:
    """The best completed configuration of the first searcher and its value, by arm."""
    searchers = study.searchers()
    if not searchers:
        return {}
    tuned = configurations(study, searchers[0])
    tuned = tuned[tuned["completed"]].dropna(subset=["value", "configuration"])
    best: dict[str, tuple[str, float]] = {}
    for arm, rows in tuned.groupby("arm"):
        k = int((study.lock.sign * rows["value"]).to_numpy().argmax())
        best[str(arm)] = (str(rows["configuration"].iloc[k]), float(rows["value"].iloc[k]))
    return best


def all_configurations(study: StudyTables) -> dict[str, pd.DataFrame]:
    """The configurations of every searcher, by searcher; the first is the one whose configurations are confirmed."""
    return {name: configurations(study, name) for name in study.searchers()}


def best_after(study: StudyTables, tuned: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Expected best value of t configurations by searcher and arm: the columns of best_after.csv.

    The expectation is over all subsets, so the order of suggestions plays no part. A configuration that diverged
    or failed counts as the worst value that any configuration of the study reached.
    """
    parts = []
    finite = [seen["value"].dropna() for seen in tuned.values()]
    values = pd.concat(finite) if finite else pd.Series(dtype="float64")
    worst = float(values.min() if study.lock.mode == "max" else values.max()) if len(values) else math.nan
    for searcher, seen in tuned.items():
        for arm in study.arms:
            column = seen.loc[seen["arm"] == arm, "value"]
            if not column.notna().any():
                continue
            counts = _counts(len(column))
            curve = expected_best(column.fillna(worst), study.lock.sign, counts)
            rows = {"searcher": searcher, "arm": arm, "trials": counts, "expected_best": curve}
            parts.append(pd.DataFrame(rows))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=BEST_AFTER.names)


def searcher_table(study: StudyTables, tuned: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What each searcher found for each arm: the columns of searchers.csv."""
    rows = []
    for searcher, seen in tuned.items():
        for arm in study.arms:
            mine = seen[seen["arm"] == arm]
            finite = (study.lock.sign * mine["value"]).dropna()
            rows.append(
                {
                    "searcher": searcher,
                    "arm": arm,
                    "configurations": len(mine),
                    "without_value": int(mine["value"].isna().sum()),
                    "best": study.lock.sign * float(finite.max()) if len(finite) else math.nan,
                    "device_s": float(mine["device_s"].sum()),
                }
            )
    return pd.DataFrame(rows, columns=SEARCHERS.names)


def _counts(n: int) -> list[int]:
    if n <= MAX_POINTS:
        return list(range(1, n + 1))
    return sorted({round(float(t)) for t in np.geomspace(1, n, MAX_POINTS)})
