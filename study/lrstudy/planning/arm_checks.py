"""Checks of arms that need the data, the model and the budget: values that do not fit or that change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import pairwise

from lrstudy import user_code
from lrstudy.config.common import COMMON
from lrstudy.errors import Fault, InputError, faults_of
from lrstudy.planning.arms import Arm, common_definition, one_at_a_time, origin
from lrstudy.planning.caveats import caveats
from lrstudy.planning.features_room import room_faults
from lrstudy.planning.plan import Plan
from lrstudy.planning.staged import base_name, given_names, place
from lrstudy.policies import contract, resolve
from lrstudy.policies.base import Policy, durations_of
from lrstudy.policies.families.batch_increase import GrowingPolicy
from lrstudy.policies.families.plateau import PlateauPolicy
from lrstudy.policies.run import Run
from lrstudy.policies.stages import parts
from lrstudy.search.halton import spread
from lrstudy.search.parameter import Configuration, Parameter, Value

_POINTS = 8
"""At how many points of an arm's space a parameter is tried; if it has no effect at any of them, it has none."""


def check_against_data(plan: Plan) -> None:
    """Check that the arms fit the data, the model and the budget.

    Raises InputError with every fault: a model that cannot take the images, batches larger than the training set,
    and values that do not fit or have no effect.
    """
    faults = [fault.within("workload") for fault in faults_of(lambda: plan.root(0))]
    if plan.study.workload.batchnorm == "precise" and not plan.has_batchnorm:
        expected = f"precise only with a model that has BatchNorm, which {_named(plan)} has not"
        faults.append(Fault("workload.batchnorm", expected=expected))
    faults += [fault for arm in plan.arms.values() for fault in _faults(plan, arm)]
    faults = faults or list(room_faults(plan))
    if faults:
        raise InputError(list(dict.fromkeys(faults)))


def notes(plan: Plan) -> list[str]:
    """What a user should know about data and arms before training, a sentence each."""
    workload = plan.workload
    of_data = list(workload.statistics.notes(plan.study.metric, workload.recipe.class_weights is not None))
    return of_data + [note for name, arm in plan.arms.items() if name not in plan.retired for note in _notes(plan, arm)]


def _faults(plan: Plan, arm: Arm) -> Iterator[Fault]:
    """The faults of an arm, each with its place in the study file."""
    yield from _of_until(plan, arm)
    num_train = plan.workload.counts[0]
    too_large = [(p.name, size) for p in _called(arm, "batch_size") if (size := _largest(p)) > num_train]
    for name, size in too_large:
        expected = f"at most the {num_train} examples of the training part"
        yield Fault(origin(plan.study, arm.name, name), expected=expected, got=str(size))
    if too_large:
        return
    configurations = list(one_at_a_time(arm.space))
    if broken := list(_of_users_policies(plan, arm, configurations[0])):
        yield from broken
        return  # the checks below would report the same in other words
    yield from _of_batchnorm(plan, arm)
    refused = [fault for configuration in configurations for fault in _of_values(plan, arm, configuration)]
    yield from refused
    if not refused:
        yield from _of_found_rates(plan, arm)
        yield from _cap_below_the_batch(plan, arm)
        yield from _without_effect(plan, arm, configurations)


def _called(arm: Arm, *names: str) -> list[Parameter]:
    """The parameters of these names that an arm or a stage of it has."""
    return [p for p in arm.space.parameters if base_name(p.name) in names]


def _largest(parameter: Parameter) -> Value:
    return max(parameter.values or (parameter.low, parameter.high))


def _written(plan: Plan, arm: Arm) -> set[str]:
    """The parameters that the study file gives to an arm and to its stages, by flat names."""
    return given_names(plan.study.arms.get(arm.name, {}))


def _of_users_policies(plan: Plan, arm: Arm, configuration: Configuration) -> Iterator[Fault]:
    """How policies of the user's break the contract, asked about the run of the trials."""
    try:
        stages = parts(arm.build(configuration), plan.run(arm, configuration))
    except InputError:
        return  # said of the values
    for name, (stage, policy, run) in zip(arm.policies, stages, strict=True):
        if user_code.is_reference(name):
            where = f"arms.{arm.name}.{stage}" if stage else f"arms.{arm.name}"
            values = {field.name: getattr(policy, field.name) for field in fields(policy) if field.init}
            yield from (fault.within(where, ": ") for fault in contract.check(resolve(name), values, (run,)))


def _of_until(plan: Plan, arm: Arm) -> Iterator[Fault]:
    """A metric to be reached that the task does not have."""
    task, is_own = plan.workload.task, "until" in plan.study.arms.get(arm.name, {})
    if arm.until is not None and arm.until.metric not in task.metrics:
        where, name = f"arms.{arm.name}.until" if is_own else "budget.until", arm.until.metric
        yield Fault(where, expected=f"a metric of a {task.kind} task", got=name, valid=task.metrics, name=name)


def _notes(plan: Plan, arm: Arm) -> Iterator[str]:
    """Notes on an arm's momentum, on its policy, and on a batch that grows to the whole training set."""
    yield from _of_momentum(plan, arm)
    yield from (f"arms.{arm.name}: {caveat}" for caveat in caveats(plan, arm))
    configuration = arm.space.default()
    policy, run = arm.build(configuration), plan.run(arm, configuration)
    if policy.reactive:
        return
    sizes = [policy.settings(epoch, (), run).batch_size for epoch in range(run.num_epochs)]
    if sizes[0] < max(sizes) == run.num_examples:
        first = sizes.index(run.num_examples)
        rest = "" if getattr(policy, "cap_mode", None) == "keep" else "; what does not fit is taken from the rate"
        yield f"arms.{arm.name}: from epoch {first} the batch is the whole training part, {run.num_examples} examples{rest}."


def _of_momentum(plan: Plan, arm: Arm) -> Iterator[str]:
    """A note if the momentum that the study file gives is not an arm's, whose RMSprop it was not given for."""
    written = plan.study.arms.get(arm.name.partition("@")[0], {})
    given, own = common_definition(plan.study)["momentum"], arm.definition.get("momentum")
    if own is not None and "optimizer" in written and "momentum" not in written and given != own:
        yield (
            f"arms.{arm.name}: its momentum is {own:g}, as {arm.optimizer} has it by default, and not that of common "
            f"({given}). Give the arm a momentum if it should have one."
        )


def _of_values(plan: Plan, arm: Arm, configuration: Configuration) -> Iterator[Fault]:
    """Why a policy with these values refuses the run."""
    run, policy = plan.run(arm, configuration), arm.build(configuration)
    try:
        stages = parts(policy, run)
    except InputError as error:
        yield from error.within(f"arms.{arm.name}").faults
        return
    beyond = [fault for stage, part, of in stages for fault in _of_part(plan, arm, stage, part, of)]
    yield from (fault.within(f"arms.{arm.name}") for fault in beyond)
    if beyond:
        return
    is_default = configuration == arm.space.default()
    try:
        for epoch in range(run.num_epochs) if is_default else _some_epochs(run):
            policy.settings(epoch, (), run)
    except InputError as error:
        yield from error.within(f"arms.{arm.name}").faults
    except Exception as error:  # a user's policy may raise anything
        yield Fault(f"arms.{arm.name}", f"{type(error).__name__}: {error}, with {configuration}")


def _of_part(plan: Plan, arm: Arm, stage: str, policy: Policy, run: Run) -> Iterator[Fault]:
    """Values of an arm's policy, or of that of the `stage` (``stages[0]``), that do not fit its epochs."""
    faults = [*_beyond_the_budget(policy, run)]
    if isinstance(policy, PlateauPolicy):
        given = {place(name) for name in _written(plan, arm)}
        faults += _of_plateau(plan, policy, run.num_epochs, (f"{stage}.patience" if stage else "patience") in given)
    yield from (fault.within(stage) if stage else fault for fault in faults)


def _of_found_rates(plan: Plan, arm: Arm) -> Iterator[Fault]:
    """Rates of later stages that are to be found where no range test could begin with the end of the stage before.

    Its state must have a name before it is trained, and belong to a trial of the arm, which bears what it costs.
    """
    configuration = arm.space.default()
    reactive = [policy.reactive for _, policy, _ in parts(arm.build(configuration), plan.run(arm, configuration))]
    for rate in (rate for rate in arm.questions if any(reactive[: arm.rates.index(rate)])):
        expected = (
            "a number or a space after a stage whose policy follows results: where that ends is not known beforehand"
        )
        yield Fault(origin(plan.study, arm.name, rate), expected=expected, got="found")
    if not plan.cohort.get(arm.name) and arm.space.size > 1 and any(map(arm.rates.index, arm.questions)):
        expected = "at least 1 where the rate of a later stage is to be found, as that begins with the arm's default configuration"
        yield Fault("search.cohort", expected=expected, got="0")


def _some_epochs(run: Run) -> list[int]:
    return sorted({0, run.num_epochs // 2, run.num_epochs - 1})


def _metrics(plan: Plan) -> list[str]:
    """The metrics that a reactive policy can react to."""
    return ["val_loss", "train_loss", *(f"val_{name}" for name in plan.workload.task.metrics)]


def _beyond_the_budget(policy: Policy, run: Run) -> Iterator[Fault]:
    """Durations longer than the budget. A list of milestones is refused only if all of them lie beyond its end."""
    for name, durations in durations_of(policy):
        if durations and all(policy.epochs(duration, run) > run.num_epochs for duration in durations):
            shown = ", ".join(map(str, durations))
            yield Fault(name, expected=f"a duration within the budget of {run.num_epochs} epochs", got=shown)


def _of_plateau(plan: Plan, policy: PlateauPolicy, num_epochs: int, is_patience_given: bool) -> Iterator[Fault]:
    """A metric that does not exist or has the other direction, or a patience with which the rule can never act."""
    yield from faults_of(lambda: policy.require_metrics(_metrics(plan)))
    mode = "min" if policy.metric.endswith("loss") else "max"
    if policy.mode not in ("auto", mode):
        yield Fault("mode", expected=f"auto or {mode} with {policy.metric}", got=policy.mode)
    unchanging = [{policy.metric: 1.0}] * (
        num_epochs - 1
    )  # no epoch comes after the last one, so its metric has no effect
    if is_patience_given and not any(policy.triggers(unchanging)):
        expected = f"a rule that can act within the budget of {num_epochs} epochs"
        yield Fault("patience", expected=expected, got=str(policy.patience))


def _of_batchnorm(plan: Plan, arm: Arm) -> Iterator[Fault]:
    """Batch sizes that do not fit a model with BatchNorm, and a norm_batch with a model that has none."""
    sizes = {p.name: p for p in _called(arm, "batch_size", "norm_batch", "micro_batch")}
    ones = [name for name, p in sizes.items() if 1 in (p.values or (p.low,))]
    if not ones and {base_name(name) for name in sizes} == {"batch_size"}:
        return  # without asking whether the model has BatchNorm, for which a user's model must be built
    named = _named(plan)
    if not plan.has_batchnorm:
        written = {*common_definition(plan.study), *_written(plan, arm)}
        for name in (name for name in sizes if base_name(name) == "norm_batch" and name in written):
            where = origin(plan.study, arm.name, name)
            yield Fault(where, expected=f"it only with a model that has BatchNorm, which {named} has not")
        return
    for name in ones:
        where = origin(plan.study, arm.name, name)
        yield Fault(where, expected=f"at least 2 with {named}, whose BatchNorm needs more than one example", got="1")
    yield from _of_micro_batches(plan, arm, named)


def _named(plan: Plan) -> str:
    return "your model" if user_code.is_reference(plan.workload.model) else plan.workload.model


def _of_micro_batches(plan: Plan, arm: Arm, named: str) -> Iterator[Fault]:
    """Micro-batches that would give another update than the whole batch.

    The update is the same only if BatchNorm takes its statistics over the same examples in both.
    """
    for configuration in one_at_a_time(arm.space):
        try:
            stages = parts(arm.build(configuration), plan.run(arm, configuration))
        except InputError:
            return  # said of the values
        for stage, _, run in stages:
            micro, norm = run.recipe.micro_batch, run.recipe.norm_batch
            is_normalised = run.recipe.batchnorm != "frozen" and run.recipe.input == "images"
            if micro is not None and is_normalised and (norm is None or micro % norm):
                got = f"{micro} without norm_batch" if norm is None else f"{micro} with norm_batch {norm}"
                expected = f"a multiple of norm_batch with {named}, whose BatchNorm else sees other pieces than those of the whole batch"
                where = origin(plan.study, arm.name, "micro_batch")
                yield Fault(where, expected=expected, got=f"{got} in {stage}" if stage else got)


def _cap_below_the_batch(plan: Plan, arm: Arm) -> Iterator[Fault]:
    """A cap in the study file that is below every batch size, so that no batch could grow."""
    is_growing = not arm.stages and issubclass(resolve(arm.policy), GrowingPolicy)
    if not is_growing or "cap" not in plan.study.arms.get(arm.name, {}):
        return
    caps = [value for value in arm.space["cap"].values or (arm.space["cap"].high,) if value is not None]
    batch = arm.space["batch_size"]
    least = min(batch.values or (batch.low,))
    if caps and max(caps) < least:
        yield Fault(f"arms.{arm.name}.cap", expected=f"at least the batch_size {least}", got=str(max(caps)))


def _without_effect(plan: Plan, arm: Arm, configurations: Sequence[Configuration]) -> Iterator[Fault]:
    """Parameters in the study file that change nothing; not checked for reactive policies, which depend on results."""
    if arm.build(configurations[0]).reactive:
        return
    written = _written(plan, arm)
    for name in ("norm_batch", "micro_batch"):
        if name not in written or name not in arm.space or _is_effective(plan, arm, configurations, name):
            continue
        if name == "micro_batch" or plan.has_batchnorm:  # else it was refused for that
            values = ", ".join(str(value) for value in arm.space[name].values)
            got = f"{values}, with batches that are no larger"
            yield Fault(f"arms.{arm.name}.{name}", expected="fewer examples than a batch has", got=got)
    points = spread(arm.space.searched, _POINTS)
    for parameter in arm.space.searched:
        is_written = parameter.name in written or base_name(parameter.name) in COMMON
        if is_written and not any(_matters(plan, arm, parameter, point) for point in points):
            caveats = {c for one in configurations for c in arm.build(one).caveats()}
            yield Fault(
                f"arms.{arm.name}.{place(parameter.name)}",
                expected="a single value, as the values searched make no difference to what is trained",
                advice=" ".join(caveat for caveat in sorted(caveats) if parameter.name in caveat),
            )


def _is_effective(plan: Plan, arm: Arm, configurations: Sequence[Configuration], name: str) -> bool:
    """Whether `norm_batch` or `micro_batch` is smaller than the batch in some epoch of some configuration."""
    for configuration in configurations:
        policy, run = arm.build(configuration), plan.run(arm, configuration)
        for epoch in range(run.num_epochs):
            if getattr(policy.settings(epoch, (), run).recipe, name) is not None:
                return True
    return False


def _matters(plan: Plan, arm: Arm, parameter: Parameter, point: Configuration) -> bool:
    """Whether the parameter's first, middle and last value train differently, the others being as in `point`."""
    needed = arm.space.requirements(parameter.name) or {}
    variants = []
    try:
        for value in _three_values(parameter):
            configuration = arm.space.complete({**point, **needed, parameter.name: value})
            variants.append((arm.build(configuration), plan.run(arm, configuration)))
        for epoch in range(plan.study.budget.epochs):
            digests = [policy.settings(epoch, (), run).digest for policy, run in variants]
            if any(one != other for one, other in pairwise(digests)):
                return True
    except Exception:  # the values do not go together; the trial reports it if a searcher ever suggests them
        return True
    return False


def _three_values(parameter: Parameter) -> list[Value]:
    if not parameter.values:
        return [parameter.at(position) for position in (0.0, 0.5, 1.0)]
    return [
        parameter.values[position] for position in sorted({0, len(parameter.values) // 2, len(parameter.values) - 1})
    ]
