"""What the commands do with a study file that has a map of workloads."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from lrstudy.cli.options import BEGUN, counted
from lrstudy.errors import InputError

if TYPE_CHECKING:
    from lrstudy.study import Study


def run(
    each: Sequence[Study],
    console: Console,
    slots: int | None,
    address: str | None,
    *,
    without_token: bool,
    as_json: bool,
) -> None:
    """Run the studies of all workloads; after each its report is built, and that of all."""
    from lrstudy.cli.concluding import concluded, is_decided, published
    from lrstudy.running.display import Progress, duration
    from lrstudy.study.several import Studies

    ours, facts, begun = Studies(tuple(each)), dict[str, dict[str, Any]](), BEGUN

    def display(study: Study) -> Progress:
        console.print(f"{study.file.name}:", markup=False)
        return Progress(console)

    for study, summary in ours.run(display, slots, is_decided, address, without_token=without_token):
        facts[study.workload] = concluded(study, summary, begun, as_json=as_json)
        where = published(build_report(ours.folder), ours.mirror)
        begun = time.monotonic()
    took_s, is_complete = time.monotonic() - BEGUN, all(one["complete"] for one in facts.values())
    if as_json:
        of_all = {"complete": is_complete, "report": where, "seconds": round(took_s, 1)}
        print(json.dumps({"name": ours.name, **of_all, "workloads": facts}))
    else:
        print(
            f"{ours.name}: {counted(len(facts), 'workload')} in {duration(took_s)}. {_answer(ours.folder)} Report: {where}"
        )
    if any(one["trials"].get("failed", 0) for one in facts.values()):
        raise typer.Exit(3)


@contextmanager
def placed(study: Study) -> Iterator[None]:
    """Within it, faults of the study of one workload are said to be of it."""
    from lrstudy import config

    try:
        yield
    except InputError as error:
        if not study.workload:
            raise
        faults = config.of_workload(error.faults, study.workload, study.text, study.overrides)
        raise InputError(faults) from None


def joined(each: Sequence[Study], facts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What a command says of each workload, for programs; of a study of one workload what it says of that."""
    if not each[0].workload:
        return facts[""]
    return {"name": each[0].file.name.partition("/")[0], "workloads": dict(facts)}


def forecast_of_all(each: Sequence[Study], facts: Mapping[str, dict[str, Any]]) -> str:
    """The sum of what `plan` says of each workload."""
    total = {key: sum(one["total"][key] for one in facts.values()) for key in ("trials", "asked", "to_train")}
    costs = [one["cost"] for one in facts.values()]
    text = (
        f"{counted(len(facts), 'workload')} of {each[0].file.name.partition('/')[0]}: {counted(total['trials'], 'trial')}, "
        f"{counted(total['asked'], 'epoch')} asked, at most {total['to_train']:,} to train"
    )
    if all(cost["source"] is not None for cost in costs):
        text += f"; at most {sum(cost['device_hours'] for cost in costs):.3g} {costs[0]['unit']}"
    return f"{text}. One after the other on one Ray; limits hold for all together."


def folders(folder: str) -> dict[str, Path]:
    """By workload, the folders of the studies in the folder of a file with a map of workloads; empty for any other."""
    from lrstudy.study_folder import of_workloads

    names = of_workloads.read(Path(folder)) if "://" not in folder else ()
    below = {name: Path(folder) / name for name in names}
    return {name: path for name, path in below.items() if (path / "study.lock.json").is_file()}


def build_report(folder: Path) -> Path:
    """Build the report over all workloads."""
    import lrstudy_reports

    return Path(lrstudy_reports.build_workloads(folder))


def _answer(folder: Path) -> str:
    import lrstudy_reports

    return lrstudy_reports.answer_of_workloads(folder)
