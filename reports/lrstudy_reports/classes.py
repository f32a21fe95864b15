"""Class counts, what each arm makes of each class, exact matches, and the report metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from lrstudy_reports import formats
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.page import Cell, PageSection, Table
from lrstudy_reports.predicted import class_names
from lrstudy_reports.statistics import mean_interval
from lrstudy_reports.tables import StudyTables, test_metrics

UNDEFINED = "undefined"
MOST_CLASSES = 20
MOST_SINGLY = 4
"""So many numbers of wrong labels, from 0, have a column each; if there are more labels, the rest have one together."""
_PARTS = ("train", "validation", "test")


def classes(analysis: Analysis) -> PageSection:
    """The section on the report metrics, on the two classes of a binary task or on each class, and on exact matches."""
    predicted = analysis.predicted
    found = [_further(analysis), *_twofold(analysis), _per_class(analysis), *_ratios(analysis), _exact(analysis)]
    tables = [table for table in found if table is not None]
    notes = []
    if predicted.is_twofold and predicted.of_arm:
        notes.append(
            "Sensitivity is the share of positives, specificity of negatives that are recognised; precision (positive "
            "predictive value) and negative predictive value are the shares of such predictions that are right. The more "
            "probable class is predicted; another threshold would trade one for the other."
        )
    if any(cell.text == UNDEFINED for table in tables for row in table.rows for cell in row):
        notes.append(
            "Undefined: no example of that part has the class, or all have, or none was predicted to have it. Means over "
            "classes leave it out."
        )
    if tables and predicted.is_twofold and predicted.of_arm:
        has_auroc = "auroc" in (analysis.study.lock.metric, *analysis.study.lock.report_metrics)
        where = "it stands above" if has_auroc else "with auroc among the report metrics it is shown"
        notes.append(f"Of two classes each is ranked as well as the other: they have one AUROC, and {where}.")
    if len(predicted.names) > MOST_CLASSES:
        notes.append(
            f"The {MOST_CLASSES} largest of {len(predicted.names)} classes; tables/classes.csv and tables/class_metrics.csv "
            "have all."
        )
    return PageSection("classes", "Classes and further metrics", tables=tables, notes=notes)


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
    areas = analysis.areas
    arms = [arm for arm in analysis.comparison.arms["arm"] if arm in areas and not analysis.predicted.is_twofold]
    rows = []
    for k in _shown(study):
        ranked = [_value(float(areas[arm].iloc[k]), math.nan, math.nan, 3) for arm in arms]
        rows.append([Cell(names[k]), *(Cell(f"{counts[part][k]:,}") for part in _PARTS), *ranked])
    totals = [study.lock.data.get(part) for part in _PARTS]
    last = [Cell(f"{total:,}" if isinstance(total, int) else "") for total in totals]
    rows.append([Cell("all examples"), *last, *(Cell("") for _ in arms)])
    caption = "Examples by class and part" + ("; test AUROC against the rest by arm, mean over seeds" if arms else "")
    columns = ["Class", "Training", "Validation", "Test", *arms]
    return Table(caption, columns, rows, frozenset(range(1, len(columns))))


def _twofold(analysis: Analysis) -> list[Table]:
    """Sensitivity, specificity and what goes with them, by arm, of a task with two classes; the second is the positive one."""
    predicted = analysis.predicted
    if not predicted.is_twofold or not predicted.of_arm:
        return []
    negative, positive = predicted.names
    wanted = ((1, "recall"), (1, "specificity"), (1, "precision"), (0, "precision"), (1, "f1"))
    by_arm = _by_arm(analysis)
    decimals = [_decimals([row_of[k] for _, row_of in by_arm], ratio) for k, ratio in wanted]
    rows = [
        [analysis.arm(arm), *(_of_row(row_of[k], ratio, n) for (k, ratio), n in zip(wanted, decimals, strict=True))]
        for arm, row_of in by_arm
    ]
    columns = ["Arm", "Sensitivity", "Specificity", "Precision", "Negative predictive value", "F1"]
    caption = f"Test examples told apart, positive being {positive} and negative {negative}"
    return [Table(caption, columns, rows, frozenset(range(1, len(columns))))]


def _ratios(analysis: Analysis) -> list[Table]:
    """F1 by class and arm and, folded away, what it is made of; a task with two classes has a table of its own."""
    predicted = analysis.predicted
    if predicted.is_twofold or not predicted.of_arm:
        return []
    names = {"f1": "F1", "precision": "Precision", "recall": "Recall"}
    if predicted.has_several:
        names |= {"recall": "Sensitivity (recall)", "specificity": "Specificity"}
    by_arm = _by_arm(analysis)
    support = by_arm[0][1]
    columns = ["Class", "Test examples", *(arm for arm, _ in by_arm)]
    tables = []
    for ratio, name in names.items():
        decimals = _decimals([row for _, row_of in by_arm for row in row_of], ratio)
        rows = [
            [
                Cell(predicted.names[k]),
                Cell(f"{support[k]['support']:,}"),
                *(_of_row(row_of[k], ratio, decimals) for _, row_of in by_arm),
            ]
            for k in _shown(analysis.study)
        ]
        caption = f"{name} by class on the test part, mean over seeds"
        tables.append(Table(caption, columns, rows, frozenset(range(1, len(columns))), folded=ratio != "f1"))
    return tables


def _by_arm(analysis: Analysis) -> list[tuple[str, list[dict[Any, Any]]]]:
    """The arms whose predictions are known, best first, with the rows of class_metrics.csv of their classes."""
    found: dict[str, list[dict[Any, Any]]] = {
        str(arm): rows.to_dict("records") for arm, rows in analysis.class_metrics.groupby("arm")
    }
    return [(str(arm), found[arm]) for arm in analysis.comparison.arms["arm"] if arm in found]


def _decimals(rows: Iterable[Mapping[Any, Any]], name: str) -> int:
    """As many decimals as suit the intervals of a column."""
    return formats.decimals_for(formats.half_width(row[f"{name}_low"], row[f"{name}_high"]) for row in rows)


def _of_row(row: Mapping[str, Any] | pd.Series[Any], ratio: str, decimals: int) -> Cell:
    """A ratio with its interval; or, of precision, how many trials predicted the class, if not all did."""
    cell = _value(row[ratio], row[f"{ratio}_low"], row[f"{ratio}_high"], decimals)
    if ratio == "precision" and 0 < row["predicted_by"] < row["trials"]:
        return replace(cell, sub=f"in {row['predicted_by']} of {row['trials']} seeds")
    return cell


def _exact(analysis: Analysis) -> Table | None:
    """How many of an example's labels are wrong, as shares of the test examples by arm; None with one label each."""
    frame, most = analysis.exact, len(analysis.predicted.names)
    if frame.empty:
        return None
    singly = range(most) if most <= MOST_SINGLY + 1 else range(MOST_SINGLY)
    rest, decimals = range(len(singly), most), _decimals(frame.to_dict("records"), "fraction")
    rows = []
    for arm in analysis.comparison.arms["arm"]:
        mine = frame[frame["arm"] == arm].set_index("wrong")
        if mine.empty:
            continue
        values = [_of_row(mine.loc[k], "fraction", decimals) for k in (*singly, most)]
        between = [Cell(formats.fixed(float(mine.loc[list(rest), "fraction"].sum()), decimals))] if rest else []
        rows.append([analysis.arm(arm), *values[:-1], *between, values[-1]])
    names = [
        "All right",
        *(f"{k} wrong" for k in singly[1:]),
        *([f"{rest[0]} to {rest[-1]} wrong"] if rest else []),
        "All wrong",
    ]
    caption = f"Test examples by how many of their {most} labels are predicted wrongly, mean over seeds"
    return Table(caption, ["Arm", *names], rows, frozenset(range(1, len(names) + 1)))


def _value(mean: float, low: float, high: float, decimals: int) -> Cell:
    if math.isnan(mean):
        return Cell(UNDEFINED)
    return Cell(formats.fixed(mean, decimals), formats.interval(low, high, decimals))


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
