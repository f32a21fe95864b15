"""What a report must say about an arm, and what a user should know before it is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lrstudy.errors import InputError
from lrstudy.planning.arms import Arm, one_at_a_time
from lrstudy.planning.plan import Plan
from lrstudy.policies.base import Policy
from lrstudy.policies.run import Run
from lrstudy.policies.stages import parts
from lrstudy.trial.until import Until

DIFFERENTIAL = (
    "differential rates are meant for pre-trained weights; with random ones, as here, the layers near the input hardly leave "
    "where they began."
)
FEATURES = (
    "stage {} trains the head on features that are computed once: nothing is augmented there, and nothing dropped before the "
    "head."
)
UNGATHERED = (
    "stage {} keeps BatchNorm's running statistics as they are before anything gathered any: with random weights they are those "
    "of no data, and what passes through the network may grow without bound."
)
_NO_CYCLE = "where the budget ends within the first cycle there is no completed one to select, and the last epoch is judged and tested."


def caveats(plan: Plan, arm: Arm) -> tuple[str, ...]:
    """The caveats of an arm over all values that its parameters may take, a sentence each and each once.

    They are those of its policy, that of differential rates where the weights are random, that of a budget without a
    completed cycle where the end of the last one is selected, and that of trials which end at a target.
    """
    found: dict[str, None] = {}
    if arm.until is not None:
        found[_until(arm.until)] = None
    is_random = plan.study.workload.weights == "random"
    for configuration in one_at_a_time(arm.space):
        policy, run = arm.build(configuration), plan.run(arm, configuration)
        found |= dict.fromkeys(policy.caveats())
        stages = _parts(policy, run)
        if is_random and plan.has_batchnorm:
            found |= dict.fromkeys(map(UNGATHERED.format, _on_initial_statistics(stages)))
        for number, (_, part, of) in enumerate(stages, 1):
            if is_random and _is_differential(part, of):
                found[DIFFERENTIAL] = None
            if of.recipe.input == "features":
                found[FEATURES.format(number)] = None
        if plan.study.select == "last_cycle" and stages and not policy.cycle_ends(run):
            found[_NO_CYCLE] = None
    return tuple(found)


def _parts(policy: Policy, run: Run) -> list[tuple[str, Policy, Run]]:
    """The policies of the stages; none if the stages do not fit the run, which is a fault elsewhere."""
    try:
        return parts(policy, run)
    except InputError:
        return []


def _until(until: Until) -> str:
    return (
        f"its trials end after the first epoch with a validation {until.metric.replace('_', ' ')} of {until.value:g} or more: "
        "test values and costs are those of getting there, and what the whole budget would have given is not measured."
    )


def _on_initial_statistics(stages: Sequence[tuple[str, Policy, Run]]) -> Iterator[int]:
    """The numbers of the stages that train a frozen BatchNorm, all before the first stage that gathers statistics."""
    for number, (_, _, run) in enumerate(stages, 1):
        if run.recipe.batchnorm == "train":
            return
        if run.recipe.batchnorm == "frozen":
            yield number


def _is_differential(policy: Policy, run: Run) -> bool:
    """Whether the sections have different rates in the first epoch. A policy that refuses the run is a fault elsewhere."""
    try:
        lr = policy.settings(0, (), run).lr
    except InputError:
        return False
    return bool((lr != lr[:, :1]).any())
