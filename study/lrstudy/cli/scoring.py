"""The command `score`: published or own runs of many algorithms, scored by AlgoPerf's rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lrstudy.cli.options import Json, app, console_for_tables
from lrstudy.errors import Fault, InputError

if TYPE_CHECKING:
    from lrstudy_reports.scoring import Scores


@app.command()
def score(
    runs: Annotated[Path, typer.Argument(help="A Parquet file with a row per evaluation.", metavar="RUNS.parquet")],
    targets: Annotated[Path, typer.Option(help="What has to be reached on each workload.", metavar="TARGETS.json")],
    by: Annotated[str, typer.Option(help="What a run costs.", metavar="time|steps")] = "time",
    goal: Annotated[
        list[str] | None,
        typer.Option(
            help="Whether a metric is minimised or maximised, where it is not known.", metavar="METRIC=min|max"
        ),
    ] = None,
    relax: Annotated[float, typer.Option(help="Make every target easier by this part of it, such as 0.02.")] = 0.0,
    budget: Annotated[
        float | None, typer.Option(help="With --by steps: end runs after so many times the workload's step_hint.")
    ] = None,
    max_ratio: Annotated[
        float, typer.Option(help="Slower than the fastest by more than this counts as unsolved.")
    ] = 4.0,
    as_json: Json = False,
) -> None:
    """Score runs of training algorithms over workloads by their time to a target."""
    from lrstudy_reports.scoring import ProfileRules
    from lrstudy_reports.scoring import score as scored

    if by not in ("time", "steps"):
        raise InputError(Fault("--by", expected="time or steps", got=by))
    goals = {}
    for text in goal or ():
        metric, _, sense = text.partition("=")
        if sense not in ("min", "max"):
            raise InputError(Fault("--goal", expected="METRIC=min or METRIC=max", got=text))
        goals[metric] = sense
    try:
        result = scored(
            runs, targets, by=cast(Any, by), goals=cast(Any, goals), relax=relax, budget=budget,
            rules=ProfileRules(max_ratio),
        )  # fmt: skip
    except ValueError as error:
        raise InputError(Fault("score", str(error))) from None
    if as_json:
        print(json.dumps(_facts(result)))
    else:
        _print(result)


def _facts(result: Scores) -> dict[str, Any]:
    """The scores, costs and ratios as JSON values; null where a target is not reached, or a workload not solved."""
    frames = {"costs": result.costs, "ratios": result.profiles.ratios}
    tables = {name: json.loads(frame.to_json(orient="index", double_precision=15)) for name, frame in frames.items()}
    return {"scores": result.rows(), **tables}


def _print(result: Scores) -> None:
    from rich.table import Table

    ratios = result.profiles.ratios
    table = Table(title="Score, and cost over that of the fastest (- not solved)", title_justify="left")
    for name in ("Submission", "Score", *map(str, ratios.columns)):
        is_name = name == "Submission"
        table.add_column(name, justify="left" if is_name else "right", overflow="fold", no_wrap=is_name)
    for row in result.rows():
        cells = [f"{ratio:.2f}" if ratio == ratio else "-" for ratio in ratios.loc[row["submission"]]]
        table.add_row(row["submission"], f"{row['score']:.4f}", *cells)
    console_for_tables().print(table)
