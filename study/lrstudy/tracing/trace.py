"""What policies do: the learning rate of every update, momentum and batch size, without training anything.

The numbers are those that training would be given: settings as applied, rounded once to 9 significant digits. No torch,
unless a policy is one of torch's schedulers or imports it itself.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lrstudy import policies, user_code
from lrstudy.config import StudyFile
from lrstudy.config.common import COMMON, INITIAL, recipe_faults
from lrstudy.config.text import apply_overrides
from lrstudy.errors import Fault, InputError, unknown
from lrstudy.models.catalogue import NUM_SECTIONS
from lrstudy.planning import arms as arms_module
from lrstudy.policies.base import Policy, parameter_names
from lrstudy.policies.run import History, Run, count_updates
from lrstudy.policies.user_policies import values_of
from lrstudy.settings import DIGITS, FloatArray, Recipe, Settings, Tail
from lrstudy.workload.workload import load

By = Literal["update", "epoch"]

DEFAULT_LR = 0.1
DEFAULT_BATCH = 32
DEFAULT_UPDATES = 100
_RECIPE = tuple(parameter.name for parameter in COMMON.values() if parameter.is_traced)
_OF_SECTIONS = ("section_ratios", "section_rates")


@dataclass(frozen=True, eq=False)
class Trace:
    """The settings of every epoch of one run of a policy; `label` is what a chart calls it.

    `num_known` epochs had metrics that a reactive policy could react to.
    """

    label: str
    policy: Policy
    run: Run
    settings: tuple[Settings, ...]
    num_known: int = 0

    @staticmethod
    def of(label: str, policy: Policy, run: Run, history: History = ()) -> Trace:
        """Ask the policy for every epoch of the run, given the metrics of the first ones. Raises InputError."""
        try:
            asked = tuple(policy.settings(epoch, history[:epoch], run) for epoch in range(run.num_epochs))
        except InputError as error:
            raise error.within(label, ": ") from None
        except ValueError as error:
            raise InputError(Fault(label, str(error))) from None
        except Exception as error:
            if not user_code.is_reference(label):
                raise
            line = user_code.line_in(error, Path(inspect.getfile(type(policy))).parent)
            raise InputError(Fault(label, f"settings raised {type(error).__name__}: {error}{line}")) from error
        return Trace(label, policy, run, asked, len(history))

    @cached_property
    def clock(self) -> FloatArray:
        """Where each update stands, in epochs, shape (updates of the run,)."""
        return np.concatenate([e + np.arange(s.num_updates) / s.num_updates for e, s in enumerate(self.settings)])

    @cached_property
    def lr(self) -> FloatArray:
        """The unrounded rate of each update and section, shape (updates, sections); the head is the last section."""
        return np.concatenate([s.unrounded_lr for s in self.settings])

    @cached_property
    def momentum(self) -> FloatArray:
        """The momentum of each update (Adam's beta1), shape (updates,); it is the same in all sections."""
        return np.concatenate([s.momentum[:, -1] for s in self.settings])

    @cached_property
    def batch(self) -> FloatArray:
        """The batch size of each epoch, shape (epochs,)."""
        return np.array([s.batch_size for s in self.settings], dtype=np.float64)

    @property
    def notes(self) -> list[str]:
        """What to know of this trace."""
        notes = list(self.policy.caveats())
        if self.policy.reactive and not self.num_known:
            metric = getattr(self.policy, "metric", None)
            looks = f"looks at {metric}" if metric else "looks at results"
            notes.append(f"{self.label} {looks}; without --metrics nothing triggers.")
        return notes

    def to_json(self, by: By = "update") -> dict[str, Any]:
        """JSON values. `lr_per_step[k]` is the rate of update k of the run, of the head if sections differ.

        Rates are unrounded; training applies them rounded to `rounded_to_digits` significant digits.
        """
        found: dict[str, Any] = {
            "policy": self.label if user_code.is_reference(self.label) else self.policy.name,
            "label": self.label,
            "parameters": _plain(values_of(self.policy)),
            "recipe": {name: getattr(self.run.recipe, name) for name in _RECIPE},
            "epochs": self.run.num_epochs,
            "examples": self.run.num_examples,
            "sections": self.run.num_sections,
            "rounded_to_digits": DIGITS,
            "batch_size_per_epoch": [s.batch_size for s in self.settings],
            "updates_per_epoch": [s.num_updates for s in self.settings],
        }
        several = self.run.num_sections > 1
        if by == "update":
            found["lr_per_step"] = self.lr[:, -1].tolist()
            found |= {"lr_per_step_sections": self.lr.T.tolist()} if several else {}
            found["momentum_per_step"] = self.momentum.tolist()
        else:
            found["lr_per_epoch"] = _summaries([s.unrounded_lr[:, -1] for s in self.settings])
            if several:
                found["lr_per_epoch_sections"] = [
                    _summaries([s.unrounded_lr[:, k] for s in self.settings]) for k in range(self.run.num_sections)
                ]
            found["momentum_per_epoch"] = _summaries([s.momentum[:, -1] for s in self.settings])
        return found | {"caveats": list(self.policy.caveats()), "notes": self.notes}


@dataclass(frozen=True)
class Length:
    """How long a run is: `num_epochs` of `num_updates` at `batch_size` from `num_examples`."""

    num_epochs: int
    num_updates: int
    batch_size: int
    num_examples: int


def trace_policies(
    names: Sequence[str],
    overrides: Sequence[str],
    base: Path,
    epochs: int | None,
    updates: int | None = None,
    examples: int | None = None,
    sections: int | None = None,
    metrics: Sequence[str] = (),
) -> list[Trace]:
    """Trace policies by name; ``key=value`` goes to every policy that has such a parameter, and to the recipe.

    References to a user's file start at `base`. Raises InputError with every fault: unknown policies and parameters,
    values out of range, and a length that contradicts itself.
    """
    values = apply_overrides({}, overrides)
    classes = {name: _resolved(name, base) for name in dict.fromkeys(names)}
    faults = _nobodys(values, classes)
    faults += recipe_faults({name: value for name, value in values.items() if name in _RECIPE})
    if epochs is None:
        faults.append(Fault("--epochs", expected="the number of epochs", got="nothing"))
    faults += [
        Fault(option, expected="a whole number of at least 1", got=str(value))
        for option, value in {
            "--epochs": epochs, "--updates-per-epoch": updates, "--examples": examples, "--sections": sections,
        }.items()
        if value is not None and value < 1
    ]  # fmt: skip
    if faults or epochs is None:
        raise InputError(faults)
    tail = values.get("tail", "keep")
    length = length_of(epochs, updates, examples, values.get("batch_size"), tail)
    recipe = _recipe(values, length.batch_size)
    given = {"lr": DEFAULT_LR, **values, "batch_size": values.get("batch_size", length.batch_size)}
    history = read_metrics(metrics, epochs)
    traces = []
    for label, policy in classes.items():
        mine = {key: value for key, value in given.items() if key in parameter_names(policy)}
        try:
            made = policies.build_from(policy, mine)
        except InputError as error:
            raise error.within(label, ": ") from None
        _check_metrics(label, made, history)
        run = Run(length.num_examples, epochs, sections or _num_sections(made), recipe)
        traces.append(Trace.of(label, made, run, history))
    return traces


def trace_study(
    study: StudyFile,
    base: Path,
    data_cache: Path,
    names: Sequence[str] = (),
    examples: int | None = None,
    sections: int | None = None,
    metrics: Sequence[str] = (),
) -> list[Trace]:
    """Trace arms of a study at their defaults, which are the cohort's first point.

    Args:
        study: The study file; its budget is the length of the run.
        base: The folder that its relative paths start from.
        data_cache: The folder of decoded data. The data is looked at, and decoded if need be, unless `examples` is given.
        names: The arms; all of them if there are none.
        examples: Number of training examples, instead of those of the data.
        sections: Number of the model's sections, input to head; three by default, as models have.
        metrics: What a reactive policy sees, as `read_metrics` takes it.

    Raises:
        InputError: An arm is unknown, its policy refuses the run, or the data cannot be read.
    """
    arms = arms_module.resolve(study, base)
    if missing := [name for name in names if name not in arms]:
        raise InputError([unknown("trace", "arm", name, arms) for name in missing])
    if examples is None:
        _, parts = load(study.workload.data_spec(base), data_cache)
        examples = len(parts.train)
    history = read_metrics(metrics, study.budget.epochs)
    traces = []
    for name in dict.fromkeys(names or arms):
        arm = arms[name]
        configuration = arm.space.default()
        policy = policies.build(arm.policy, arm.parameters(configuration))
        recipe = arm.recipe(configuration, Recipe())
        run = Run(examples, study.budget.epochs, sections or NUM_SECTIONS, recipe)
        traces.append(Trace.of(name, policy, run, history))
    return traces


def length_of(epochs: int, updates: int | None, examples: int | None, batch_size: object, tail: Tail) -> Length:
    """The length of a run of which up to two of `updates` per epoch, `examples` and `batch_size` are missing.

    Of two that are given the third follows; of several batch sizes that make the same updates, the smallest (where
    the tail is dropped, the largest) is taken. Raises InputError if the three contradict each other.
    """
    if batch_size is not None and not (type(batch_size) is int and batch_size >= 1):
        raise InputError(Fault("batch_size", expected="a whole number of at least 1", got=f"{batch_size!r}"))
    batch: int | None = batch_size
    if batch is None and updates is not None and examples is not None:
        near = _nearest(examples, updates, tail)
        batch = next((size for size, made in near.items() if made == updates), None)
        if batch is None:
            shown = "; ".join(f"batch_size {size} makes {made}" for size, made in near.items())
            raise InputError(
                Fault(
                    "--updates-per-epoch",
                    f"no batch size makes {updates} updates of {examples} examples",
                    advice=f"{shown}.",
                )
            )
    batch = batch or DEFAULT_BATCH
    if examples is None:
        examples = batch * (updates or DEFAULT_UPDATES)
    made = count_updates(examples, min(batch, examples) if tail == "keep" else batch, tail)
    if updates not in (None, made):
        raise InputError(
            Fault(
                "--updates-per-epoch",
                f"{examples} examples make {made} updates with batch_size {batch}; got {updates}",
                advice="Leave one of the three out.",
            )
        )
    return Length(epochs, made, batch, examples)


def read_metrics(texts: Iterable[str], num_epochs: int) -> list[dict[str, float]]:
    """The metrics of finished epochs, from ``val_loss=1.0,0.9`` or a JSON file of lists by name or of one map per epoch.

    Each text adds to the others; ``nan`` or null is a metric that an epoch lacks. Raises InputError.
    """
    columns: dict[str, list[float | None]] = {}
    for text in texts:
        columns |= _column(text) if "=" in text else _columns_of_file(Path(text))
    longest = max(map(len, columns.values()), default=0)
    if longest > num_epochs:
        raise InputError(
            Fault("--metrics", expected=f"at most the {num_epochs} epochs of the run", got=f"{longest} values")
        )
    found: list[dict[str, float]] = [{} for _ in range(longest)]
    for name, values in columns.items():
        for epoch, value in enumerate(values):
            if value is not None:
                found[epoch][name] = value
    return found


def _resolved(name: str, base: Path) -> type[Policy]:
    if user_code.is_reference(name):
        return policies.resolve(user_code.resolve(name, base))
    try:
        return policies.resolve(name)
    except InputError as error:
        advice = "A study file ends in .yaml." if not name.startswith(policies.TORCH) else ""
        raise InputError([replace(fault, advice=fault.advice or advice) for fault in error.faults]) from None


def _nobodys(values: Mapping[str, Any], classes: Mapping[str, type[Policy]]) -> list[Fault]:
    """A fault for each value that no policy and no recipe takes."""
    names = list(dict.fromkeys([*(p for c in classes.values() for p in parameter_names(c)), *_RECIPE]))
    who = next(iter(classes)) if len(classes) == 1 else "none of the policies"
    verb = "has no such parameter" if len(classes) == 1 else "has such a parameter"
    return [Fault(key, f"{who} {verb}", valid=tuple(names), name=key) for key in values if key not in names]


def _recipe(values: Mapping[str, Any], batch_size: int) -> Recipe:
    given = {name: values[name] for name in _RECIPE if name in values}
    if given.get("norm_batch") == INITIAL:
        given["norm_batch"] = batch_size
    return replace(Recipe(), **given)


def _num_sections(policy: Policy) -> int:
    """As many sections as the policy has rates for: three, as models have, if it leaves that open; else one."""
    names = [name for name in _OF_SECTIONS if name in parameter_names(type(policy))]
    given = [len(value) for name in names if (value := getattr(policy, name)) is not None]
    return given[0] if given else NUM_SECTIONS if names else 1


def _nearest(examples: int, updates: int, tail: Tail) -> dict[int, int]:
    """The batch sizes that make nearest to `updates` updates, and how many each makes; the one to be taken first."""
    if tail == "drop":
        sizes = [examples // updates, examples // updates + 1]
    else:
        most = -(-examples // updates)
        sizes = [most - 1, most]  # a tail of one example joins the batch before it, so the smaller one may do
    return {size: count_updates(examples, size, tail) for size in sizes if 1 <= size <= examples}


def _check_metrics(label: str, policy: Policy, history: History) -> None:
    metric = getattr(policy, "metric", None)
    if policy.reactive and history and metric is not None and not any(metric in epoch for epoch in history):
        names = sorted({name for epoch in history for name in epoch})
        raise InputError(Fault("--metrics", f"{label} looks at {metric}; got {', '.join(names) or 'no values'}"))


def _column(text: str) -> dict[str, list[float | None]]:
    name, _, listed = text.partition("=")
    values: list[float | None] = []
    for item in listed.split(","):
        try:
            values.append(_metric(float(item)))
        except ValueError:
            raise InputError(
                Fault("--metrics", expected="numbers, like val_loss=1.0,0.9", got=f"{item.strip()!r}")
            ) from None
    return {name.strip(): values}


def _columns_of_file(path: Path) -> dict[str, list[float | None]]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            Fault("--metrics", expected=f"NAME=NUMBERS or a JSON file; {path} cannot be read: {reason}")
        ) from None
    if isinstance(raw, list) and all(isinstance(epoch, dict) for epoch in raw):
        raw = {name: [epoch.get(name) for epoch in raw] for name in {name for epoch in raw for name in epoch}}
    is_right = isinstance(raw, dict) and all(
        isinstance(values, list) and all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values)
        for values in raw.values()
    )  # fmt: skip
    if not is_right:
        raise InputError(
            Fault(
                "--metrics",
                expected=f"{path} to hold lists of numbers by name, or a list with a map of metrics per epoch",
            )
        )
    return {str(name): [_metric(value) for value in values] for name, values in raw.items()}


def _metric(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _summaries(epochs: Sequence[FloatArray]) -> dict[str, list[float]]:
    return {
        "first": [float(values[0]) for values in epochs],
        "min": [float(values.min()) for values in epochs],
        "max": [float(values.max()) for values in epochs],
        "last": [float(values[-1]) for values in epochs],
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
