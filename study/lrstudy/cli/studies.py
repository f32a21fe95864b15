"""The commands that need a study: run, validate, status, report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lrstudy.cli.concluding import both, build_report, concluded, is_decided, published
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
    counted,
    is_policy,
    names_and_overrides,
    split,
)
from lrstudy.errors import Fault, InputError

if TYPE_CHECKING:
    from lrstudy.data.statistics import Statistics
    from lrstudy.planning.plan import Plan
    from lrstudy.study import Study
    from lrstudy.workload.machine import Machine


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
    from lrstudy.cli import workloads
    from lrstudy.running.display import Progress
    from lrstudy.study import Study

    console = Console(stderr=as_json, highlight=False)
    each = Study.each(*split(study), name, BEGUN)
    if each[0].workload:
        workloads.run(each, console, slots, address, without_token=without_token, as_json=as_json)
        return
    summary = each[0].run(Progress(console), slots, is_decided, address, without_token)
    facts = concluded(each[0], summary, BEGUN, as_json=as_json)
    if as_json:
        print(json.dumps(facts))
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
    from lrstudy.cli import workloads
    from lrstudy.study import Study

    if what and is_policy(what[0]):
        _validate_policy(what, as_json)
        return
    each = Study.each(*split(what))
    with each[0].machine(address, without_token=without_token) as machine:
        checked = {ours.workload: _checked(ours, machine) for ours in each}
    if as_json:
        print(json.dumps(workloads.joined(each, {name: facts for name, (facts, _) in checked.items()})))
    else:
        print("\n".join(line for _, lines in checked.values() for line in lines))


def _checked(study: Study, machine: Machine) -> tuple[dict[str, Any], list[str]]:
    """What `validate` finds in a study and its data: for programs, and as lines."""
    from lrstudy.cli import workloads
    from lrstudy.memo.memo import Memo
    from lrstudy.planning import arm_checks
    from lrstudy.running.found_rates import FoundRates
    from lrstudy.study_folder.journal import Journal
    from lrstudy.workload.workload import with_copies

    with workloads.placed(study):
        plan, notes = study.plan(machine=machine)
    plan = replace(plan, workload=with_copies(plan.workload))
    found = FoundRates(plan, Memo(study.storage.memo), Journal(study.folder / "journal"))
    notes, statistics = (*notes, *arm_checks.notes(plan), *found.notes()), plan.workload.statistics
    facts = {**_facts(plan), "statistics": statistics.to_json(), "notes": notes}
    return facts, list(_described(plan, statistics, notes))


@app.command()
def status(
    folder: Annotated[str, typer.Argument(help="A study's folder, such as runs/quickstart or s3://bucket/runs/derm.")],
    as_json: Json = False,
) -> None:
    """Show how far a study is, also while it runs."""
    from lrstudy.cli import workloads

    if of_workloads := workloads.folders(folder):
        each = {name: _progress(str(below)) for name, below in of_workloads.items()}
        is_complete = all(facts["complete"] for facts, _ in each.values())
        if as_json:
            print(
                json.dumps({"complete": is_complete, "workloads": {name: facts for name, (facts, _) in each.items()}})
            )
        else:
            print("\n".join(line for _, lines in each.values() for line in lines))
        return
    facts, lines = _progress(folder)
    print(json.dumps(facts) if as_json else "\n".join(lines))


def _progress(folder: str) -> tuple[dict[str, Any], list[str]]:
    """How far the study in a folder is: for programs, and as lines."""
    from lrstudy.study import Study

    tables = Study.load(folder)
    has_tables = (tables.folder / "trials.parquet").is_file()
    trials = tables.trials().select(["arm", "status"]).to_pylist() if has_tables else []
    counts: dict[str, dict[str, int]] = {}
    for trial in trials:
        arm = counts.setdefault(trial["arm"], {})
        arm[trial["status"]] = arm.get(trial["status"], 0) + 1
    complete = bool(tables.lock().get("complete"))
    lines = [f"{tables.lock()['name']}: {'complete' if complete else 'not complete'}"]
    for name, arm in counts.items():
        lines.append(f"  {name}: " + ", ".join(f"{count} {state}" for state, count in sorted(arm.items())))
    return {"complete": complete, "arms": counts}, lines


@app.command()
def report(
    folder: Annotated[str, typer.Argument(help="A study's folder, such as runs/quickstart or s3://bucket/runs/derm.")],
    as_json: Json = False,
) -> None:
    """Build the comparison report of a study that has run or is running."""
    from lrstudy.cli import workloads
    from lrstudy.study import Study

    if of_workloads := workloads.folders(folder):
        for below in of_workloads.values():
            build_report(below)
        page = workloads.build_report(Path(folder))
        print(json.dumps({"report": str(page)}) if as_json else page)
        return
    tables = Study.load(folder)
    page = build_report(tables.folder)
    where = published(page, tables.mirror)
    print(json.dumps({"report": where}) if as_json else both(where, page))


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
        "model": plan.root(0).model,
        **plan.model_facts.to_json(),
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
    yield from plan.model_facts.describe(plan.root(0).model)
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
