"""Composes the page. Sections on the comparison itself are here, the others in accounts.py and classes.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrstudy_reports import formats
from lrstudy_reports.accounts import ledger, provenance, trouble, what_was_shared
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.batchnorm import batchnorm_notes
from lrstudy_reports.classes import classes
from lrstudy_reports.comparison import configuration_of
from lrstudy_reports.curves import FRACTIONS
from lrstudy_reports.page import Cell, Page, PageSection, Table
from lrstudy_reports.tables import StudyTables
from lrstudy_reports.wording import answer, caveats, limits, metric_name, protocol, ratio, status


def compose(analysis: Analysis) -> Page:
    """Compose the page; sections without content are left out."""
    study = analysis.study
    sections = [
        _verdicts(analysis),
        _curves(analysis),
        _policies(analysis),
        _tuning(analysis),
        classes(analysis),
        trouble(analysis),
        what_was_shared(analysis),
        ledger(analysis),
        PageSection(
            "protocol",
            "Protocol and limits",
            bullets=[*protocol(study, analysis.comparison), *limits(study, analysis.comparison)],
        ),
        provenance(analysis),
    ]
    return Page(
        title=study.lock.name,
        answer=answer(study, analysis.comparison),
        status=status(study),
        complete=study.lock.complete,
        facts=_facts(analysis),
        sections=[part for part in sections if part.tables or part.drawings or part.bullets or part.text],
    )


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    lock, shared = analysis.study.lock, analysis.sharing
    facts = [("Arms", f"{len(analysis.study.arms)}")]
    if lock.budget_epochs is not None:
        facts.append(("Budget of a training", formats.count(lock.budget_epochs, "epoch")))
    if lock.confirm_seeds:
        facts.append(("Confirm seeds per arm", f"{lock.confirm_seeds}"))
    if shared.asked:
        facts.append(("Epochs trained, of those asked for", f"{shared.trained:,} of {shared.asked:,}"))
    if analysis.closing:
        facts.append(("Device time allocated", formats.one_time(lock.unit, analysis.closing.allocated_s)))
        if lock.price is not None:
            money = analysis.closing.allocated_s / 3600 * lock.price.device_hour
            facts.append(("At its price", f"{formats.significant(money)} {lock.price.currency}"))
    return facts


def _verdicts(analysis: Analysis) -> PageSection:
    study, rows = analysis.study, analysis.comparison.rows()
    if not rows:
        return PageSection("verdicts", "Verdicts", text=["The study has no arms yet."])
    lock, metric = study.lock, metric_name(study)
    decimals = formats.decimals_for(formats.half_width(row["test_low"], row["test_high"]) for row in rows)
    training = formats.time_unit(lock.unit, [row["training_device_s"] for row in rows])
    tuning = formats.time_unit(lock.unit, [row["tuning_standalone_device_s"] for row in rows])
    cells = []
    for row in rows:
        test = formats.interval(row["test_low"], row["test_high"], decimals)
        span = formats.interval(row["difference_low"], row["difference_high"], decimals, sign=True)
        cells.append(
            [
                analysis.arm(row["arm"], row["policy"] if row["policy"] != row["arm"] else ""),
                Cell(formats.MISSING if row["rank"] is None else f"{row['rank']:.0f}"),
                Cell(_searched(study, row), "" if row["configuration_source"] == "confirmed" else "so far"),
                Cell(formats.fixed(row["test_metric"], decimals), test),
                Cell(formats.fixed(row["difference"], decimals, sign=True), span),
                Cell(formats.p_value(row["p_holm"])),
                Cell(row["verdict"], row["note"] or "", kind=row["verdict"]),
                Cell(training(row["training_device_s"])),
                Cell(ratio(row["cost_ratio"])),
                Cell(tuning(row["tuning_standalone_device_s"]), f"{tuning(row['tuning_spent_device_s'])} spent"),
            ]
        )
    columns = [
        "Arm",
        "Rank",
        "Configuration",
        f"Test {metric}",
        f"Difference to {lock.control or 'control'}",
        "p (Holm)",
        "Verdict",
        f"{training.label} per training",
        "× control",
        f"{tuning.label} of tuning",
    ]
    caption = f"Arms by mean test {metric}; 95% intervals in brackets; costs calibrated"
    table = Table(caption, columns, cells, frozenset({1, 3, 4, 5, 7, 8, 9}))
    return PageSection(
        "verdicts",
        "Verdicts",
        tables=[table],
        notes=[*caveats(study), *batchnorm_notes(study), *_quotients(study, rows)],
        drawings=analysis.drawn("verdicts"),
    )


def _curves(analysis: Analysis) -> PageSection:
    return PageSection(
        "curves",
        "Along the way",
        drawings=analysis.drawn("over_cost", "over_epochs"),
        tables=_readings(analysis),
    )


def _readings(analysis: Analysis) -> list[Table]:
    """A table of the values read off the curves: metric at shares of the common cost, area, cost to the target."""
    known = ("metric_at_100", "common_device_s")
    rows = [row for row in analysis.comparison.rows() if all(row[name] is not None for name in known)]
    if not rows:
        return []
    unit = formats.time_unit(analysis.study.lock.unit, [rows[0]["common_device_s"]])
    names = [f"metric_at_{round(100 * part)}" for part in FRACTIONS]
    budgets = [f"at {part:.0%} ({unit(part * rows[0]['common_device_s'])})" for part in FRACTIONS]
    cells = []
    for row in rows:
        reached = f"reached by {row['target_reached']} of {row['target_trials']}"
        cells.append(
            [
                analysis.arm(row["arm"]),
                *(Cell(formats.fixed(row[name], 3)) for name in names),
                Cell(formats.fixed(row["area_over_log_cost"], 3)),
                Cell(unit(row["target_device_s"]), reached if row["target_trials"] else ""),
            ]
        )
    target = analysis.comparison.target
    columns = ["Arm", *budgets, "Mean over log cost", f"{unit.label} to {target:.4g}"]
    metric = metric_name(analysis.study)
    caption = f"Validation {metric} last observed at shares of the cheapest training ({unit.label})"
    return [Table(caption, columns, cells, frozenset(range(1, len(columns))))]


def _policies(analysis: Analysis) -> PageSection:
    cells = []
    for row in analysis.comparison.rows():
        values = configuration_of(row["configuration"])
        if values:
            source = str(row["configuration_source"])
            cells.append([analysis.arm(row["arm"]), Cell(formats.configuration(values)), Cell(source)])
    tables = [Table("Best configuration of each arm", ["Arm", "Configuration", "Source"], cells)] if cells else []
    return PageSection("policies", "Policies as applied", tables=tables, drawings=analysis.drawn("traces"))


def _tuning(analysis: Analysis) -> PageSection:
    table, searchers = analysis.searchers, analysis.study.searchers()
    tables = []
    if len(searchers) > 1 and len(table):
        sign = analysis.study.lock.sign
        unit = formats.time_unit(analysis.study.lock.unit, table["device_s"])
        cells = []
        for arm in analysis.study.arms:
            mine = table[table["arm"] == arm]
            quality = (sign * mine["best"]).dropna()
            best = mine.loc[quality[quality == quality.max()].index, "searcher"].tolist()
            line = [analysis.arm(arm)]
            for row in mine.to_dict("records"):
                spent = f"{row['configurations']:.0f} trials, {unit(row['device_s'])}"
                line.append(Cell(formats.fixed(row["best"], 4), spent))
            cells.append([*line, Cell("tie" if len(best) > 1 else formats.listed(best) or formats.MISSING)])
        caption = f"Best validation {metric_name(analysis.study)} by searcher; {unit.label} of its trials, stand-alone"
        numeric = frozenset(range(1, len(searchers) + 1))
        tables.append(Table(caption, ["Arm", *searchers, "Better"], cells, numeric))
    note = "Each searcher ran once per arm: this table describes, it does not test." if tables else ""
    return PageSection(
        "tuning",
        "Tuning" if len(searchers) < 2 else "Tuning and searchers",
        tables=tables,
        drawings=analysis.drawn("best_after"),
        notes=[note] if note else [],
    )


def _searched(study: StudyTables, row: Mapping[str, Any]) -> str:
    values = configuration_of(row["configuration"])
    return formats.configuration(values, study.lock.parameters.get(row["arm"], ()))


def _quotients(study: StudyTables, rows: list[dict[str, Any]]) -> list[str]:
    known = [row for row in rows if row["metric_per_device_hour"] is not None]
    if not known:
        return []
    parts = [f"{row['arm']} {formats.significant(row['metric_per_device_hour'])}" for row in known]
    unit = study.lock.unit.removesuffix("s")
    return [f"For completeness, {metric_name(study)} per {unit} (it rewards not training): {', '.join(parts)}."]
