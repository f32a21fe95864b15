"""The section on the rates that range tests found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lrstudy_reports import formats
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.page import Cell, PageSection, Table


def found_rates(analysis: Analysis) -> PageSection:
    """The section on the rates that were found; without content if there are none."""
    tests = analysis.study.range_tests
    if tests.empty:
        return PageSection("rates", "Rates that were found")
    unit = formats.time_unit(analysis.study.lock.unit, tests["device_s"].tolist())
    cells = [
        [
            analysis.arm(str(row["arm"])),
            Cell(str(row["parameter"]) if pd.notna(row["parameter"]) else "lr"),
            Cell(f"{row['lr']:g}"),
            Cell(str(row["suggestion"]) if pd.notna(row["suggestion"]) else formats.MISSING, _how(row)),
            Cell(f"{row['updates']:.0f}" if pd.notna(row["updates"]) else formats.MISSING),
            Cell(unit(row["device_s"]), _whose(row)),
        ]
        for row in tests.to_dict("records")
    ]
    columns = ["Arm", "Parameter", "Rate", "Suggestion", "Updates", f"Cost, {unit.label}"]
    table = Table("Rates found by range tests", columns, cells, frozenset({2, 4, 5}))
    text = (
        "Range tests found these peak rates before the first trial, those of an arm's later stages from where its default "
        "configuration had led. Their cost is part of the tuning cost of every arm that uses them; the study paid for each "
        "test once. range_tests.parquet has the curves."
    )
    return PageSection("rates", "Rates that were found", text=[text], tables=[table])


def _how(row: Mapping[Any, Any]) -> str:
    return f"{row['form']}, {row['low']:g} to {row['high']:g}" if pd.notna(row["form"]) else ""


def _whose(row: Mapping[Any, Any]) -> str:
    return "recalled" if row["recalled"] else "" if row["spent_device_s"] else "shared"
