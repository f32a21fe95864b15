"""The sections of the page, in their order: what each says of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lrstudy_reports import formats
from lrstudy_reports.comparison import Comparison, configuration_of
from lrstudy_reports.costs import Closing, Sharing
from lrstudy_reports.curves import FRACTIONS
from lrstudy_reports.page import Cell, Drawing, Page, Section, Table
from lrstudy_reports.style import Look
from lrstudy_reports.tables import Study
from lrstudy_reports.wording import answer, limits, metric_name, protocol, ratio, status

MAX_ROWS = 25
SHORT = 12  # hexadecimal digits of a lineage


@dataclass(frozen=True)
class Analysis:
    """All that the page shows: a study, its comparison, and the tables and figures made of them."""

    study: Study
    comparison: Comparison
    sharing: Sharing
    closing: Closing | None
    searchers: pd.DataFrame
    looks: Mapping[str, Look]
    drawings: Mapping[str, Drawing]

    def drawn(self, *names: str) -> tuple[Drawing, ...]:
        """Those of the figures `names` that there are."""
        return tuple(self.drawings[name] for name in names if name in self.drawings)

    def arm(self, name: str, sub: str = "") -> Cell:
        """A cell with the arm's name and colour."""
        return Cell(name, sub, colour=self.looks[name].colour)


def compose(found: Analysis) -> Page:
    """The page of `found`; sections without content are left out."""
    study = found.study
    sections = [
        _verdicts(found),
        _curves(found),
        _policies(found),
        _tuning(found),
        _trouble(found),
        _sharing(found),
        _ledger(found),
        Section(
            "protocol",
            "Protocol and limits",
            bullets=[*protocol(study, found.comparison), *limits(study, found.comparison)],
        ),
        _provenance(found),
    ]
    return Page(
        title=study.lock.name,
        answer=answer(study, found.comparison),
        status=status(study),
        complete=study.lock.complete,
        facts=_facts(found),
        sections=[part for part in sections if part.tables or part.drawings or part.bullets or part.text],
    )


def _facts(found: Analysis) -> list[tuple[str, str]]:
    lock, shared = found.study.lock, found.sharing
    facts = [("Arms", f"{len(found.study.arms)}")]
    if lock.budget_epochs is not None:
        facts.append(("Budget of a training", formats.count(lock.budget_epochs, "epoch")))
    if lock.confirm_seeds:
        facts.append(("Confirm seeds per arm", f"{lock.confirm_seeds}"))
    if shared.asked:
        facts.append(("Epochs trained, of those asked for", f"{shared.trained:,} of {shared.asked:,}"))
    if found.closing:
        facts.append(("Device time allocated", formats.one_time(lock.unit, found.closing.allocated_s)))
        if lock.price is not None:
            money = found.closing.allocated_s / 3600 * lock.price.device_hour
            facts.append(("At its price", f"{money:,.2f} {lock.price.currency}"))
    return facts


def _verdicts(found: Analysis) -> Section:
    study, rows = found.study, found.comparison.rows()
    if not rows:
        return Section("verdicts", "Verdicts", text=["The study has no arms yet."])
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
                found.arm(row["arm"], row["policy"] if row["policy"] != row["arm"] else ""),
                Cell(formats.MISSING if row["rank"] is None else f"{row['rank']:.0f}"),
                Cell(_searched(study, row), "" if row["configuration_source"] == "confirmed" else "so far"),
                Cell(formats.fixed(row["test_metric"], decimals), test),
                Cell(formats.fixed(row["difference"], decimals, sign=True), span),
                Cell(formats.p_value(row["p_holm"])),
                Cell(row["verdict"], row["note"] or "", kind=row["verdict"]),
                Cell(training(row["training_device_s"])),
                Cell(ratio(row["cost_ratio"])),
                Cell(
                    tuning(row["tuning_standalone_device_s"]), f"{tuning(row['tuning_spent_device_s'])} spent"
                ),
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
    return Section(
        "verdicts",
        "Verdicts",
        tables=[table],
        notes=_quotients(study, rows),
        drawings=found.drawn("verdicts"),
    )


def _curves(found: Analysis) -> Section:
    return Section(
        "curves",
        "Along the way",
        drawings=found.drawn("over_cost", "over_epochs"),
        tables=_readings(found),
    )


def _readings(found: Analysis) -> list[Table]:
    """Metric at shares of the common cost, area, device time to the target."""
    rows = [row for row in found.comparison.rows() if row["metric_at_100"] is not None]
    if not rows:
        return []
    unit = formats.time_unit(found.study.lock.unit, [rows[0]["common_device_s"]])
    names = [f"metric_at_{round(100 * part)}" for part in FRACTIONS]
    budgets = [f"at {unit(part * rows[0]['common_device_s'])}" for part in FRACTIONS]
    cells = []
    for row in rows:
        reached = f"{row['target_reached']} of {row['target_trials']} reached it"
        cells.append(
            [
                found.arm(row["arm"]),
                *(Cell(formats.fixed(row[name], 3)) for name in names),
                Cell(formats.fixed(row["area_over_log_cost"], 3)),
                Cell(unit(row["target_device_s"]), reached if row["target_trials"] else ""),
            ]
        )
    target = found.comparison.target
    columns = ["Arm", *budgets, "mean over log cost", f"{unit.label} to {target:.4g}"]
    caption = f"Validation {metric_name(found.study)} read along the way, {unit.label} of one training; last observed"
    return [Table(caption, columns, cells, frozenset(range(1, len(columns))))]


def _policies(found: Analysis) -> Section:
    cells = []
    for row in found.comparison.rows():
        values = configuration_of(row["configuration"])
        if values:
            source = str(row["configuration_source"])
            cells.append([found.arm(row["arm"]), Cell(formats.configuration(values)), Cell(source)])
    tables = (
        [Table("Best configuration of each arm", ["Arm", "Configuration", "Source"], cells)] if cells else []
    )
    return Section("policies", "Policies as applied", tables=tables, drawings=found.drawn("traces"))


def _tuning(found: Analysis) -> Section:
    table, searchers = found.searchers, found.study.searchers()
    tables = []
    if len(searchers) > 1 and len(table):
        sign = found.study.lock.sign
        unit = formats.time_unit(found.study.lock.unit, table["device_s"])
        cells = []
        for arm in found.study.arms:
            mine = table[table["arm"] == arm].set_index("searcher")
            quality = (sign * mine["best"]).dropna()
            best = quality[quality == quality.max()].index.tolist() if len(quality) else []
            line = [found.arm(arm)]
            for searcher in searchers:
                row = mine.loc[searcher]
                spent = f"{row['configurations']:.0f} trials, {unit(row['device_s'])}"
                line.append(Cell(formats.fixed(row["best"], 4), spent))
            cells.append([*line, Cell("tie" if len(best) > 1 else formats.listed(best) or formats.MISSING)])
        caption = (
            f"Best validation {metric_name(found.study)} by searcher; {unit.label} of its trials, stand-alone"
        )
        numeric = frozenset(range(1, len(searchers) + 1))
        tables.append(Table(caption, ["Arm", *searchers, "Found more"], cells, numeric))
    note = "Each searcher ran once per arm: this table describes, it does not test." if tables else ""
    return Section(
        "tuning",
        "Tuning" if len(searchers) < 2 else "Tuning and searchers",
        tables=tables,
        drawings=found.drawn("best_after"),
        notes=[note] if note else [],
    )


def _trouble(found: Analysis) -> Section:
    trials = troubled(found.study)
    if trials.empty:
        text = "No trial diverged, failed or was interrupted." if len(found.study.trials) else ""
        return Section("trouble", "Trials that did not complete", text=[text] if text else [])
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
    return Section(
        "trouble",
        "Trials that did not complete",
        tables=[Table("By trial", ["Trial", "Phase", "Status", "Epochs", "Error"], cells, frozenset({3}))],
        notes=[f"{more:,} more are in tables/trouble.csv."] if more > 0 else [],
    )


def _sharing(found: Analysis) -> Section:
    shared = found.sharing
    if not shared.asked:
        return Section("sharing", "What was shared")
    unit = formats.time_unit(found.study.lock.unit, [shared.asked_device_s])
    factor = f", {shared.asked / shared.trained:.2f} for each one trained" if shared.trained else ""
    text = (
        f"Trials asked for {formats.count(shared.asked, 'epoch')}{factor}. Stand-alone they cost "
        f"{unit(shared.asked_device_s)} {unit.label}; this study trained for {unit(shared.trained_device_s)}."
    )
    if shared.earlier:
        text += f" {formats.count(shared.earlier, 'distinct epoch')} had been trained by earlier studies."
    repeated = shared.trained - (shared.distinct - shared.earlier)
    if repeated:
        text += f" {formats.count(repeated, 'epoch')} were trained more than once."
    cells = [
        [found.arm(str(arm)), *(Cell(f"{row[name]:,.0f}") for name in ("asked", "distinct", "trained"))]
        for arm, row in shared.arms.iterrows()
    ]
    table = Table(
        "Epochs by arm", ["Arm", "Asked for", "Distinct", "Trained here"], cells, frozenset({1, 2, 3})
    )
    return Section("sharing", "What was shared", text=[text], drawings=found.drawn("sharing"), tables=[table])


def _ledger(found: Analysis) -> Section:
    closing = found.closing
    if closing is None:
        return Section("ledger", "Ledger")
    unit = formats.time_unit(found.study.lock.unit, [closing.allocated_s])
    rows = [
        (str(row["category"]).replace("_", " "), row["device_s"])
        for row in closing.categories.to_dict("records")
    ]
    rows += [
        ("sum of categories", closing.accounted_s),
        ("unaccounted", closing.unaccounted_s),
        ("allocated", closing.allocated_s),
    ]
    whole = closing.allocated_s or float("nan")
    cells = [
        [Cell(name), Cell(unit(s)), Cell(f"{s / whole:.1%}".replace("-", formats.MINUS))] for name, s in rows
    ]
    table = Table("Closing", ["Category", unit.label, "Share"], cells, frozenset({1, 2}))
    text = (
        f"Allocated is the length of {formats.count(closing.runs, 'run')} times "
        f"{formats.count(closing.slots, 'slot')}; what no category holds is unaccounted."
    )
    if not found.study.lock.complete:
        text += " While the study runs, that includes what is in flight."
    return Section("ledger", "Ledger", text=[text], drawings=found.drawn("ledger"), tables=[table])


def _provenance(found: Analysis) -> Section:
    lock = found.study.lock
    groups = (
        ("Data", lock.data),
        ("Model", lock.model),
        ("Numerics", lock.numerics),
        ("Versions", lock.versions),
    )
    bullets = [f"{name}: {formats.value(values)}." for name, values in groups if values]
    cells = [
        [
            found.arm(str(row["arm"])),
            Cell(f"{row['seed']:.0f}"),
            Cell(str(row["status"])),
            Cell(formats.fixed(row["test_metric"], 4)),
            Cell(str(row["lineage"])[:SHORT] if pd.notna(row["lineage"]) else formats.MISSING),
        ]
        for row in found.study.confirming().head(4 * MAX_ROWS).to_dict("records")
    ]
    columns = ["Arm", "Seed", "Status", f"Test {metric_name(found.study)}", "Lineage"]
    tables = [Table("Confirm trials", columns, cells, frozenset({1, 3}))] if cells else []
    notes = [f"Lineages are cut to {SHORT} digits; tables/confirmed.csv has them whole."] if cells else []
    return Section("provenance", "Provenance", bullets=bullets, tables=tables, notes=notes)


def troubled(study: Study) -> pd.DataFrame:
    """Trials that diverged, failed or were interrupted."""
    trials = study.trials[study.trials["status"].isin(["diverged", "failed", "interrupted"])]
    return trials[["trial_id", "arm", "phase", "seed", "status", "epochs", "configuration", "error"]]


def _searched(study: Study, row: Mapping[str, Any]) -> str:
    values = configuration_of(row["configuration"])
    return formats.configuration(values, study.lock.parameters.get(row["arm"], ()))


def _quotients(study: Study, rows: list[dict[str, Any]]) -> list[str]:
    known = [row for row in rows if row["metric_per_device_hour"] is not None]
    if not known:
        return []
    parts = [f"{row['arm']} {formats.significant(row['metric_per_device_hour'])}" for row in known]
    unit = study.lock.unit.removesuffix("s")
    return [
        f"For completeness, {metric_name(study)} per {unit} (it rewards not training): {', '.join(parts)}."
    ]


def _first_line(error: object) -> str:
    text = str(error).strip() if isinstance(error, str) else ""
    return text.splitlines()[0][:160] if text else formats.MISSING
