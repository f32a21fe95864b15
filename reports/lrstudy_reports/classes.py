"""Class counts, test AUROC by class and arm, and the report metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lrstudy_reports import formats
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.page import Cell, PageSection, Table
from lrstudy_reports.statistics import mean_interval
from lrstudy_reports.tables import StudyTables, predictions, test_metrics

UNDEFINED = "undefined"
MOST_CLASSES = 20
_PARTS = ("train", "validation", "test")


def auroc_by_class(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Area under the ROC curve of each class, from scores and truth, both of shape (examples, classes).

    This is the probability that an example of the class scores higher than one that is not of it, ties counting
    half (Mann and Whitney). NaN for a class that no example has, or that all have.
    """
    ranks = pd.DataFrame(scores).rank().to_numpy()
    positives = positive.sum(axis=0).astype(np.float64)
    pairs = positives * (len(scores) - positives)
    above = (ranks * positive).sum(axis=0) - positives * (positives + 1) / 2
    return np.asarray(np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan))


def by_class(study: StudyTables) -> pd.DataFrame:
    """Test AUROC by class (rows) and arm (columns), averaged over the arm's confirm trials; NaN where undefined."""
    names = class_names(study)
    columns: dict[str, NDArray[np.float64]] = {}
    trials = study.confirming[["trial_id", "arm"]].to_dict("records")
    predicted = predictions(study.folder, [str(trial["trial_id"]) for trial in trials])
    for arm in study.arms:
        mine = [
            predicted[trial["trial_id"]] for trial in trials if trial["arm"] == arm and trial["trial_id"] in predicted
        ]
        values = [_of_trial(rows) for rows in mine]
        if values and all(len(value) == len(names) for value in values):
            columns[arm] = np.mean(values, axis=0)
    return pd.DataFrame(columns, index=pd.Index(names, name="class"))


def class_names(study: StudyTables) -> list[str]:
    """The names of the classes; an empty list if the lock does not have them."""
    names = study.lock.data.get("classes")
    return [str(name) for name in names] if isinstance(names, list) else []


def classes(analysis: Analysis) -> PageSection:
    """The section on classes (examples in each part, test AUROC by arm) and on the report metrics."""
    study = analysis.study
    tables = [table for table in (_further(analysis), _per_class(analysis)) if table is not None]
    notes = []
    if any(cell.text == UNDEFINED for table in tables for row in table.rows for cell in row):
        notes.append(
            "Undefined: no example of that part has the class, or all have, so there is nothing to rank. Means over "
            "classes leave it out."
        )
    if tables and _is_twofold(study) and len(analysis.ranked.columns):
        has_auroc = "auroc" in (study.lock.metric, *study.lock.report_metrics)
        where = "it stands above" if has_auroc else "with auroc among the report metrics it is shown"
        notes.append(f"Of two classes each is ranked as well as the other: they have one AUROC, and {where}.")
    if len(class_names(study)) > MOST_CLASSES:
        notes.append(f"The {MOST_CLASSES} largest of {len(class_names(study))} classes; tables/classes.csv has all.")
    return PageSection("classes", "Classes and further metrics", tables=tables, notes=notes)


def _is_twofold(study: StudyTables) -> bool:
    """Whether every example has one of two classes; two labels that an example may both have are ranked on their own."""
    statistics = study.lock.data.get("statistics")
    has_several = bool(statistics.get("several")) if isinstance(statistics, dict) else False
    return len(class_names(study)) == 2 and not has_several


def _of_trial(rows: Mapping[str, Any]) -> NDArray[np.float64]:
    scores = np.asarray(rows["scores"], dtype=np.float64)
    if rows["labels"] is not None:
        return auroc_by_class(scores, np.asarray(rows["labels"], dtype=bool))
    positive = np.asarray(rows["label"])[:, None] == np.arange(scores.shape[1])
    highest = scores.max(axis=1, keepdims=True)
    total = highest + np.log(np.exp(scores - highest).sum(axis=1, keepdims=True))
    return auroc_by_class(scores - total, positive)  # log probabilities: each class against the rest


def _shown(study: StudyTables) -> list[int]:
    """Indices of the classes to be shown: all, or the largest if they are too many; ascending."""
    counts = _counts(study, "train")
    number = len(class_names(study))
    if number <= MOST_CLASSES:
        return list(range(number))
    return sorted(sorted(range(number), key=lambda k: -counts[k] if counts else k)[:MOST_CLASSES])


def _counts(study: StudyTables, part: str) -> Sequence[int]:
    statistics = study.lock.data.get("statistics")
    body = statistics.get(part) if isinstance(statistics, dict) else None
    counts = body.get("counts") if isinstance(body, dict) else None
    return counts if isinstance(counts, list) and len(counts) == len(class_names(study)) else []


def _per_class(analysis: Analysis) -> Table | None:
    """One row per class: its examples in each part, and its test AUROC under each arm."""
    study, names = analysis.study, class_names(analysis.study)
    counts = {part: _counts(study, part) for part in _PARTS}
    if not all(counts.values()):
        return None
    is_twofold = _is_twofold(study)
    arms = [arm for arm in analysis.comparison.arms["arm"] if arm in analysis.ranked and not is_twofold]
    rows = []
    for k in _shown(study):
        values = [float(analysis.ranked[arm].iloc[k]) for arm in arms]
        ranked = [Cell(UNDEFINED if math.isnan(v) else formats.fixed(v, 3)) for v in values]
        rows.append([Cell(names[k]), *(Cell(f"{counts[part][k]:,}") for part in _PARTS), *ranked])
    totals = [study.lock.data.get(part) for part in _PARTS]
    last = [Cell(f"{total:,}" if isinstance(total, int) else "") for total in totals]
    rows.append([Cell("all examples"), *last, *(Cell("") for _ in arms)])
    caption = "Examples by class and part" + ("; test AUROC against the rest by arm, mean over seeds" if arms else "")
    columns = ["Class", "Training", "Validation", "Test", *arms]
    return Table(caption, columns, rows, frozenset(range(1, len(columns))))


def _further(analysis: Analysis) -> Table | None:
    """The report metrics on the test part, by arm."""
    study = analysis.study
    wanted = [name for name in study.lock.report_metrics if name != study.lock.metric]
    frame = test_metrics(study.folder, wanted)
    if not wanted or frame.empty:
        return None
    by_trial = frame.set_index("trial_id")
    rows = []
    for arm in analysis.comparison.arms["arm"]:
        mine = study.confirming.loc[study.confirming["arm"] == arm, "trial_id"]
        values = by_trial.reindex(mine)
        rows.append([analysis.arm(arm), *(_mean(values[name], study.lock.level) for name in wanted)])
    columns = ["Arm", *(f"Test {name.replace('_', ' ')}" for name in wanted)]
    caption = "Further metrics on the test part; nothing was chosen by them"
    return Table(caption, columns, rows, frozenset(range(1, len(columns))))


def _mean(values: pd.Series[Any], level: float) -> Cell:
    interval = mean_interval(values, level, bounded=True)
    if interval.n == 0:
        return Cell(UNDEFINED if len(values) else formats.MISSING)
    decimals = formats.decimals_for([formats.half_width(interval.low, interval.high)])
    return Cell(formats.fixed(interval.mean, decimals), formats.interval(interval.low, interval.high, decimals))
