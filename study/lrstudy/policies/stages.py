"""Training in stages: a policy that hands its epochs to other policies in turn, each with sections of its own to train.

Howard and Ruder 2018 (arXiv 1801.06146) and fastai's lessons train the head first and then the whole network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from lrstudy.errors import Fault, InputError, faults_of
from lrstudy.policies import build
from lrstudy.policies.base import Policy
from lrstudy.policies.durations import to_whole_epoch
from lrstudy.policies.parameters import PositiveDuration, checked, unfit
from lrstudy.policies.run import History, Run
from lrstudy.settings import BatchNormMode, Input, Recipe, Settings, canonical_json

STAGES = "stages"
"""What tables, and the specification of a trial, call the policy of an arm that trains in stages."""

Sections = Annotated[
    Literal["head", "upper", "all"], Field(description="head, upper (all sections but the first) or all")
]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a study file says of a stage beside its policy, the policy's parameters and the common ones.

    Attributes:
        train: Which sections are trained.
        epochs: How long, rounded to whole epochs; of the last stage the rest of the budget.
        input: What is trained on. Features are computed once, and are the default where the head alone is trained.
        batchnorm: As in `Recipe`; by default ``eval`` if a section is frozen, else ``train``.
        reset_optimizer: Whether the stage begins with a new optimizer.
    """

    train: Sections
    epochs: PositiveDuration | None = None
    input: Annotated[Input | None, Field(description="features or images")] = None
    batchnorm: Annotated[BatchNormMode | None, Field(description="train, frozen or eval")] = None
    reset_optimizer: bool = True


STAGE_KEYS = tuple(f.name for f in fields(Stage))


@dataclass(frozen=True)
class Stretch:
    """A stage within a run: its policy, what that knows of the stage as a run of its own, and its first epoch."""

    number: int
    start: int
    policy: Policy
    run: Run
    resets: bool

    @property
    def end(self) -> int:
        """One past its last epoch."""
        return self.start + self.run.num_epochs

    def settings(self, epoch: int, history: History) -> Settings:
        """Settings of an epoch of the whole run: those that the stage's policy has for it, with frozen sections at rate 0."""
        own = self.policy.settings(epoch - self.start, history[self.start : epoch], self.run)
        begins_anew = self.resets and epoch == self.start
        if not begins_anew and not own.recipe.trainable:
            return own
        lr = own.unrounded_lr * np.array(own.recipe.trainable) if own.recipe.trainable else own.unrounded_lr
        return Settings(lr, own.momentum, own.batch_size, replace(own.recipe, reset_optimizer=begins_anew))


@dataclass(frozen=True, kw_only=True)
class Stages(Policy):
    """Trains in stages, each with a policy whose budget is the stage: it counts its epochs and sees its results alone.

    Attributes:
        stages: One map per stage: those keys of `Stage` that are given, `policy` (a name), `parameters` (the policy's) and
            `recipe` (all recipe parameters of the stage that a study file can set).
    """

    name = STAGES

    stages: tuple[dict[str, Any], ...]

    def __post_init__(self) -> None:
        faults = faults_of(super().__post_init__)
        faults += faults_of(lambda: self._parts)
        if faults:
            raise InputError(faults)
        object.__setattr__(self, "reactive", any(policy.reactive for _, policy in self._parts))

    def __hash__(self) -> int:
        return hash(canonical_json([self.lr, self.batch_size, self.momentum, *self.stages]))

    @cached_property
    def _parts(self) -> list[tuple[Stage, Policy]]:
        """Every stage with its policy. Raises InputError with all faults of all stages."""
        parts: list[tuple[Stage, Policy]] = []
        faults: list[Fault] = []
        for number, stage in enumerate(self.stages):
            before = self.stages[number - 1] if number else None
            try:
                parts.append(_part(stage, before, is_last=number + 1 == len(self.stages)))
            except InputError as error:
                faults += error.within(f"stages[{number}]").faults
        if faults:
            raise InputError(faults)
        return parts

    @cached_property
    def _known_stretches(self) -> dict[Run, tuple[Stretch, ...]]:
        """What `stretches` has returned: a policy is asked for many epochs of one run."""
        return {}

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """What the policy of the epoch's stage says. Raises InputError if the stages do not fit the run."""
        stretch = next(stretch for stretch in self.stretches(run) if epoch < stretch.end)
        try:
            return stretch.settings(epoch, history)
        except InputError as error:
            raise error.within(f"stages[{stretch.number}]") from None

    def stretches(self, run: Run) -> tuple[Stretch, ...]:
        """The stages within a run.

        Raises InputError if they are longer or shorter than the budget, one of them has no whole epoch, or one asks for
        features of a model that has none.
        """
        if run not in self._known_stretches:
            lengths, start, stretches = self._lengths(run), 0, []
            for number, ((stage, policy), length) in enumerate(zip(self._parts, lengths, strict=True)):
                recipe = _recipe(number, stage, self.stages[number]["recipe"], run)
                of_stage = replace(run, num_epochs=length, recipe=recipe)
                resets = number > 0 and stage.reset_optimizer
                stretches.append(Stretch(number, start, policy, of_stage, resets))
                start += length
            self._known_stretches[run] = tuple(stretches)
        return self._known_stretches[run]

    def caveats(self) -> tuple[str, ...]:
        """Those of the stages' policies."""
        return tuple(f"stage {k}: {text}" for k, (_, policy) in enumerate(self._parts, 1) for text in policy.caveats())

    def cycle_ends(self, run: Run) -> Sequence[int]:
        """Those of the last stage: an earlier one does not train what the last one does."""
        last = self.stretches(run)[-1]
        return [last.start + end for end in last.policy.cycle_ends(last.run)]

    def stage_starts(self, run: Run) -> Sequence[int]:
        """The first epoch of every stage."""
        return [stretch.start for stretch in self.stretches(run)]

    def _lengths(self, run: Run) -> list[int]:
        """The stages' numbers of epochs. Raises InputError unless each has one, and together they are the budget."""
        lengths: list[int] = []
        faults: list[Fault] = []
        for number, (stage, policy) in enumerate(self._parts):
            if stage.epochs is not None:
                lengths.append(to_whole_epoch(stage.epochs, run.num_epochs, policy.initial_updates(run)))
                if not lengths[-1]:
                    expected = f"at least one whole epoch of the budget of {run.num_epochs}"
                    faults.append(Fault(f"stages[{number}].epochs", expected=expected, got=str(stage.epochs)))
        if faults:
            raise InputError(faults)
        total, shown = sum(lengths), " + ".join(map(str, lengths))
        if len(lengths) < len(self._parts):
            if total >= run.num_epochs:
                expected = f"stages that leave an epoch of the budget of {run.num_epochs} to the last one"
                raise InputError(Fault("stages", expected=expected, got=f"{shown} epochs before it"))
            return [*lengths, run.num_epochs - total]
        if total != run.num_epochs:
            expected = f"stages that together take the budget of {run.num_epochs} epochs"
            advice = "Leave out `epochs` of the last stage: it takes the rest."
            raise InputError(Fault("stages", expected=expected, got=f"{shown} = {total} epochs", advice=advice))
        return lengths


def _part(given: Mapping[str, Any], before: Mapping[str, Any] | None, is_last: bool) -> tuple[Stage, Policy]:
    """A stage and its policy, checked; `before` is the stage before. Raises InputError with every fault."""
    values, faults = checked(Stage, {key: given[key] for key in STAGE_KEYS if key in given})
    if not faults:
        faults += _conflicts(Stage(**values), given, before, is_last)
    try:
        policy = build(given["policy"], given["parameters"])
    except InputError as error:
        faults += error.faults
    if faults:
        raise InputError(faults)
    return Stage(**values), policy


def _conflicts(
    stage: Stage, given: Mapping[str, Any], before: Mapping[str, Any] | None, is_last: bool
) -> Iterator[Fault]:
    """Values of a stage that do not go together."""
    if stage.epochs is None and not is_last:
        yield unfit("epochs", "a duration, like 4 or '25%'; the last stage alone may leave it out", None)
    if stage.batchnorm == "eval" and stage.train == "all":
        yield unfit("batchnorm", "train or frozen where all sections are trained", stage.batchnorm)
    if stage.input == "features" and (stage.train != "head" or stage.batchnorm not in (None, "eval")):
        got = f"features with train {stage.train} and batchnorm {stage.batchnorm or 'eval'}"
        yield Fault(
            "input", expected="features only where the head alone is trained (train: head, batchnorm: eval)", got=got
        )
    if (
        before is not None
        and not stage.reset_optimizer
        and given["recipe"]["optimizer"] != before["recipe"]["optimizer"]
    ):
        yield unfit("reset_optimizer", "true where the optimizer changes", stage.reset_optimizer)


def _recipe(number: int, stage: Stage, given: Mapping[str, Any], run: Run) -> Recipe:
    """The recipe of a stage. Raises InputError if it asks for features that the model does not have."""
    first = {"head": run.num_sections - 1, "upper": min(1, run.num_sections - 1), "all": 0}[stage.train]
    trainable = tuple(section >= first for section in range(run.num_sections)) if first else ()
    batchnorm = stage.batchnorm or ("eval" if trainable else "train")
    if stage.input == "features" and not run.has_features:
        expected = "images with this model: its logits are not what its head makes of its input alone"
        raise InputError(Fault(f"stages[{number}].input", expected=expected, got="features"))
    is_on_features = stage.train == "head" and batchnorm == "eval" and run.has_features and stage.input != "images"
    changes: dict[str, Any] = {**given, "trainable": trainable, "batchnorm": batchnorm}
    if is_on_features:
        changes |= {"input": "features", "augment": "none", "norm_batch": None}
    if batchnorm == "frozen":
        changes["norm_batch"] = None
    return replace(run.recipe, **changes)


def parts(policy: Policy, run: Run) -> list[tuple[str, Policy, Run]]:
    """The policies that decide the epochs of a run: for each where it stands (``stages[0]``; "" for one alone), it, and
    what it knows of its epochs. Raises InputError if stages do not fit the run."""
    if isinstance(policy, Stages):
        return [(f"stages[{of.number}]", of.policy, of.run) for of in policy.stretches(run)]
    return [("", policy, run)]


def feature_stretches(policy: Policy, run: Run) -> list[tuple[int, int]]:
    """The epochs that train the head on features, as (first, one past the last): of stages that follow each other, together.

    The backbone is the same throughout. Raises InputError if stages do not fit the run.
    """
    found: list[tuple[int, int]] = []
    for stretch in policy.stretches(run) if isinstance(policy, Stages) else ():
        if stretch.run.recipe.input == "features":
            goes_on = bool(found) and found[-1][1] == stretch.start
            found.append((found.pop()[0] if goes_on else stretch.start, stretch.end))
    return found


def build_policy(name: str, parameters: Mapping[str, Any]) -> Policy:
    """The policy `name`, ``stages`` or another, with these values. Raises InputError as `build` does."""
    return Stages(**parameters) if name == STAGES else build(name, parameters)
