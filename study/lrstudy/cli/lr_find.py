"""`lrstudy lr-find`: a range test of a study's model, as a chart, JSON or a drawing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from lrstudy.cli.options import Json, StudyAndOverrides, app, split
from lrstudy.cli.traces import WIDTH_OF_A_PIPE
from lrstudy.config.range_question import FOUND, RangeQuestion, question_of
from lrstudy.errors import Fault, InputError, unknown

if TYPE_CHECKING:
    from lrstudy.planning.plan import Plan
    from lrstudy.running.range_tests import Measured, RangeTest
    from lrstudy.study import Study


@app.command(name="lr-find")
def lr_find(
    study: StudyAndOverrides = None,
    arm: Annotated[str | None, typer.Option(help="The arm to test; by default the first.", metavar="ARM")] = None,
    form: Annotated[
        Literal["exponential", "linear"] | None,
        typer.Option(help="How the rate rises: fastai's form, or Smith's, which measures the accuracy too."),
    ] = None,
    low: Annotated[float | None, typer.Option(help="The first rate.")] = None,
    high: Annotated[float | None, typer.Option(help="The rate that it rises towards.")] = None,
    updates: Annotated[int | None, typer.Option(help="How many updates it takes.")] = None,
    suggest: Annotated[
        Literal["valley", "steep", "steepest", "minimum", "slide", "smith"] | None,
        typer.Option(help="Which rate to suggest; by default valley, with the linear form smith."),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw into this file.", metavar="FILE")] = None,
    as_json: Json = False,
) -> None:
    """Let the learning rate rise from update to update, and suggest a peak rate from what the loss does."""
    from lrstudy.study import Study

    ours = Study.from_yaml(*split(study))
    plan, _ = ours.plan()
    name = _arm(plan, arm)
    given = {"form": form, "low": low, "high": high, "updates": updates, FOUND: suggest}
    test, measured, is_new = _run(ours, plan, name, {key: value for key, value in given.items() if value is not None})
    rate = measured.curve.rate(test.question.found, f"arms.{name}.lr")
    suggestions = measured.curve.suggestions()
    if svg is not None:
        _draw(svg, test, measured)
    if as_json:
        print(json.dumps(_facts(name, test, measured, rate, is_new), allow_nan=False))
        return
    if svg is not None:
        print(svg)
        return
    _show(test, measured)
    print(f"{name}: {rate:g} ({test.question.found})")
    others = ", ".join(f"{other} {value:g}" for other, value in suggestions.items() if other != test.question.found)
    print(f"other suggestions: {others or 'none'}")
    for line in _described(test, measured, is_new):
        print(line)


def _arm(plan: Plan, name: str | None) -> str:
    """The arm that is named, else the first. Raises InputError for one that there is not."""
    active = [arm for arm in plan.arms if arm not in plan.retired]
    if name is None:
        return active[0]
    if name not in active:
        raise InputError(unknown("--arm", "arm", name, active))
    return name


def _run(study: Study, plan: Plan, arm: str, given: dict[str, Any]) -> tuple[RangeTest, Measured, bool]:
    """The test of an arm, what it measured, and whether it was run just now. What is `given` counts before the study file."""
    from lrstudy.memo.memo import Memo
    from lrstudy.running import range_tests

    asked = plan.arms[arm].questions.get(plan.arms[arm].rates[0])
    test = range_tests.of_arm(plan, arm, _question(asked, given))
    memo = Memo(study.storage.memo)
    measured, is_new = range_tests.recalled(memo, test), False
    if measured is None:
        from lrstudy.training.trainer import Trainer

        print(f"lr-find: {test.num_updates} updates of {plan.study.workload.model} ...", file=sys.stderr, flush=True)
        range_tests.measure(test, plan.workload, memo, lambda: Trainer(plan.workload))
        measured, is_new = range_tests.recalled(memo, test), True
    assert measured is not None, "it has just been stored"
    return test, measured, is_new


def _question(asked: RangeQuestion | None, given: dict[str, Any]) -> RangeQuestion:
    """How the test is made: as the arm asks, but for what is given; another form begins with that form's own defaults."""
    if given.get(FOUND) == "smith":
        given = {"form": "linear", **given}
    before: dict[str, Any] = {} if asked is None else asked.model_dump()
    if given.get("form", before.get("form")) != before.get("form"):
        before = {}
    try:
        return question_of({**before, **given}, "-")
    except InputError as error:
        names = {f"-.{key}": f"--{key}" for key in given} | {f"-.{FOUND}": "--suggest"}
        raise InputError(
            [replace(fault, where=names.get(fault.where, fault.where)) for fault in error.faults]
        ) from None


def _draw(path: Path, test: RangeTest, measured: Measured) -> None:
    from lrstudy.cli.range_svg import draw

    suggestions = {str(name): rate for name, rate in measured.curve.suggestions().items()}
    text = draw(measured.curve, suggestions, test.question.found, test.question.form == "exponential")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(Fault("--svg", f"cannot write {path}: {error.strerror}")) from None


def _show(test: RangeTest, measured: Measured) -> None:
    from lrstudy.tracing.range_chart import chart

    console = Console(highlight=False)
    is_unicode = (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")
    width = console.width if console.is_terminal or "COLUMNS" in console._environ else WIDTH_OF_A_PIPE
    console.print(chart(measured.curve, width, is_unicode=is_unicode), end="", crop=False, soft_wrap=True)


def _described(test: RangeTest, measured: Measured, is_new: bool) -> list[str]:
    curve, question = measured.curve, test.question
    ended = ""
    if curve.diverged:
        ended = ", ended by a loss that is not finite"
    elif curve.ended_early:
        ended = ", ended by a loss of four times the lowest"
    lines = [
        f"{question.form} from {question.low:g} to {question.high:g}, {len(curve.losses)} of {curve.planned} updates{ended}; "
        f"batch {test.passes[0].batch_size}, {test.passes[0].recipe.optimizer}, seed {test.spec.root.seed}; "
        f"{measured.device_s:.1f} device-seconds{'' if is_new else ', recalled'}"
    ]
    if curve.bounds is not None:
        base, high, falls = curve.bounds
        lines.append(
            f"Smith's bounds: {base:.2g} to {high:.2g}, as lr {high:.2g} with base_ratio {base / high:.2g}"
            + ("" if falls else "; the accuracy never fell, so the upper one may be too low")
        )
    return lines


def _facts(name: str, test: RangeTest, measured: Measured, rate: float, is_new: bool) -> dict[str, Any]:
    curve = measured.curve
    return {
        "arm": name,
        "lr": rate,
        "suggestion": test.question.found,
        "suggestions": curve.suggestions(),
        "bounds": None if curve.bounds is None else {"base": curve.bounds.base, "max": curve.bounds.high},
        "form": test.question.form,
        "low": test.question.low,
        "high": test.question.high,
        "planned_updates": curve.planned,
        "diverged": curve.diverged,
        "rates": curve.rates[: len(curve.losses)],
        "losses": curve.losses,
        "smoothed_losses": curve.smoothed.tolist(),
        "accuracy_after": curve.measured_after,
        "accuracies": curve.accuracies,
        "batch_size": test.passes[0].batch_size,
        "optimizer": test.passes[0].recipe.optimizer,
        "seed": test.spec.root.seed,
        "device_s": measured.device_s,
        "recalled": not is_new,
        "range_test": test.digest,
    }
