"""Makes traces: of policies by name, or of the arms of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrstudy import policies, user_code
from lrstudy.config import StudyFile
from lrstudy.config.common import INITIAL, recipe_faults
from lrstudy.config.text import apply_overrides
from lrstudy.errors import Fault, InputError, unknown
from lrstudy.models.catalogue import NUM_SECTIONS
from lrstudy.planning import arms as arms_module
from lrstudy.policies.base import Policy, parameter_names
from lrstudy.policies.run import Run
from lrstudy.settings import Recipe
from lrstudy.storage.place import Storage
from lrstudy.tracing.length import length_of
from lrstudy.tracing.metrics_input import check_metrics, read_metrics
from lrstudy.tracing.trace import RECIPE_PARAMETERS, Trace
from lrstudy.workload.workload import load

DEFAULT_LR = 0.1
_SECTION_PARAMETERS = ("section_ratios", "section_rates")


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
    """Trace policies by name, in runs of the same length.

    Args:
        names: The policies: built-in ones, ``torch:NAME``, or references to a user's file.
        overrides: ``key=value`` texts. Each goes to every policy that has such a parameter, and to the recipe.
        base: The folder that references to a user's file start from.
        epochs: Number of epochs. It must be given; None is reported together with the other faults.
        updates: Updates per epoch at the initial batch size.
        examples: Number of training examples.
        sections: Number of the model's sections, input to head. By default as many as the policy has rates for.
        metrics: What a reactive policy sees, as `read_metrics` takes it.

    Raises:
        InputError: Policies or parameters are unknown, values are out of range, or the length contradicts itself.
    """
    values = apply_overrides({}, overrides)
    classes = {name: _resolved(name, base) for name in dict.fromkeys(names)}
    faults = [
        *_unknown_parameters(values, classes),
        *recipe_faults({name: value for name, value in values.items() if name in RECIPE_PARAMETERS}),
        *_length_faults(epochs, updates, examples, sections),
    ]
    if faults or epochs is None:
        raise InputError(faults)
    length = length_of(epochs, updates, examples, values.get("batch_size"), values.get("tail", "keep"))
    recipe = _recipe(values, length.batch_size)
    values = {"lr": DEFAULT_LR, **values, "batch_size": values.get("batch_size", length.batch_size)}
    history = read_metrics(metrics, epochs)
    traces = []
    for label, policy_class in classes.items():
        policy = _built(label, policy_class, values)
        check_metrics(label, policy, history)
        run = Run(length.num_examples, epochs, sections or _num_sections(policy), recipe)
        traces.append(Trace.of(label, policy, run, history))
    return traces


def trace_study(
    study: StudyFile,
    base: Path,
    storage: Storage,
    names: Sequence[str] = (),
    examples: int | None = None,
    sections: int | None = None,
    metrics: Sequence[str] = (),
) -> list[Trace]:
    """Trace arms of a study at their defaults, which are the cohort's first point.

    Args:
        study: The study file; its budget is the length of the run.
        base: The folder that its relative paths start from.
        storage: Its storage. The data is read, and decoded if need be, unless `examples` is given.
        names: The arms to trace; all of them if empty.
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
        _, parts = load(study.workload.data_spec(base), storage)
        examples = len(parts.train)
    history = read_metrics(metrics, study.budget.epochs)
    traces = []
    for name in dict.fromkeys(names or arms):
        arm = arms[name]
        configuration = arm.space.default()
        policy = arm.build(configuration)
        recipe = arm.recipe(configuration, Recipe())
        run = Run(examples, study.budget.epochs, sections or NUM_SECTIONS, recipe)
        traces.append(Trace.of(name, policy, run, history))
    return traces


def _resolved(name: str, base: Path) -> type[Policy]:
    """The class of a policy. Raises InputError, with a hint where the name may have been meant as a study file."""
    if user_code.is_reference(name):
        return policies.resolve(user_code.resolve(name, base))
    try:
        return policies.resolve(name)
    except InputError as error:
        advice = "A study file ends in .yaml." if not name.startswith(policies.TORCH) else ""
        raise InputError([replace(fault, advice=fault.advice or advice) for fault in error.faults]) from None


def _unknown_parameters(values: Mapping[str, Any], classes: Mapping[str, type[Policy]]) -> list[Fault]:
    """A fault for each value that neither a policy nor the recipe has a parameter for."""
    names = list(dict.fromkeys([*(p for c in classes.values() for p in parameter_names(c)), *RECIPE_PARAMETERS]))
    who = next(iter(classes)) if len(classes) == 1 else "none of the policies"
    verb = "has no such parameter" if len(classes) == 1 else "has such a parameter"
    return [Fault(key, f"{who} {verb}", valid=tuple(names), name=key) for key in values if key not in names]


def _length_faults(
    epochs: int | None, updates: int | None, examples: int | None, sections: int | None
) -> Iterator[Fault]:
    """The faults of the options that say how long the run is."""
    if epochs is None:
        yield Fault("--epochs", expected="the number of epochs", got="nothing")
    options = {
        "--epochs": epochs, "--updates-per-epoch": updates, "--examples": examples, "--num-sections": sections,
    }  # fmt: skip
    for option, value in options.items():
        if value is not None and value < 1:
            yield Fault(option, expected="a whole number of at least 1", got=str(value))


def _built(label: str, policy: type[Policy], values: Mapping[str, Any]) -> Policy:
    """The policy with those of the values that it has parameters for. Raises InputError led by `label`."""
    names = parameter_names(policy)
    try:
        return policies.build_from(policy, {key: value for key, value in values.items() if key in names})
    except InputError as error:
        raise error.within(label, ": ") from None


def _recipe(values: Mapping[str, Any], batch_size: int) -> Recipe:
    recipe_values = {name: values[name] for name in RECIPE_PARAMETERS if name in values}
    if recipe_values.get("norm_batch") == INITIAL:
        recipe_values["norm_batch"] = batch_size
    return replace(Recipe(), **recipe_values)


def _num_sections(policy: Policy) -> int:
    """How many sections the policy has rates for; if it leaves that open, three, as models have; else one."""
    names = [name for name in _SECTION_PARAMETERS if name in parameter_names(type(policy))]
    lengths = [len(value) for name in names if (value := getattr(policy, name)) is not None]
    if lengths:
        return lengths[0]
    return NUM_SECTIONS if names else 1
