"""The commands that need a study: run, validate, status, report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lrstudy import __version__
from lrstudy.cli.options import (
    BEGUN,
    Address,
    As,
    Json,
    Slots,
    StudyAndOverrides,
    StudyPolicyAndOverrides,
    WithoutToken,
    app,
    console_for_tables,
    counted,
    is_policy,
    names_and_overrides,
    split,
)
from lrstudy.errors import Fault, InputError

if TYPE_CHECKING:
    from lrstudy.data.statistics import Statistics
    from lrstudy.planning.plan import Plan
    from lrstudy.run import Summary
    from lrstudy.study_folder.mirror import Mirror

_WIDE = 100
"""Columns that the verdicts need with all intervals; a narrower terminal shows those of the differences alone."""


@app.command()
def run(
    study: StudyAndOverrides = None,
    name: As = None,
    address: Address = None,
    without_token: WithoutToken = False,
    slots: Slots = None,
    as_json: Json = False,
) -> None:
    """Run a study; running the same command again recalls what is recorded and goes on."""
    from lrstudy.running.display import Progress, duration
    from lrstudy.study import Study

    console = Console(stderr=as_json, highlight=False)
    ours = Study.from_yaml(*split(study), name, BEGUN)
    summary = ours.run(Progress(console), slots, _is_decided, address, without_token)
    page = _build_report(summary.folder, is_forced=summary.trained > 0)
    where = _published(page, ours.drivers_mirror)
    took_s = time.monotonic() - BEGUN
    if as_json:
        print(json.dumps({**_summary_dict(summary), "report": where, "seconds": round(took_s, 1)}))
    else:
        console = console_for_tables()
        _print_summary(console, summary)
        bad = ", ".join(f"{count} {status}" for status, count in summary.statuses.items() if status != "completed")
        console.print(
            f"{sum(summary.statuses.values())} trials{f' ({bad})' if bad else ''} in {duration(took_s)}. Report: {_both(where, page)}",
            soft_wrap=True,
        )
    if summary.statuses.get("failed", 0):
        raise typer.Exit(3)


@app.command()
def validate(
    what: StudyPolicyAndOverrides = None,
    address: Address = None,
    without_token: WithoutToken = False,
    as_json: Json = False,
) -> None:
    """Check a study file and its data, or a policy of your own, without training anything."""
    from lrstudy.planning import arm_checks
    from lrstudy.study import Study
    from lrstudy.workload.workload import with_copies

    if what and is_policy(what[0]):
        _validate_policy(what, as_json)
        return
    ours = Study.from_yaml(*split(what))
    with ours.machine(address, without_token=without_token) as machine:
        plan, notes = ours.plan(machine=machine)
    plan = replace(plan, workload=with_copies(plan.workload))
    notes, statistics = (*notes, *arm_checks.notes(plan)), plan.workload.statistics
    if as_json:
        print(json.dumps({**_facts(plan), "statistics": statistics.to_json(), "notes": notes}))
    else:
        print("\n".join(_described(plan, statistics, notes)))


@app.command()
def status(
    folder: Annotated[str, typer.Argument(help="A study's folder, such as runs/quickstart or s3://bucket/runs/derm.")],
    as_json: Json = False,
) -> None:
    """Show how far a study is, also while it runs."""
    from lrstudy.study import Study

    tables = Study.load(folder)
    has_tables = (tables.folder / "trials.parquet").is_file()
    trials = tables.trials().select(["arm", "status"]).to_pylist() if has_tables else []
    counts: dict[str, dict[str, int]] = {}
    for trial in trials:
        arm = counts.setdefault(trial["arm"], {})
        arm[trial["status"]] = arm.get(trial["status"], 0) + 1
    complete = bool(tables.lock().get("complete"))
    if as_json:
        print(json.dumps({"complete": complete, "arms": counts}))
        return
    print(f"{tables.lock()['name']}: {'complete' if complete else 'not complete'}")
    for name, arm in counts.items():
        print(f"  {name}: " + ", ".join(f"{count} {state}" for state, count in sorted(arm.items())))


@app.command()
def report(
    folder: Annotated[str, typer.Argument(help="A study's folder, such as runs/quickstart or s3://bucket/runs/derm.")],
    as_json: Json = False,
) -> None:
    """Build the comparison report of a study that has run or is running."""
    from lrstudy.study import Study

    tables = Study.load(folder)
    page = _build_report(tables.folder)
    where = _published(page, tables.mirror)
    print(json.dumps({"report": where}) if as_json else _both(where, page))


def _published(page: Path, mirror: Mirror | None) -> str:
    """Where the page of a report lies; of a study in a bucket it is put there."""
    if mirror is None or mirror.location == str(mirror.folder):
        return str(page)
    mirror.publish()
    return f"{mirror.location}/report/{page.name}"


def _both(where: str, page: Path) -> str:
    """A page's place, and beside that in a bucket the copy on this node."""
    return where if where == str(page) else f"{where} (a copy: {page})"


def _build_report(folder: Path, is_forced: bool = True) -> Path:
    """Build the report; unless forced, only if a table or the lock has changed since the last report."""
    import lrstudy_reports
    from lrstudy_reports.schemas import PARQUET_TABLES

    page, stamp = folder / "report" / "index.html", folder / "report" / ".inputs"
    digest, its_own = blake2b(__version__.encode()), {table.name for table in PARQUET_TABLES}
    for path in sorted([*folder.glob("*.parquet"), folder / "study.lock.json"]):
        if path.stem not in its_own:
            digest.update(path.read_bytes())
    if is_forced or not page.exists() or not stamp.exists() or stamp.read_text() != digest.hexdigest():
        page = Path(lrstudy_reports.build(folder))
        stamp.write_text(digest.hexdigest())
    return page


def _is_decided(folder: Path) -> bool:
    """Whether the look that has ended decides all comparisons; its report stays as the last complete answer."""
    import lrstudy_reports

    _build_report(folder)
    return lrstudy_reports.is_decided(folder)


def _print_summary(console: Console, summary: Summary) -> None:
    """Print the notes of a run, the verdicts so far, and how many epochs were trained and recalled."""
    for note in summary.notes:
        console.print(f"[yellow]note:[/] {note}")
    _print_verdicts(console, summary.folder)
    if summary.trained == 0:
        console.print(f"Nothing was trained: all {summary.recalled} epochs were recalled from the memo.")
    else:
        console.print(
            f"{summary.asked} epochs asked, {summary.distinct} distinct; {summary.trained} trained now, {summary.recalled} recalled."
        )
    if summary.stopped:
        console.print(f"Stopped early: {summary.stopped}. Run again with a higher limit to go on.")


def _print_verdicts(console: Console, folder: Path) -> None:
    """Print the verdict table that the report has written, if any arm has a result on the test part, and the answer."""
    import pyarrow.parquet as pq
    from rich.table import Table

    import lrstudy_reports
    from lrstudy_reports import formats

    rows = pq.read_table(folder / "arms.parquet").to_pylist()
    if not any(row["test_metric"] is not None for row in rows):
        return
    decimals = formats.decimals_for(formats.half_width(row["test_low"], row["test_high"]) for row in rows)
    is_wide = console.width >= _WIDE
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for heading in (
        "arm",
        "test \\[interval]" if is_wide else "test",
        "against control",
        "p (Holm)",
        "verdict",
        "cost",
    ):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        low, high = (row["test_low"], row["test_high"]) if is_wide else (None, None)
        table.add_row(
            row["arm"],
            _with_interval(row["test_metric"], low, high, decimals),
            _with_interval(row["difference"], row["difference_low"], row["difference_high"], decimals, sign=True),
            "" if row["p_holm"] is None else formats.p_value(row["p_holm"]),
            row["verdict"] or "",
            "" if row["cost_ratio"] is None else f"x{row['cost_ratio']:.2f}",
        )
    console.print(table)
    for row in rows:
        if row["note"]:
            console.print(f"{row['arm']}: {row['note']}", soft_wrap=True, markup=False)
    console.print(lrstudy_reports.answer(folder), soft_wrap=True, markup=False)


def _with_interval(
    value: float | None, low: float | None, high: float | None, decimals: int, sign: bool = False
) -> str:
    from lrstudy_reports import formats

    if value is None:
        return ""
    interval = formats.interval(low, high, decimals, sign).replace("[", "\\[")
    return f"{formats.fixed(value, decimals, sign)} {interval}".strip()


def _summary_dict(summary: Summary) -> dict[str, Any]:
    return {
        "folder": str(summary.folder),
        "complete": summary.is_complete,
        "trials": dict(summary.statuses),
        "epochs_asked": summary.asked,
        "epochs_distinct": summary.distinct,
        "epochs_trained": summary.trained,
        "epochs_recalled": summary.recalled,
        "stopped": summary.stopped,
        "notes": list(summary.notes),
    }


def _facts(plan: Plan) -> dict[str, Any]:
    """What `validate --json` says of a study, beyond statistics and notes."""
    return {
        "name": plan.study.name,
        "arms": {name: [p.name for p in arm.space.searched] for name, arm in plan.arms.items()},
        "trials": plan.num_trials,
        "examples": dict(zip(("train", "validation", "test"), plan.workload.counts, strict=True)),
        "classes": len(plan.workload.classes),
        "task": plan.workload.task.kind,
        "device": plan.workload.device,
    }


def _described(plan: Plan, statistics: Statistics, notes: Sequence[str]) -> Iterator[str]:
    """What `validate` prints about a study, line by line."""
    study, workload = plan.study, plan.workload
    at_most = "at most " if any(arm.until for arm in plan.arms.values()) else ""
    yield (
        f"{study.name} is a valid study: {counted(len(plan.arms), 'arm')}, {counted(plan.num_trials, 'trial')} of "
        f"{at_most}{counted(study.budget.epochs, 'epoch')} on {workload.device}."
    )
    yield f"Data: {workload.data.source}, {len(workload.classes)} classes, {workload.task.kind}; examples by class and part:"
    yield from statistics.describe()
    for name, arm in plan.arms.items():
        yield f"  {name}: searches {', '.join(p.name for p in arm.space.searched) or 'nothing'}"
    yield from (f"note: {note}" for note in notes)


def _validate_policy(what: list[str], as_json: bool) -> None:
    from lrstudy.config.text import apply_overrides
    from lrstudy.policies.contract import validate_policy

    names, overrides = names_and_overrides(what)
    if len(names) > 1:
        raise InputError(Fault("validate", expected="one policy", got=", ".join(names)))
    lines = validate_policy(names[0], Path.cwd(), apply_overrides({}, overrides))
    print(json.dumps({"policy": names[0], "valid": True, "lines": lines}) if as_json else "\n".join(lines))
