"""The sections of the page that give account: failed trials, shared epochs, the ledger, and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lrstudy_reports import formats
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.page import Cell, PageSection, Table
from lrstudy_reports.schemas import TROUBLE
from lrstudy_reports.tables import StudyTables

MAX_ROWS = 25
SHORT = 12  # hexadecimal digits of a lineage


def trouble(analysis: Analysis) -> PageSection:
    """The section on trials that diverged, failed or were interrupted."""
    trials = troubled(analysis.study)
    if trials.empty:
        text = "No trial diverged, failed or was interrupted." if len(analysis.study.trials) else ""
        return PageSection("trouble", "Trials that did not complete", text=[text] if text else [])
    cells = [
        [
            Cell(str(row["trial_id"])),
            Cell(str(row["phase"])),
            Cell(str(row["status"])),
            Cell(f"{row['epochs']:.0f}" if pd.notna(row["epochs"]) else formats.MISSING),
            Cell(_first_line(row["error"])),
        ]
        for row in trials.head(MAX_ROWS).to_dict("records")
    ]
    more = len(trials) - len(cells)
    return PageSection(
        "trouble",
        "Trials that did not complete",
        tables=[Table("By trial", ["Trial", "Phase", "Status", "Epochs", "Error"], cells, frozenset({3}))],
        notes=[f"{more:,} more are in tables/trouble.csv."] if more > 0 else [],
    )


def what_was_shared(analysis: Analysis) -> PageSection:
    """The section that compares the epochs asked for with those trained."""
    shared = analysis.sharing
    if not shared.asked:
        return PageSection("sharing", "What was shared")
    unit = formats.time_unit(analysis.study.lock.unit, [shared.asked_device_s, shared.total_device_s])
    searchers, several = analysis.study.searchers(), len(shared.searches) > 1
    search = f"One search ({searchers[0]})" if several else "Tuning"
    text = (
        f"{search} and the confirm trials asked for {formats.count(shared.asked, 'epoch')}, "
        f"{shared.distinct:,} of them distinct: {shared.asked / shared.distinct:.2f} for each one to train. Stand-alone they "
        f"cost {unit(shared.asked_device_s)} {unit.label}; all that the study trained took {unit(shared.total_device_s)}, "
        f"{formats.count(shared.total, 'epoch')}."
    )
    if shared.earlier:
        text += f" {formats.count(shared.earlier, 'distinct epoch')} had been trained by earlier studies."
    if shared.repeated:
        text += f" {formats.count(shared.repeated, 'epoch')} were trained more than once."
    tables = [_shared_by_arm(analysis)]
    if several:
        tables.append(_shared_by_search(shared.searches))
    return PageSection("sharing", "What was shared", text=[text], drawings=analysis.drawn("sharing"), tables=tables)


def _shared_by_arm(analysis: Analysis) -> Table:
    cells = [
        [
            analysis.arm(str(arm)),
            *(Cell(f"{row[name]:,.0f}") for name in ("search_asked", "search_distinct", "trained")),
        ]
        for arm, row in analysis.sharing.arms.iterrows()
    ]
    columns = ["Arm", "Asked for", "Distinct", "Trained by its trials, of all searches"]
    return Table("Epochs by arm", columns, cells, frozenset({1, 2, 3}))


def _shared_by_search(searches: pd.DataFrame) -> Table:
    """Each search by itself: what it asked for, and what it would have trained had there been no other."""
    repeats = searches["repeat"].max() > 0
    cells = [
        [
            Cell(f"{row['searcher']}, search {row['repeat'] + 1}" if repeats else str(row["searcher"])),
            Cell(f"{row['asked']:,}"),
            Cell(f"{row['distinct']:,}"),
            Cell(f"{row['asked'] / max(row['distinct'], 1):.2f}×"),
        ]
        for row in searches.to_dict("records")
    ]
    caption = "Tuning epochs by search, each by itself"
    return Table(caption, ["Search", "Asked for", "Distinct", "Shared"], cells, frozenset({1, 2, 3}))


def ledger(analysis: Analysis) -> PageSection:
    """The section on allocated device time by category, with the sum and what is missing from it."""
    closing = analysis.closing
    if closing is None:
        return PageSection("ledger", "Ledger")
    unit = formats.time_unit(analysis.study.lock.unit, [closing.allocated_s])
    rows = [(str(row["category"]).replace("_", " "), row["device_s"]) for row in closing.categories.to_dict("records")]
    rows += [
        ("sum of categories", closing.accounted_s),
        ("unaccounted", closing.unaccounted_s),
        ("allocated", closing.allocated_s),
    ]
    seconds = [s for _, s in rows]
    shares = [f"{s / (closing.allocated_s or float('nan')):.1%}".replace("-", formats.MINUS) for s in seconds]
    cells = [
        [Cell(name), Cell(time), Cell(share)]
        for (name, _), time, share in zip(rows, unit.column(seconds), shares, strict=True)
    ]
    table = Table("Closing", ["Category", unit.label, "Share"], cells, frozenset({1, 2}))
    text = (
        f"Allocated is the length of {formats.count(closing.runs, 'run')} times "
        f"{formats.count(closing.slots, 'slot')}; what no category holds is unaccounted."
    )
    if not analysis.study.lock.complete:
        text += " While the study runs, that includes what is in flight."
    return PageSection("ledger", "Ledger", text=[text], drawings=analysis.drawn("ledger"), tables=[table])


def provenance(analysis: Analysis) -> PageSection:
    """The section on data, model, numerics and package versions, with the lineages of the confirm trials."""
    study, lock = analysis.study, analysis.study.lock
    groups = (
        ("Data", {name: fact for name, fact in lock.data.items() if name not in ("classes", "statistics")}),
        ("Model", lock.model),
        ("Weights", {name: lock.weights[name] for name in ("source", "name", "digest") if lock.weights.get(name)}),
        ("Numerics", lock.numerics),
        ("Versions", lock.versions),
    )
    bullets = [f"{name}: {formats.value(values)}." for name, values in groups if values]
    cells, confirming = [], study.confirming
    for arm in analysis.comparison.arms["arm"]:
        mine = confirming[confirming["arm"] == arm].head(MAX_ROWS)
        names = [_lineage(row) for row in mine.to_dict("records")]
        if names:
            cells.append([analysis.arm(arm), Cell(", ".join(names))])
    columns = ["Arm", "Seed: lineage of the tested state"]
    tables = [Table("Confirm trials", columns, cells)] if cells else []
    notes = [f"Lineages are cut to {SHORT} digits; tables/confirmed.csv has them whole."] if cells else []
    return PageSection("provenance", "Provenance", bullets=bullets, tables=tables, notes=notes)


def troubled(study: StudyTables) -> pd.DataFrame:
    """The trials that diverged, failed or were interrupted, with the columns of trouble.csv."""
    trials = study.trials[study.trials["status"].isin(["diverged", "failed", "interrupted"])]
    return trials[TROUBLE.names]


def _lineage(row: Mapping[Any, Any]) -> str:
    lineage = row["selected_lineage"] if pd.notna(row["selected_lineage"]) else row["lineage"]
    name = str(lineage)[:SHORT] if pd.notna(lineage) else formats.MISSING
    return f"{row['seed']:.0f}: {name}" + ("" if row["status"] == "completed" else f" ({row['status']})")


def _first_line(error: object) -> str:
    text = str(error).strip() if isinstance(error, str) else ""
    return text.splitlines()[0][:160] if text else formats.MISSING
