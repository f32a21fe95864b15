"""The section on what was taken for what: confusion matrices by arm, or the most frequent confusions of many classes."""

from __future__ import annotations

import math

from lrstudy_reports import formats
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.confusion_figure import MOST_CLASSES, most_panels
from lrstudy_reports.counting import row_shares
from lrstudy_reports.page import Cell, PageSection, Table

_MOST_PAIRS = 12


def confusion(analysis: Analysis) -> PageSection:
    """The section: a figure and, folded away, the matrices as tables; of many classes the pairs most often confused."""
    arms = [arm for arm in analysis.comparison.arms["arm"] if arm in analysis.predicted.of_arm]
    tables = _frequent(analysis, arms) if len(analysis.predicted.names) > MOST_CLASSES else _matrices(analysis, arms)
    return PageSection(
        "confusion",
        "Confusions",
        tables=tables,
        notes=_notes(analysis, arms) if tables else [],
        drawings=analysis.drawn("confusion", "confusion_by_label"),
    )


def _matrices(analysis: Analysis, arms: list[str]) -> list[Table]:
    make = _by_label if analysis.predicted.has_several else _matrix
    return [make(analysis, arm) for arm in arms[: most_panels(len(analysis.predicted.names))]]


def _matrix(analysis: Analysis, arm: str) -> Table:
    """The confusion matrix of an arm: counts, with the share of the row below."""
    predicted = analysis.predicted
    matrix = predicted.matrix(arm)
    shares = row_shares(matrix)
    rows = [
        [Cell(name), *(_cell(int(count), float(share)) for count, share in zip(matrix[k], shares[k], strict=True))]
        for k, name in enumerate(predicted.names)
    ]
    columns = ["True class", *(f"as {name}" for name in predicted.names)]
    return Table(f"{arm}: confusion matrix", columns, rows, frozenset(range(1, len(columns))), folded=True)


def _by_label(analysis: Analysis, arm: str) -> Table:
    """What became of the examples with each label, and of those without it."""
    predicted = analysis.predicted
    matrix = predicted.matrix(arm)
    shares = row_shares(matrix)
    rows = []
    for k, name in enumerate(predicted.names):
        cells = [_cell(int(matrix[k][at]), float(shares[k][at])) for at in ((1, 1), (1, 0), (0, 1), (0, 0))]
        rows.append([Cell(name), *cells])
    columns = ["Label", "Has it: found", "Has it: missed", "Has it not: false alarm", "Has it not: rightly none"]
    return Table(f"{arm}: confusion by label", columns, rows, frozenset({1, 2, 3, 4}), folded=True)


def _frequent(analysis: Analysis, arms: list[str]) -> list[Table]:
    """The pairs of classes that were confused most often, over all arms, with their shares by arm."""
    wrong = analysis.confusions[analysis.confusions["true"] != analysis.confusions["predicted"]]
    if analysis.predicted.has_several or wrong.empty:
        return []
    pairs = wrong.groupby(["true", "predicted"])["count"].sum().sort_values(ascending=False, kind="stable")
    share_of = wrong.set_index(["true", "predicted", "arm"])["fraction"].to_dict()
    rows = []
    for truth, taken in pairs.head(_MOST_PAIRS).index:
        shares = [Cell(f"{share_of.get((truth, taken, arm), 0.0):.1%}") for arm in arms]
        rows.append([Cell(f"{truth} as {taken}"), *shares])
    columns = ["Confusion", *arms]
    caption = "Most frequent confusions over all arms: share of the true class's examples"
    return [Table(caption, columns, rows, frozenset(range(1, len(columns))))]


def _notes(analysis: Analysis, arms: list[str]) -> list[str]:
    trials = {len(analysis.predicted.of_arm[arm]) for arm in arms}
    number = (
        f"{min(trials)} to {max(trials)} confirm trials"
        if len(trials) > 1
        else formats.count(min(trials), "confirm trial")
    )
    how = (
        "A label counts as predicted from a probability of one half on"
        if analysis.predicted.has_several
        else "The class with the highest probability counts as predicted"
    )
    notes = [
        f"{how}. Counts are sums over {number} per arm, which all see the same test examples; shares are of each row's truth."
    ]
    most = most_panels(len(analysis.predicted.names))
    if len(analysis.predicted.names) > MOST_CLASSES or len(arms) > most:
        notes.append("tables/confusion.csv has all classes and arms.")
    return notes


def _cell(count: int, share: float) -> Cell:
    return Cell(f"{count:,}", "" if math.isnan(share) else f"{share:.0%}" if share in (0, 1) else f"{share:.1%}")
