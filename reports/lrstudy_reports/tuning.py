"""The results of tuning: the value of each configuration, the best after t trials, and searchers side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from lrstudy_reports.schemas import BEST_AFTER, SEARCHERS
from lrstudy_reports.statistics import expected_best, paired_t
from lrstudy_reports.tables import ENDED, StudyTables

MAX_POINTS = 64  # of a curve of the best after t trials; more are thinned evenly in log t


def configurations(study: StudyTables, searcher: str) -> pd.DataFrame:
    """The configurations of `searcher` whose trials have all ended, one row each, over all its searches.

    The columns are repeat (which search), arm, phase, index, configuration, completed (all seeds did), device_s and value: the
    validation metric that the study selects by, averaged over the tuning seeds; NaN if a seed diverged or failed.
    """
    trials = pd.concat([study.of_searcher(searcher, repeat) for repeat in range(study.lock.repeats)])
    trials = trials.assign(
        value=trials["selected_val_metric"],
        ended=trials["status"].isin(ENDED),
        completed=trials["status"] == "completed",
    )
    grouped = trials.groupby(["repeat", "arm", "phase", "index"])
    tuned = grouped.agg(
        configuration=("configuration", "first"),
        ended=("ended", "all"),
        completed=("completed", "all"),
        device_s=("standalone_device_s", "sum"),
    )
    tuned["value"] = grouped["value"].mean().where(grouped["value"].count() == grouped.size())
    return tuned[tuned["ended"]].drop(columns="ended").reset_index()


def best_configurations(study: StudyTables) -> dict[str, tuple[str, float]]:
    """The best completed configuration of the first searcher's first search and its value, by arm."""
    searchers = study.searchers()
    if not searchers:
        return {}
    tuned = configurations(study, searchers[0])
    tuned = tuned[tuned["completed"] & (tuned["repeat"] == 0)].dropna(subset=["value", "configuration"])
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
    or failed counts as the worst value that any configuration of the study reached. Of several searches it is the mean,
    up to the length of the shortest.
    """
    parts = []
    finite = [seen["value"].dropna() for seen in tuned.values()]
    values = pd.concat(finite) if finite else pd.Series(dtype="float64")
    worst = float(values.min() if study.lock.mode == "max" else values.max()) if len(values) else math.nan
    for searcher, seen in tuned.items():
        for arm in study.arms:
            columns = [rows["value"] for _, rows in seen[seen["arm"] == arm].groupby("repeat")]
            if not any(column.notna().any() for column in columns):
                continue
            counts = _counts(min(map(len, columns)))
            curves = [expected_best(column.fillna(worst), study.lock.sign, counts) for column in columns]
            curve = np.mean(curves, axis=0)
            rows = {"searcher": searcher, "arm": arm, "trials": counts, "expected_best": curve}
            parts.append(pd.DataFrame(rows))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=BEST_AFTER.names)


def searcher_table(study: StudyTables, tuned: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What each searcher found for each arm: the columns of searchers.csv.

    Searchers are compared with the first one where there are several searches, paired by the number of the search.
    """
    rows = []
    bests = {name: _bests(seen, study.lock.sign) for name, seen in tuned.items()}
    first = next(iter(tuned), "")
    for searcher, seen in tuned.items():
        for arm in study.arms:
            mine = seen[seen["arm"] == arm]
            best = _of_arm(bests[searcher], arm)
            gap = (best - _of_arm(bests[first], arm)).dropna()
            compared = paired_t(gap, np.zeros(len(gap))).difference if searcher != first else None
            rows.append(
                {
                    "searcher": searcher,
                    "arm": arm,
                    "configurations": len(mine),
                    "without_value": int(mine["value"].isna().sum()),
                    "best": study.lock.sign * float((study.lock.sign * best).max()) if len(best) else math.nan,
                    "device_s": float(mine["device_s"].sum()),
                    "searches": len(best),
                    "mean_best": float(best.mean()),
                    "difference": compared.mean if compared else math.nan,
                    "difference_low": compared.low if compared else math.nan,
                    "difference_high": compared.high if compared else math.nan,
                    "pairs": compared.n if compared else 0,
                }
            )
    return pd.DataFrame(rows, columns=SEARCHERS.names)


def _bests(seen: pd.DataFrame, sign: float) -> pd.Series[float]:
    """The best value of each search, by arm and number of the search; searches without a value are left out."""
    best: pd.Series[float] = (sign * seen["value"]).groupby([seen["arm"], seen["repeat"]]).max().dropna() * sign
    return best


def _of_arm(bests: pd.Series[float], arm: str) -> pd.Series[float]:
    """The values of an arm, by number of the search."""
    mine: pd.Series[float] = bests[bests.index.get_level_values("arm") == arm].droplevel("arm")
    return mine


def _counts(n: int) -> list[int]:
    if n <= MAX_POINTS:
        return list(range(1, n + 1))
    return sorted({round(float(t)) for t in np.geomspace(1, n, MAX_POINTS)})
