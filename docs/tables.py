"""The page of a study's tables, from the columns that the code has: `python -m docs.tables` writes tables.md anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from lrstudy.study_folder import schemas as engine
from lrstudy_reports import schemas as reports
from lrstudy_reports.pooled_schema import POOLED
from lrstudy_reports.table_description import TableDescription

FILE = Path(__file__).with_name("tables.md")
Description = engine.TableDescription | TableDescription

_INTRODUCTION = """\
# The tables of a study

A study's folder, `<storage.path>/<name>/`, holds

| file | what it is |
|---|---|
| `study.yaml`, `study.lock.json` | the last run's study file, and what it came to: arms, classes, splits, numerics, versions |
| `trials`, `epochs`, `settings`, `ledger`, `calibration`, `range_tests` and `predictions.parquet` | tables that a run writes |
| `accuracy_per_gpu_hour.parquet` | what a report makes of them: test value and cost of each arm and confirm trial, to be put together with those of other studies |
| `arms.parquet`, `curves.parquet`, `report/` | likewise: verdicts; learning curves over calibrated cost; the page, its figures, its tables as CSV |
| `class_metrics`, `confusion` and `exact_match.parquet` | likewise, of the predictions on the test part: precision, recall, F1 and specificity of each class; confusion matrices; how many labels of an example are wrong |
| `journal/`, `predictions/`, `source/` | what a run needs to go on: decisions, predictions by trial, source of own policies |
| `driver.lock` | there while a run is under way: one driver at a time writes into the folder |

Every table is replaced as a whole, every few seconds, so whoever reads it at any moment of a run has the old one or the new
one. The tables are views: deleting them loses nothing, as the next run writes them from journal and memo.

Columns may be added; the meaning of one that is there never changes. The metadata of each file names the version of its
columns: `lrstudy_schema`, beside versions of packages, in those of a run, `lrstudy_reports.schema` in those of a report.

- *Time.* Columns in Unix time say so. All others are durations, measured by a clock that nobody sets.
- *Device-seconds* are wall time times the devices occupied: GPUs (half of one counts half), or CPU cores without a GPU.
- *Stand-alone* is what a training costs whoever adopts it, *spent* what this study paid for it.
- *The study's metric* is the one that `metric` in the study file names; it lies between 0 and 1, and more is better.
- *Null* (an empty field in CSV) means that there is no such value: not yet, not defined, or not a finite number.
"""
_OF_WORKLOADS = """\
## Several workloads

The folder of a file with `workloads`, `<storage.path>/<name>/`, holds one of the folders above for each of them, and

| file | what it is |
|---|---|
| `workloads.json`, `study.yaml` | which workloads there are; the last run's study file |
| `trials.parquet`, `arms.parquet` | those of all workloads below each other, told apart by `workload`; a parameter that is a number in one and a text in another is a text |
| `pooled.parquet`, `report/` | arms compared over workloads; the page, with links to those of the workloads |
"""
_NAMES = {pa.float64(): "float64", pa.float32(): "float32"}


def render() -> str:
    """The text of tables.md."""
    parts = [_INTRODUCTION]
    parts += [_section(f"{table.name}.parquet", table) for table in (*engine.TABLES, *reports.PARQUET_TABLES)]
    parts.append(
        "## report/tables/\n\nWhat the figures and tables of the page show, as CSV; a file is "
        "left out if there is nothing to show. Where a Parquet file has the same name, it has the same content.\n"
    )
    parts += [
        _section(f"{table.name}.csv", table, level=3)
        for table in reports.CSV_TABLES
        if table not in reports.PARQUET_TABLES
    ]
    parts.append(_OF_WORKLOADS)
    parts.append(_section("pooled.parquet", POOLED, level=3))
    return "\n".join(parts)


def _section(title: str, table: Description, level: int = 2) -> str:
    return "\n".join([f"{'#' * level} {title}", f"One row per {table.row}.", "", *_rows(table), ""])


def _rows(table: Description) -> Iterator[str]:
    yield "| column | type | unit | meaning |"
    yield "|---|---|---|---|"
    for column in (*table.columns, *table.patterns):
        yield f"| `{column.name}` | {_type(column.type)} | {column.unit} | {column.meaning} |"


def _type(kind: pa.DataType) -> str:
    return f"list of {_type(kind.value_type)}" if pa.types.is_list(kind) else _NAMES.get(kind, str(kind))


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
