"""The section on what became of the value that a configuration was chosen by: tuned, confirmed, tested."""

from __future__ import annotations

import math
from typing import Any

from lrstudy_reports import formats
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.headline import metric_name
from lrstudy_reports.lock import Lock
from lrstudy_reports.page import Cell, PageSection, Table

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
    return PageSection(
        "transfer",
        "From tuning to test",
        text=[text for text in (gap_in_words(lock, rows),) if text],
        tables=[Table(caption, columns, cells, frozenset({1, 2, 3}))],
        notes=[note],
    )


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
