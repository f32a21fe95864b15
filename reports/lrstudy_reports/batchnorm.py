"""What BatchNorm's statistics have to do with the arms: their test values with running and with recomputed ones."""

from __future__ import annotations

import math

import pandas as pd

from lrstudy_reports import formats
from lrstudy_reports.statistics import Interval, mean_interval
from lrstudy_reports.tables import StudyTables

_WORDS = {
    "running": "the running statistics of training",
    "precise": "statistics recomputed over the training part",
}


def batchnorm_notes(study: StudyTables) -> list[str]:
    """Both test values of each arm where one lies outside the interval of the other; a sentence if there is no such arm.

    Both intervals count: running statistics that do not fit also scatter, which widens the interval of those values. If neither
    has one, as with two seeds, any difference that is shown counts. Nothing is said if no trial was tested with both.
    """
    used = "precise" if study.lock.numerics.get("batchnorm") == "precise" else "running"
    other = "running" if used == "precise" else "precise"
    names = [f"test_metric_{used}", f"test_metric_{other}"]
    tested = study.confirming.dropna(subset=names)
    if tested.empty:
        return []
    metric = study.lock.metric.replace("_", " ")
    moved = [_moved(arm, tested.loc[tested["arm"] == arm, names]) for arm in study.arms]
    shown = [text for text in moved if text]
    if not shown:
        return [f"BatchNorm: no arm's test {metric} with {_WORDS[other]} differs by more than its interval."]
    return [
        f"BatchNorm decides: test {metric} with {_WORDS[used]}, by which arms are compared here, and with {_WORDS[other]}: "
        f"{formats.listed(shown)}. The two differ by more than an interval; `workload: {{batchnorm: {other}}}` compares by "
        "the second."
    ]


def _moved(arm: str, values: pd.DataFrame) -> str:
    """Both means of an arm, if they differ by more than an interval; else nothing."""
    one, other = (mean_interval(values[name]) for name in values.columns)
    if not one.n or not _differ(one, other):
        return ""
    return f"{arm} {formats.fixed(one.mean, 3)} and {formats.fixed(other.mean, 3)}"


def _differ(one: Interval, other: Interval) -> bool:
    """Whether either mean lies outside the interval of the other."""
    pairs = [(mean, within) for mean, within in ((one.mean, other), (other.mean, one)) if math.isfinite(within.low)]
    if not pairs:
        return round(one.mean, 3) != round(other.mean, 3)
    return any(not within.low <= mean <= within.high for mean, within in pairs)
