"""The report over several workloads: pooled verdicts, and each workload's own with a link to its report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from lrstudy_reports import formats
from lrstudy_reports.building import as_parquet, csv, replace, without_nan
from lrstudy_reports.headline import ratio
from lrstudy_reports.page import Cell, Page, PageSection, Table, render
from lrstudy_reports.pooled import Workloads, load_workloads, pool
from lrstudy_reports.pooled_schema import POOLED
from lrstudy_reports.statistics import FEWEST, FEWEST_RANKS
from lrstudy_reports.style import Look, looks

_HOW = (
    "A difference is a workload's mean over its paired seeds; the interval and p are of the t-test over workloads, so they speak "
    "of workloads like these, and a workload counts once however many seeds it has. Wilcoxon's signed-rank test (exact) asks for no "
    "normal distribution. Both p are corrected for all arms (Holm); the verdict follows the t-test."
)
_SHARED = (
    "Some workloads read the same data, such as labels of the same images: their results depend on the same examples and are not "
    "independent, so the tests over workloads claim more than they should. Each workload's own verdict is not touched by that."
)


def build_pooled(folder: Path) -> Path:
    """Write the tables and the report over all workloads below `folder`; return the path of index.html.

    Workloads without a report of their own are left out. Raises ValueError if it is no folder of a file with `workloads`.
    """
    workloads = load_workloads(folder)
    pooled = pool(workloads)
    for name, table in (("trials", workloads.trials), ("arms", workloads.arms)):
        buffer = folder / f".{name}.parquet.tmp"
        pq.write_table(table, buffer)
        replace(folder / f"{name}.parquet", buffer.read_bytes())
        buffer.unlink()
    rows: list[dict[Any, Any]] = without_nan(pooled).to_dict("records")
    replace(folder / "pooled.parquet", as_parquet(POOLED, rows))
    report, texts = folder / "report", render(compose_pooled(workloads, pooled))
    replace(report / "tables" / "pooled.csv", csv(pooled))
    replace(report / "tables" / "arms.csv", csv(workloads.arms.to_pandas()))
    replace(report / "report.md", texts["report.md"].encode())
    replace(report / "index.html", texts["index.html"].encode())
    return report / "index.html"


def compose_pooled(workloads: Workloads, pooled: pd.DataFrame) -> Page:
    """The page over all workloads."""
    arms = tuple(pooled["arm"])
    control = next(iter(pooled.loc[pooled["verdict"] == "control", "arm"]), None)
    look, number = looks(arms, control), len(workloads.names)
    sections = [
        PageSection("pooled", "Over workloads", tables=_pooled(workloads, pooled, look), notes=_notes(workloads)),
        PageSection("workloads", "By workload", tables=_by_workload(workloads, arms, look)),
    ]
    status = f"{'complete' if workloads.complete else 'running'}, {number} of {formats.count(len(workloads.expected), 'workload')}"
    return Page(
        title=workloads.name,
        answer=answer_over(workloads, pooled),
        status=status,
        complete=workloads.complete,
        facts=[("Workloads", str(number)), ("Arms", str(len(arms))), ("Trials", f"{workloads.trials.num_rows:,}")],
        sections=[section for section in sections if section.tables],
    )


def answer_over(workloads: Workloads, pooled: pd.DataFrame) -> str:
    """The answer over all workloads in a few sentences, claiming no more than the pooled verdicts do."""
    number, expected = len(workloads.names), len(workloads.expected)
    if not workloads.complete:
        return (
            f"No answer yet: {number} of {formats.count(expected, 'workload')} have results, and not all are complete."
        )
    rows = [row for row in pooled.to_dict("records") if row["verdict"] != "control"]
    control = next(iter(pooled.loc[pooled["verdict"] == "control", "arm"]), "the control")
    if not rows:
        mean = formats.fixed(float(pooled["test_metric"].iloc[0]), 3) if len(pooled) else formats.MISSING
        return f"Over {formats.count(number, 'workload')} {control} reached {mean} by mean; there is no other arm to compare it with."
    counts = [f"{row['arm']} on {row['wins']:.0f} of {row['workloads']:.0f}" for row in rows]
    ahead = f"Ahead of {control} by mean: {formats.listed(counts)}." if counts else ""
    if number < FEWEST:
        return f"{formats.count(number, 'workload')} give no test over workloads; their own verdicts are below. {ahead}".strip()
    better = [row for row in rows if row["verdict"] == "better"]
    if better:
        told = [f"{row['arm']} (by {formats.fixed(abs(row['difference']), 3)})" for row in better]
        return f"Over {number} workloads, {formats.listed(told)} did better than {control}. {ahead}".strip()
    return f"Over {number} workloads, no policy was shown to be better than {control}. {ahead}".strip()


def _pooled(workloads: Workloads, pooled: pd.DataFrame, look: dict[str, Look]) -> list[Table]:
    if not len(pooled):
        return []
    rows = without_nan(pooled).to_dict("records")
    decimals = formats.decimals_for(formats.half_width(row["difference_low"], row["difference_high"]) for row in rows)
    cells = []
    for row in rows:
        is_control = row["verdict"] == "control"
        span = formats.interval(row["difference_low"], row["difference_high"], decimals, sign=True)
        cost = formats.interval(row["cost_ratio_low"], row["cost_ratio_high"], 2)
        record = f"{row['wins']:.0f} – {row['ties']:.0f} – {row['losses']:.0f}" if not is_control else formats.MISSING
        cells.append(
            [
                Cell(row["arm"], colour=look[row["arm"]].colour),
                Cell(f"{row['workloads']:.0f}"),
                Cell(formats.fixed(row["test_metric"], decimals)),
                Cell(formats.fixed(row["difference"], decimals, sign=True), span),
                Cell(record),
                Cell(formats.p_value(row["p_holm"])),
                Cell(formats.p_value(row["p_wilcoxon_holm"])),
                Cell(row["verdict"] or formats.MISSING, kind=row["verdict"] or ""),
                Cell(ratio(row["cost_ratio"]), cost),
            ]
        )
    metric = workloads.locks[0].metric.replace("_", " ")
    columns = [
        "Arm",
        "Workloads",
        f"Test {metric}",
        "Difference to the control",
        "Better – equal – worse",
        "p (t, Holm)",
        "p (Wilcoxon, Holm)",
        "Verdict",
        "Cost of a training over control's",
    ]
    level = formats.percent(workloads.locks[0].level)
    return [
        Table(f"Arms over workloads; {level} intervals in brackets", columns, cells, frozenset({1, 2, 3, 4, 5, 6, 8}))
    ]


def _by_workload(workloads: Workloads, arms: tuple[str, ...], look: dict[str, Look]) -> list[Table]:
    """A row per workload with a link to its report: each arm's difference to the control and verdict; of the control its value."""
    rows = workloads.arms.to_pandas()
    decimals = formats.decimals_for(formats.half_width(*_ends(row)) for row in rows.to_dict("records"))
    cells = []
    for name, lock in zip(workloads.names, workloads.locks, strict=True):
        mine = rows[rows["workload"] == name].set_index("arm")
        line = [Cell(name, "" if lock.complete else "not complete", href=f"../{name}/report/index.html")]
        for arm in arms:
            line.append(_cell(mine.loc[arm], decimals) if arm in mine.index else Cell(formats.MISSING))
        cells.append(line)
    columns = ["Workload", *arms]
    caption = (
        "Each workload's own result: difference to its control, or the control's test value, with interval and verdict"
    )
    return [Table(caption, columns, cells, frozenset(range(1, len(columns))))] if cells else []


def _cell(row: pd.Series[Any], decimals: int) -> Cell:
    if row["verdict"] == "control":
        return Cell(
            formats.fixed(row["test_metric"], decimals), formats.interval(row["test_low"], row["test_high"], decimals)
        )
    span = formats.interval(*_ends(row), decimals, sign=True)
    return Cell(formats.fixed(row["difference"], decimals, sign=True), f"{span} {row['verdict'] or ''}".strip())


def _ends(row: Any) -> tuple[float | None, float | None]:
    low, high = row["difference_low"], row["difference_high"]
    return (None, None) if low is None or math.isnan(low) else (float(low), float(high))


def _notes(workloads: Workloads) -> list[str]:
    number = len(workloads.names)
    notes = [_HOW]
    if workloads.complete and number < FEWEST:
        notes.append(f"Fewer than {FEWEST} workloads give no test over workloads.")
    elif workloads.complete and number < FEWEST_RANKS:
        notes.append(
            f"Wilcoxon's test needs {FEWEST_RANKS} workloads: with {number} its smallest p is {2 / 2**number:.3g}, above 0.05."
        )
    if workloads.shares_data:
        notes.append(_SHARED)
    return notes
