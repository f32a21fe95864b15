"""The section on what became of the value that a configuration was chosen by: tuned, confirmed, tested."""

from __future__ import annotations

import math
from typing import Any

from lrstudy_reports import formats
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.headline import metric_name
from lrstudy_reports.lock import Lock
from lrstudy_reports.page import Cell, PageSection, Table
from lrstudy_reports.statistics import Interval
from lrstudy_reports.training_part import as_it_went, counted_in_training, fitted, lost_on_test

_ON_TRAINING = (
    "On the training part: as the epoch went is what training counted of its own predictions in the selected epoch, of augmented "
    "images and by weights that changed with every update. The tested state was evaluated in one more pass, as on the test part."
)
LARGE_GAP = 0.05
"""Validation and test values that differ by less are not remarked on."""


def transfer(analysis: Analysis) -> PageSection:
    """The section: validation of the tuned trial, mean validation and test value of its confirm trials, side by side."""
    rows = [row for row in analysis.comparison.rows() if row["confirmed_val_metric"] is not None]
    lock, metric = analysis.study.lock, metric_name(analysis.study)
    decimals = formats.decimals_for(formats.half_width(row["test_low"], row["test_high"]) for row in rows)
    cells = []
    for row in rows:
        tuned, confirmed, test = row["tuned_val_metric"], row["confirmed_val_metric"], row["test_metric"]
        drop = "" if tuned is None else f"{formats.fixed(confirmed - tuned, decimals, sign=True)} to tuned"
        gap = "" if test is None else f"{formats.fixed(test - confirmed, decimals, sign=True)} to confirmed"
        values = ((tuned, ""), (confirmed, drop), (test, gap))
        cells.append([analysis.arm(row["arm"]), *(Cell(formats.fixed(value, decimals), sub) for value, sub in values)])
    if not cells:
        return PageSection("transfer", "From tuning to test")
    columns = ["Arm", "Validation, tuned", "Validation, confirmed", "Test"]
    caption = f"{metric} of the chosen configuration: the best of its tuning trials, and the mean over fresh seeds".capitalize()
    note = (
        "The best of several trials owes some of its value to its seed: the mean over fresh seeds is what its "
        "configuration gives, and tuning again could choose another one."
    )
    on_training = _on_training(analysis)
    return PageSection(
        "transfer",
        "From tuning to test",
        text=[text for text in (gap_in_words(lock, rows),) if text],
        tables=[Table(caption, columns, cells, frozenset({1, 2, 3})), *on_training],
        notes=[note, *([_ON_TRAINING] if on_training else [])],
    )


def _on_training(analysis: Analysis) -> list[Table]:
    """A table of what the tested states make of the training part; none where that was not measured."""
    study = analysis.study
    arms = [row["arm"] for row in analysis.comparison.rows() if row["train_metric"] is not None]
    if not arms:
        return []
    went, fits, lost = ([measure(study, arm) for arm in arms] for measure in (as_it_went, fitted, lost_on_test))
    of_columns = (_cells(went), _cells(fits), _cells(lost, sign=True))
    rows = [[analysis.arm(arm), *cells] for arm, *cells in zip(arms, *of_columns, strict=True)]
    counted, metric = counted_in_training(study).replace("_", " "), metric_name(study)
    columns = [
        "Arm",
        f"{counted} as the epoch went".capitalize(),
        f"{metric} of the tested state".capitalize(),
        "Less the test value",
    ]
    return [Table("On the training part, mean over fresh seeds", columns, rows, frozenset({1, 2, 3}))]


def _cells(intervals: list[Interval], sign: bool = False) -> list[Cell]:
    """A column of means with their intervals, all with as many decimals."""
    decimals = formats.decimals_for(formats.half_width(each.low, each.high) for each in intervals)
    return [
        Cell(formats.fixed(each.mean, decimals, sign), formats.interval(each.low, each.high, decimals, sign))
        for each in intervals
    ]


def gap_in_words(lock: Lock, rows: list[dict[str, Any]]) -> str | None:
    """A sentence on validation and test values that lie further apart than chance explains; None if they do not.

    Chance is three standard errors of the difference of two shares over the examples of the parts; of a mean over
    classes, in which the smallest class decides, that of two means of shares.
    """
    pairs = [
        (row["confirmed_val_metric"], row["test_metric"])
        for row in rows
        if row["confirmed_val_metric"] is not None and row["test_metric"] is not None
    ]
    if not pairs:
        return None
    validation, test = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    share = min(max((validation + test) / 2, 0.0), 1.0)
    error = math.sqrt(share * (1 - share) * sum(1 / size for size in _sizes(lock)))
    if abs(test - validation) <= max(LARGE_GAP, 3 * error):
        return None
    return (
        f"On average over the arms the validation part gave {validation:.2f} and the test part {test:.2f}, which is more "
        "than chance explains: the parts differ. What was chosen on validation need not be the best for data like the "
        "test part."
    )


def _sizes(lock: Lock) -> list[float]:
    """Examples of the validation and the test part; for a mean over classes, as many as would give it the same variance."""
    sizes = []
    statistics = lock.data.get("statistics")
    for part in ("validation", "test"):
        size = lock.data.get(part)
        body = statistics.get(part) if isinstance(statistics, dict) else None
        counts = [count for count in (body or {}).get("counts", ()) if count]
        if lock.metric not in ("accuracy", "exact_match") and counts:
            size = len(counts) ** 2 / sum(1 / count for count in counts)
        if size:
            sizes.append(float(size))
    return sizes
