"""Builds a report: analyse the tables, draw the figures, render the page, and replace every file atomically."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from lrstudy_reports import figures, last_answer, traces
from lrstudy_reports.accounts import troubled
from lrstudy_reports.accuracy_per_gpu_hour import accuracy_per_gpu_hour
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.class_schemas import CLASS_METRICS, CONFUSION, EXACT_MATCH
from lrstudy_reports.comparison import Comparison, compare
from lrstudy_reports.confusion_figure import confusions
from lrstudy_reports.costs import Closing, Sharing, close_ledger, sharing
from lrstudy_reports.curves import mean_curves
from lrstudy_reports.page import Drawing, render
from lrstudy_reports.predicted import Predicted, predicted
from lrstudy_reports.schemas import ACCURACY, ARMS, CONFIRMED, CURVES, SCHEMA_VERSION
from lrstudy_reports.sections import compose
from lrstudy_reports.style import Look, looks, settings, svg
from lrstudy_reports.table_description import TableDescription
from lrstudy_reports.tables import StudyTables, load
from lrstudy_reports.tuning import all_configurations, best_after, searcher_table
from lrstudy_reports.until import until_table
from lrstudy_reports.wording import FIGURES


def build_report(folder: Path) -> Path:
    """Write the report's tables and report/ of the study in `folder`; return the path of index.html.

    index.html is self-contained and is replaced last. Files of an earlier report that this one does not
    have are removed.
    """
    study = load(folder)
    comparison = compare(study)
    tuned = all_configurations(study)
    after, searchers = best_after(study, tuned), searcher_table(study, tuned)
    curves, tested = mean_curves(comparison.curves, study.lock), predicted(study)
    areas, ratios = tested.areas(), tested.class_metrics()
    confused, exact = tested.confusions(), tested.exact_matches()
    shared, closing = sharing(study), close_ledger(study)
    look = looks(study.arms, study.lock.control)
    drawings = _draw(study, comparison, curves, after, shared, closing, tested, look)
    last, targets = last_answer.read(folder), until_table(study, comparison.curves)
    page = compose(
        Analysis(
            study, comparison, shared, closing, searchers, tested, areas, ratios, confused, exact, look, drawings, targets,
            last,
        )
    )  # fmt: skip
    report = folder / "report"
    frames = {
        "arms": comparison.arms,
        "best_after": after,
        "calibration": comparison.calibration.updates,
        "class_metrics": ratios,
        "classes": areas.reset_index(),
        "confirmed": _confirmed(study),
        "confusion": confused,
        "curves": curves,
        "exact_match": exact,
        "ledger": _closing_table(closing),
        "searchers": searchers,
        "searches": shared.searches,
        "sharing": shared.arms.reset_index(),
        "trouble": troubled(study),
        "until": targets,
    }
    written = {f"tables/{name}.csv": csv(frame) for name, frame in frames.items() if len(frame.columns) > 1}
    written |= {f"figures/{name}.svg": drawing.svg.encode() for name, drawing in drawings.items()}
    texts = {name: text.encode() for name, text in render(page).items()}
    if comparison.final and comparison.arms["test_metric"].notna().any():
        written[last_answer.FILE] = last_answer.render(last_answer.of_study(study, page.answer))
    parquet: dict[TableDescription, list[dict[Any, Any]]] = {
        ARMS: comparison.rows(),
        ACCURACY: accuracy_per_gpu_hour(study, comparison),
        CLASS_METRICS: without_nan(ratios).to_dict("records"),
        CONFUSION: without_nan(confused).to_dict("records"),
        CURVES: without_nan(curves).to_dict("records"),
        EXACT_MATCH: without_nan(exact).to_dict("records"),
    }
    for table, rows in parquet.items():
        replace(folder / f"{table.name}.parquet", as_parquet(table, rows))
    for name, content in [*written.items(), ("report.md", texts["report.md"])]:
        replace(report / name, content)
    _remove_others(report, set(written))
    replace(report / "index.html", texts["index.html"])
    return report / "index.html"


def as_parquet(table: TableDescription, rows: list[dict[Any, Any]]) -> bytes:
    """The rows of a table as the bytes of a Parquet file."""
    schema = table.schema.with_metadata({"lrstudy_reports.schema": str(SCHEMA_VERSION)})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), buffer)
    return buffer.getvalue()


def replace(path: Path, content: bytes) -> None:
    """Replace `path` atomically: readers see either the old file or the new one, never part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _draw(
    study: StudyTables,
    comparison: Comparison,
    curves: pd.DataFrame,
    after: pd.DataFrame,
    shared: Sharing,
    closing: Closing | None,
    tested: Predicted,
    look: Mapping[str, Look],
) -> dict[str, Drawing]:
    """All figures that the study has data for, by name."""
    makers: dict[str, Callable[[], Figure | None]] = {
        "verdicts": lambda: figures.verdicts(study, comparison, look),
        "over_cost": lambda: figures.over_cost(study, curves, comparison, look),
        "over_epochs": lambda: figures.over_epochs(study, curves, look),
        "traces": lambda: traces.draw(traces.applied_rates(study, comparison), look),
        "best_after": lambda: figures.best_after(study, after, look),
        "confusion_by_label" if tested.has_several else "confusion": lambda: confusions(
            tested, comparison.arms["arm"].tolist()
        ),
        "sharing": lambda: figures.sharing(shared),
        "ledger": lambda: figures.ledger(study, closing),
    }
    drawings = {}
    with settings():
        for name, make in makers.items():
            figure = make()
            if figure is not None:
                drawings[name] = Drawing(name, *FIGURES[name], svg(figure))
    return drawings


def _confirmed(study: StudyTables) -> pd.DataFrame:
    confirm = study.trials[study.trials["phase"] == "confirm"]
    return confirm[CONFIRMED.names].sort_values("trial_id", kind="stable")


def _closing_table(closing: Closing | None) -> pd.DataFrame:
    if closing is None:
        return pd.DataFrame()
    last = pd.DataFrame(
        {
            "category": ["unaccounted", "allocated"],
            "device_s": [closing.unaccounted_s, closing.allocated_s],
        }
    )
    last["fraction"] = last["device_s"] / closing.allocated_s
    return pd.concat([closing.categories, last], ignore_index=True)


def without_nan(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with None for missing values."""
    return frame.astype(object).where(frame.notna(), None)


def csv(frame: pd.DataFrame) -> bytes:
    """The frame as a CSV file."""
    return frame.to_csv(index=False, float_format="%.10g", lineterminator="\n").encode()


def _remove_others(report: Path, written: set[str]) -> None:
    """Remove tables and figures of an earlier report that this one lacks."""
    for pattern in ("tables/*.csv", "figures/*.svg"):
        for path in report.glob(pattern):
            if path.relative_to(report).as_posix() not in written:
                path.unlink(missing_ok=True)
