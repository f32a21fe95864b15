"""Composes the page. Sections on the comparison itself are here, the others in accounts.py and classes.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lrstudy_reports import formats
from lrstudy_reports.accounts import ledger, provenance, trouble, what_was_shared
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.batchnorm import batchnorm_notes
from lrstudy_reports.classes import classes
from lrstudy_reports.comparison import configuration_of, verdicts_by_look
from lrstudy_reports.configurations import policies
from lrstudy_reports.confusion_section import confusion
from lrstudy_reports.curves import FRACTIONS
from lrstudy_reports.found_rates import found_rates
from lrstudy_reports.headline import answer, metric_name, ratio, status
from lrstudy_reports.page import Cell, Page, PageSection, Table
from lrstudy_reports.statistics import FEWEST
from lrstudy_reports.tables import StudyTables
from lrstudy_reports.transfer import transfer
from lrstudy_reports.until import until
from lrstudy_reports.verdicts import not_once_corrected
from lrstudy_reports.wording import caveats, limits, protocol


def compose(analysis: Analysis) -> Page:
    """Compose the page; sections without content are left out."""
    study = analysis.study
    sections = [
        _verdicts(analysis),
        _curves(analysis),
        until(analysis),
        transfer(analysis),
        policies(analysis),
        _tuning(analysis),
        classes(analysis),
        confusion(analysis),
        trouble(analysis),
        found_rates(analysis),
        what_was_shared(analysis),
        ledger(analysis),
        PageSection(
            "protocol",
            "Protocol and limits",
            bullets=[*protocol(study, analysis.comparison), *limits(study, analysis.comparison)],
            tables=_looks(analysis),
        ),
        provenance(analysis),
    ]
    return Page(
        title=study.lock.name,
        answer=answer(study, analysis.comparison, analysis.last),
        status=status(study),
        complete=study.lock.complete,
        facts=_facts(analysis),
        sections=[part for part in sections if part.tables or part.drawings or part.bullets or part.text],
    )


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    lock, shared = analysis.study.lock, analysis.sharing
    retired = len(lock.retired & set(analysis.study.arms))
    earlier = f", and {retired} of earlier runs" if retired else ""
    facts = [("Arms", f"{len(analysis.study.arms) - retired}{earlier}")]
    if lock.budget_epochs is not None:
        facts.append(("Budget of a training", formats.count(lock.budget_epochs, "epoch")))
    if lock.confirm_seeds:
        facts.append(("Confirm seeds per arm", f"{lock.confirm_seeds}"))
    if shared.asked:
        facts.append(("Epochs trained, of those that one search asked for", f"{shared.trained:,} of {shared.asked:,}"))
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
    tuning = formats.time_unit(lock.unit, [row["tuning_device_s"] for row in rows])
    explained = not_once_corrected(analysis.comparison.comparisons)  # in a note below, once
    cells = []
    for row in rows:
        test = formats.interval(row["test_low"], row["test_high"], decimals)
        span = formats.interval(row["difference_low"], row["difference_high"], decimals, sign=True)
        cells.append(
            [
                analysis.arm(row["arm"], row["policy"] if row["policy"] != row["arm"] else ""),
                Cell(_searched(study, row), "" if row["configuration_source"] == "confirmed" else "so far"),
                Cell(formats.fixed(row["test_metric"], decimals), test),
                Cell(formats.fixed(row["difference"], decimals, sign=True), span),
                Cell(formats.p_value(row["p_holm"])),
                Cell(row["verdict"], "" if row["note"] == explained else row["note"] or "", kind=row["verdict"]),
                _best_of_all(row, rows, decimals),
                Cell(training(row["training_device_s"]), f"{ratio(row['cost_ratio'])} control"),
                Cell(tuning(row["tuning_device_s"]), f"{tuning(row['tuning_paid_device_s'])} spent"),
            ]
        )
    columns = [
        "Arm",
        "Configuration",
        f"Test {metric}",
        f"Difference to {lock.control or 'control'}",
        "p (Holm)",
        "Verdict (exploratory)" if lock.is_exploratory else "Verdict",
        "Best of all",
        f"Training, {training.label}",
        f"Tuning, {tuning.label}",
    ]
    caption = f"Arms by mean test {metric}; {formats.percent(lock.level)} intervals in brackets; costs calibrated"
    table = Table(caption, columns, cells, frozenset({2, 3, 4, 6, 7, 8}))
    return PageSection(
        "verdicts",
        "Verdicts",
        tables=[table],
        notes=[*batchnorm_notes(study), *_how_to_read(analysis), *caveats(study), *_quotients(study, rows)],
        drawings=analysis.drawn("verdicts"),
    )


def _best_of_all(row: Mapping[str, Any], rows: list[dict[str, Any]], decimals: int) -> Cell:
    """Whether an arm may be the best, with its difference to the best of the others."""
    if row["may_be_best"] is None:
        return Cell(formats.MISSING)
    alone = sum(bool(other["may_be_best"]) for other in rows) == 1
    text = ("is" if alone else "may be") if row["may_be_best"] else "is not"
    span = formats.interval(row["best_low"], row["best_high"], decimals, sign=True)
    return Cell(text, f"{formats.fixed(row['best_difference'], decimals, sign=True)} {span}")


def _how_to_read(analysis: Analysis) -> list[str]:
    """What a reader of the verdicts may stumble over."""
    lock, rows = analysis.study.lock, analysis.comparison.rows()
    notes = []
    if any(row["p_holm"] is not None for row in rows):
        notes.append(
            "The interval of a difference holds for itself; p is corrected for all "
            f"{formats.count(analysis.comparison.comparisons, 'comparison')} (Holm), and the verdict follows p: an interval "
            "may leave out 0 beside 'undecided'."
        )
    if any(row["may_be_best"] is not None for row in rows):
        notes.append(
            f"Best of all: difference to the best of the other arms, with intervals that hold together with "
            f"{formats.percent(lock.level)} (Hsu's multiple comparisons with the best)."
        )
    if len(analysis.study.searchers()) > 1 or lock.repeats > 1:
        notes.append(
            "Tuning is what one search by the searcher that chose costs; spent is the arm's part of what was trained for all "
            "searches, epochs that arms share being paid in equal parts."
        )
    seeds = max((row["seeds"] for row in rows), default=0)
    if 0 < seeds < FEWEST:
        notes.append(f"{formats.count(seeds, 'seed')} {'gives' if seeds == 1 else 'give'} no intervals.")
    return notes


def _looks(analysis: Analysis) -> list[Table]:
    """The verdicts of each look that has ended, if the study planned several."""
    seen = verdicts_by_look(analysis.study)
    if not seen:
        return []
    rows = [row for row in analysis.comparison.rows() if row["verdict"] not in ("control", "retired")]
    cells = [
        [
            analysis.arm(row["arm"]),
            *(Cell(of_look[row["arm"]], kind=of_look[row["arm"]]) for of_look in seen.values()),
        ]
        for row in rows
    ]
    columns = ["Arm", *(f"{seeds} seeds" for seeds in seen)]
    caption = f"Verdict at each planned look, each at {analysis.study.lock.alpha:.3g}"
    return [Table(caption, columns, cells)]


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


def _tuning(analysis: Analysis) -> PageSection:
    searchers, tables, notes = analysis.study.searchers(), [], []
    if len(searchers) > 1 and len(analysis.searchers):
        tables.append(_by_searcher(analysis, searchers))
        notes.append(_on_searchers(analysis.study.lock.repeats, searchers[0]))
    return PageSection(
        "tuning",
        "Tuning" if len(searchers) < 2 else "Tuning and searchers",
        tables=tables,
        drawings=analysis.drawn("best_after"),
        notes=notes,
    )


def _by_searcher(analysis: Analysis, searchers: Sequence[str]) -> Table:
    """The best validation value by arm and searcher; with several searches, its mean and the differences as well."""
    table, is_repeated = analysis.searchers, analysis.study.lock.repeats > 1
    unit = formats.time_unit(analysis.study.lock.unit, table["device_s"])
    cells = []
    for arm in analysis.study.arms:
        mine = table[table["arm"] == arm].to_dict("records")
        line = [analysis.arm(arm)]
        for row in mine:
            spent = f"{row['configurations']:.0f} trials, {unit(row['device_s'])}"
            line.append(Cell(formats.fixed(row["mean_best"], 4), spent))
        for row in mine[1:] if is_repeated else ():
            span = formats.interval(row["difference_low"], row["difference_high"], 4, sign=True)
            line.append(Cell(formats.fixed(row["difference"], 4, sign=True), span))
        cells.append(line)
    differences = [f"{name} − {searchers[0]}" for name in searchers[1:]] if is_repeated else []
    what = f"mean over {analysis.study.lock.repeats} searches" if is_repeated else "one search each"
    metric = metric_name(analysis.study)
    caption = f"Best validation {metric} by searcher, {what}; {unit.label} of its trials, stand-alone"
    columns = ["Arm", *searchers, *differences]
    return Table(caption, columns, cells, frozenset(range(1, len(columns))))


def _on_searchers(repeats: int, first: str) -> str:
    """What the table of searchers can tell."""
    if repeats < 2:
        return (
            "Each searcher ran once per arm: this table describes, it does not test. search.repeats in the study file "
            "compares searchers over several searches."
        )
    return (
        f"Differences to {first} are paired by search, with 95% t intervals over {repeats} searches, given the cohort and "
        "the tuning seeds that all searches share. An interval that excludes 0 speaks of one arm: with several arms and "
        "searchers some will by chance."
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
    return [
        f"For completeness, {metric_name(study)} per {unit} (it rewards not training): {', '.join(parts)}. By trial: accuracy_per_gpu_hour.parquet."
    ]
