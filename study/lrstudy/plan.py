"""The plan of a study: its arms, workload, cohort and the specification of every trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal

from lrstudy import arms as arms_module
from lrstudy.arms import Arm, at_cohort_point, common_definition
from lrstudy.config import StudyFile
from lrstudy.faults import InputError
from lrstudy.lineage import Root
from lrstudy.model_names import NUM_SECTIONS
from lrstudy.policies.base import Run
from lrstudy.settings import Recipe
from lrstudy.space import Configuration
from lrstudy.trial import TrialSpec
from lrstudy.workload import Workload

Phase = Literal["cohort", "tune", "confirm"]
CONFIRM_SEED = 1000


@dataclass(frozen=True)
class Plan:
    """A study, resolved. `cohort` holds one configuration per arm and cohort index; `outstanding` is W.

    `retired` arms are of earlier runs and no longer in the study file: shown, recalled, never trained on.
    """

    study: StudyFile
    arms: Mapping[str, Arm]
    workload: Workload
    cohort: Mapping[str, list[Configuration]]
    outstanding: int
    cohort_size: int
    retired: frozenset[str] = frozenset()

    @property
    def methods(self) -> list[str]:
        """The searchers, the ranking one first."""
        return self.study.search.method

    @property
    def num_trials(self) -> int:
        """How many trials the whole study has, retired arms aside."""
        search, confirm = self.study.search, self.study.confirm
        per_arm = len(self.methods) * search.trials * len(search.seeds) + confirm.top * confirm.seeds
        return len(self.arms.keys() - self.retired) * per_arm

    def run(self, arm: Arm, configuration: Configuration) -> Run:
        """What the policy of a trial may know."""
        recipe = arm.recipe(configuration, Recipe(augment=self.study.workload.augment))
        return Run(self.workload.counts[0], self.study.budget.epochs, NUM_SECTIONS, recipe)

    def spec(
        self,
        trial_id: str,
        arm: Arm,
        configuration: Configuration,
        seed: int,
        confirm: bool,
        origin: Mapping[str, Any],
    ) -> TrialSpec:
        """The specification of one trial."""
        return TrialSpec(
            trial_id=trial_id,
            policy=arm.policy,
            parameters=arm.parameters(configuration),
            run=self.run(arm, configuration),
            root=self.root(seed),
            share=self.workload.share,
            read_test=confirm,
            origin=origin,
        )

    def root(self, seed: int) -> Root:
        """The root of trials with this seed."""
        return self.workload.root(seed)

    def searcher_seed(self, arm: str, method: str) -> int:
        """A seed of its own for every searcher, from the study's."""
        digest = blake2b(f"{self.study.search.seed}/{arm}/{method}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "little") >> 1


def make_plan(study: StudyFile, workload: Workload, cohort_size: int, outstanding: int) -> Plan:
    """Resolve a study against its workload. Raises InputError for what only the data can show."""
    arms = arms_module.resolve(study)
    points = arms_module.cohort(study, arms, cohort_size)
    common = common_definition(study)
    placed = {name: [at_cohort_point(arm, point, common) for point in points] for name, arm in arms.items()}
    plan = Plan(study, arms, workload, placed, outstanding, cohort_size)
    _check_against_data(plan)
    return plan


def default_cohort(study: StudyFile) -> int:
    """Half of an arm's trials, unless the study says otherwise."""
    return study.search.cohort if study.search.cohort is not None else (study.search.trials + 1) // 2


def default_outstanding(study: StudyFile, slots: int) -> int:
    """W: how many results of an arm may be missing when its next configuration is asked for."""
    streams = len(study.arms) * len(study.search.method)
    return study.search.outstanding or max(4, -(-2 * slots // streams))


def _check_against_data(plan: Plan) -> None:
    """Batches larger than the training set, and settings that do not fit budget, data or sections."""
    faults = []
    train = plan.workload.counts[0]
    for name, arm in plan.arms.items():
        sizes = arm.space["batch_size"].values or (arm.space["batch_size"].high,)
        if max(sizes) > train:
            faults.append(
                f"arms.{name}.batch_size: {max(sizes)} is more than the {train} examples of the training part. "
                f"Expected at most {train}."
            )
            continue
        configuration = arm.space.default()
        run = plan.run(arm, configuration)
        try:
            policy = plan.spec("check", arm, configuration, 0, False, {}).build_policy()
            for epoch in range(run.num_epochs):
                policy.settings(epoch, (), run)
        except ValueError as error:
            faults.append(f"arms.{name}.{error}")
    if faults:
        raise InputError(faults)


def with_store_points(spec: TrialSpec, depths: frozenset[int]) -> TrialSpec:
    """The specification, with the epochs whose state other trials wait for."""
    return replace(spec, store_at=depths)
