"""`lrstudy trace`: what policies do, as a chart, a table, JSON or a drawing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from lrstudy.cli.options import Json, app, is_study_file, names_and_overrides
from lrstudy.errors import Fault, InputError
from lrstudy.policies.base import Policy
from lrstudy.policies.stages import Stages, Stretch
from lrstudy.policies.user_policies import values_of
from lrstudy.tracing.make_traces import trace_policies, trace_study
from lrstudy.tracing.trace import By, Trace

WIDTH_OF_A_PIPE = 100


@app.command()
def trace(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="Policies by name (built-in, ./mine.py:knee, torch:NAME), each key=value given to every one that has "
            "it; or a study file, arms of it, and overrides of the study.",
            metavar="POLICY ... | STUDY.yaml [ARM ...] [key=value ...]",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Length of the run.")] = None,
    updates_per_epoch: Annotated[int | None, typer.Option(help="Updates per epoch at the initial batch size.")] = None,
    examples: Annotated[int | None, typer.Option(help="Training examples.")] = None,
    sections: Annotated[
        bool, typer.Option("--sections", help="Show the sections of a study's model instead, input to head.")
    ] = False,
    num_sections: Annotated[int | None, typer.Option(help="How many sections the model has, if not three.")] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="val_loss=1.0,0.9,... or a JSON file: what a reactive policy sees.", metavar="METRICS"),
    ] = None,
    by: Annotated[
        Literal["update", "epoch"] | None,
        typer.Option(help="Values of every update or of every epoch; the chart's axis."),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print the numbers instead of a chart.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Draw into this file.", metavar="FILE")] = None,
    as_json: Json = False,
) -> None:
    """Show what policies do with the learning rate, momentum and batch size, without training."""
    names, overrides = names_and_overrides(what)
    if not names:
        raise InputError(
            Fault(
                "trace",
                expected="the name of a policy or a study file",
                got="none",
                advice="`lrstudy trace sgdr --epochs 30`",
            )
        )
    if sections:
        _show_sections(names, overrides, as_json)
        return
    if is_study_file(names[0]):
        if updates_per_epoch is not None:
            raise InputError(
                Fault("--updates-per-epoch", expected="it only with policies: a study says its batch size")
            )
        budget = [] if epochs is None else [f"budget.epochs={epochs}"]
        traces = _of_study(names[0], [*overrides, *budget], names[1:], examples, num_sections, metrics or ())
    else:
        traces = trace_policies(
            names, overrides, Path.cwd(), epochs, updates_per_epoch, examples, num_sections, metrics or ()
        )
    if svg is not None:
        _draw(traces, svg, by or "epoch")
    if as_json:
        values = [trace.to_json(by or "update") for trace in traces]
        print(json.dumps(values[0] if len(values) == 1 else {"traces": values}))
    elif svg is not None:
        print(svg)
    else:
        _show(traces, by or "epoch", table)


def _of_study(
    path: str,
    overrides: Sequence[str],
    arms: Sequence[str],
    examples: int | None,
    sections: int | None,
    metrics: Sequence[str],
) -> list[Trace]:
    from lrstudy.study import Study

    study = Study.from_yaml(path, overrides)
    return trace_study(study.file, study.base, study.storage, arms, examples, sections, metrics)


def _show_sections(names: Sequence[str], overrides: Sequence[str], as_json: bool) -> None:
    """Print what the sections of a study's model hold. The data says how many classes there are, and how large the images."""
    from lrstudy.study import Study

    if len(names) > 1 or not is_study_file(names[0]):
        raise InputError(
            Fault("--sections", expected="it with a study file alone, whose model it shows", got=" ".join(names))
        )
    plan, _ = Study.from_yaml(names[0], overrides).plan()
    model, facts = plan.root(0).model, plan.model_facts
    print(json.dumps({"model": model, **facts.to_json()}) if as_json else "\n".join(facts.describe(model)))


def _draw(traces: list[Trace], path: Path, by: By) -> None:
    from lrstudy.cli.trace_svg import draw

    try:
        path.write_text(draw(traces, by), encoding="utf-8")
    except OSError as error:
        raise InputError(Fault("--svg", f"cannot write {path}: {error.strerror}")) from None


def _show(traces: list[Trace], by: By, as_table: bool) -> None:
    from lrstudy.tracing.trace_chart import chart

    console = Console(highlight=False)
    is_unicode = (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")
    is_narrow_or_tty = console.is_terminal or "COLUMNS" in console._environ
    width = console.width if is_narrow_or_tty else WIDTH_OF_A_PIPE
    if as_table:
        _print_table(console, traces, by)
    else:
        # Without colours, braille lines look alike, so each trace is drawn with a character of its own.
        can_tell_apart = len(traces) == 1 or console.color_system is not None
        console.print(
            chart(traces, width, by, is_unicode=is_unicode and can_tell_apart), end="", crop=False, soft_wrap=True
        )
    for one in traces:
        console.print(_described(one), soft_wrap=True, markup=False)
    for note in dict.fromkeys(note for one in traces for note in one.notes):
        console.print(f"note: {note}", soft_wrap=True, markup=False)


def _described(trace: Trace) -> str:
    num_updates = sum(settings.num_updates for settings in trace.settings)
    length = f"{trace.run.num_epochs} epochs of {trace.run.num_examples} examples, {num_updates} updates"
    if not isinstance(trace.policy, Stages):
        return f"{trace.label}: {_values(trace.policy)}; {length}"
    return "\n".join([f"{trace.label}: {length}", *map(_of_stage, trace.policy.stretches(trace.run))])


def _of_stage(stage: Stretch) -> str:
    """``  stage 1, epochs 0-2, the head on features: sgdr, lr 0.1, ...``."""
    flags, recipe = stage.run.recipe.trainable, stage.run.recipe
    sections = {0: "all sections", 1: "the head"}.get(sum(flags), "the upper sections")
    norm = f", BatchNorm {recipe.batchnorm}" if recipe.batchnorm != "train" else ""
    return (
        f"  stage {stage.number + 1}, epochs {stage.start}-{stage.end - 1}, {sections} on {recipe.input}{norm}: "
        f"{stage.policy.name}, {_values(stage.policy)}"
    )


def _values(policy: Policy) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in values_of(policy).items() if value is not None)


def _print_table(console: Console, traces: list[Trace], by: By) -> None:
    """Print the numbers in columns of the width they need, even on a narrow terminal: no number is cut off."""
    for one in traces:
        rows = [("epoch", *_HEADINGS[by]), *_rows(one, by)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        several = one.run.num_sections > 1 and one.lr[:, 0].tolist() != one.lr[:, -1].tolist()
        title = [one.label + (" (rates of the head; --json has all sections)" if several else "")]
        title = title if len(traces) > 1 or several else []
        console.print("\n".join([*title, *lines]), soft_wrap=True, markup=False)


def _rows(trace: Trace, by: By) -> Iterator[tuple[str, ...]]:
    for epoch, settings in enumerate(trace.settings):
        lr, momentum = settings.lr[:, -1], settings.momentum[:, -1]
        if by == "epoch":
            rates = (f"{rate:.9g}" for rate in (lr[0], lr.min(), lr.max(), lr[-1]))
            yield str(epoch), str(settings.num_updates), *rates, f"{momentum.mean():.9g}", str(settings.batch_size)
            continue
        for update in range(settings.num_updates):
            yield str(epoch), str(update), f"{lr[update]:.9g}", f"{momentum[update]:.9g}", str(settings.batch_size)


_HEADINGS = {
    "epoch": ("updates", "lr first", "min", "max", "last", "momentum", "batch"),
    "update": ("update", "lr", "momentum", "batch"),
}


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)
