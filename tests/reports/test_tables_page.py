"""docs/tables.md: as rendered from the columns that the code has, and those are the columns of the files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from docs import tables as page

from lrstudy.study_folder import schemas as engine
from lrstudy.study_folder.ledger import CATEGORIES
from lrstudy_reports import schemas as reports
from lrstudy_reports.calibration import calibrate
from lrstudy_reports.curves import FRACTIONS
from lrstudy_reports.tables import load
from report_studies import edit_table

PARQUET = [*engine.TABLES, *reports.PARQUET_TABLES]


def fits(pattern: str, name: str) -> bool:
    """Whether a column's name is one of those that a pattern such as ``p_<name>`` stands for."""
    return bool(re.fullmatch(re.sub("<[a-z]+>", ".+", pattern), name))


def check(table: page.Description, names: Sequence[str]) -> None:
    """The file has every column that is documented, first and in this order, and none that is not."""
    documented = [column.name for column in table.columns]
    patterns = [column.name for column in table.patterns]
    assert list(names[: len(documented)]) == documented
    further = names[len(documented) :]
    assert [name for name in further if not any(fits(pattern, name) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fits(pattern, name) for name in further)] == []


def test_the_page_is_what_is_rendered_from_the_columns() -> None:
    assert page.FILE.read_text() == page.render(), "python -m docs.tables writes it anew"


@pytest.mark.parametrize("table", PARQUET, ids=lambda table: table.name)
def test_every_column_of_a_parquet_file_is_documented_with_its_type(reported: Path, table: page.Description) -> None:
    schema = pq.read_schema(reported / f"{table.name}.parquet")
    check(table, schema.names)
    assert [schema.field(column.name).type for column in table.columns] == [column.type for column in table.columns]


def test_every_category_of_the_ledger_is_documented() -> None:
    (category,) = (
        c for table in engine.TABLES if table.name == "ledger" for c in table.columns if c.name == "category"
    )
    assert set(re.findall(r"`(\w+)`", category.meaning)) == set(CATEGORIES)


def test_the_columns_of_patterns_are_those_of_parameters_and_metrics(reported: Path) -> None:
    metrics = ["accuracy", "balanced_accuracy", "f1", "auroc", "average_precision"]
    trials, epochs = (pq.read_schema(reported / f"{name}.parquet").names for name in ("trials", "epochs"))
    assert epochs[len(engine.EPOCHS) :] == [*(f"val_{name}" for name in metrics), "train_accuracy"]
    further = trials[len(engine.TRIALS) :]
    assert {"p_lr", "p_gamma", "p_section_ratios"} <= set(further)
    measured = sorted(f"{part}_{name}" for part in ("test", "train") for name in metrics)
    assert further[-len(measured) :] == measured
    assert {f"metric_at_{round(100 * part)}" for part in FRACTIONS} <= set(reports.ARMS.names)


@pytest.mark.parametrize("table", reports.CSV_TABLES, ids=lambda table: table.name)
def test_every_column_of_a_csv_file_is_documented(reported: Path, table: reports.TableDescription) -> None:
    names = pd.read_csv(reported / "report" / "tables" / f"{table.name}.csv").columns
    if table != reports.CALIBRATION:
        check(table, names)


def test_the_columns_of_costs_are_documented_whether_they_were_measured_or_not(make, reported: Path) -> None:
    folder = make("small")
    edit_table(folder / "calibration.parquet", lambda prices: prices[:0])
    measured, medians = (list(calibrate(load(study)).updates.columns) for study in (reported, folder))
    assert measured == pd.read_csv(reported / "report" / "tables" / "calibration.csv").columns.tolist()
    table = reports.CALIBRATION
    assert set(table.names) == set(measured) & set(medians)
    assert {column.name for column in table.patterns} == set(measured) ^ set(medians)
