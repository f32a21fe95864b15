"""The plan of a study: its arms, workload, cohort and the specification of every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from lrstudy import config
from lrstudy.config import StudyFile
from lrstudy.config.workloads import of_all
from lrstudy.errors import Fault, InputError, faults_of
from lrstudy.lineage import Root
from lrstudy.models.catalogue import NUM_SECTIONS, has_batchnorm
from lrstudy.models.facts import Facts
from lrstudy.planning import arms as arms_module
from lrstudy.planning.arms import Arm, at_cohort_points, common_definition
from lrstudy.policies.run import Run
from lrstudy.search import INDEPENDENT
from lrstudy.search.base import START_UP
from lrstudy.search.parameter import Configuration, parse_parameter
from lrstudy.search.space import Space
from lrstudy.settings import canonical_json
from lrstudy.training.head_inputs import head_inputs
from lrstudy.training.model_facts import facts_of
from lrstudy.trial.selection import Selection
from lrstudy.trial.spec import TrialSpec
from lrstudy.workload.workload import Workload, check_without_data

Phase = Literal["cohort", "tune", "confirm"]
CONFIRM_SEED = 1000
_HERE = Path()


@dataclass(frozen=True)
class Plan:
    """A study whose arms and workload are resolved.

    Attributes:
        study: The study file.
        arms: The arms of the study file in its order, then the retired ones.
        workload: Data, model, task, device and numerics.
        cohort: The cohort's configurations of each arm, in order.
        outstanding: W, how many results of an arm may be missing when its next configuration is asked for.
        cohort_size: How many trials of each arm belong to the cohort.
        search_seed: The seed that the searchers' seeds are derived from.
        retired: The arms of earlier runs that are no longer in the study file. They are shown and recalled, but not
            trained any further.
    """

    study: StudyFile
    arms: Mapping[str, Arm]
    workload: Workload
    cohort: Mapping[str, list[Configuration]]
    outstanding: int
    cohort_size: int
    search_seed: int
    retired: frozenset[str] = frozenset()

    @property
    def methods(self) -> list[str]:
        """The searchers; the first one ranks policies."""
        return self.study.search.method

    @property
    def repeats(self) -> range:
        """The numbers of the searches that each arm has under every searcher, from 0."""
        return range(self.study.search.repeats)

    @property
    def num_trials(self) -> int:
        """How many trials the study has, with all looks and without those of retired arms."""
        search, confirm = self.study.search, self.study.confirm
        total = 0
        for arm in self.arms.keys() - self.retired:
            suggestions = self.num_suggestions(arm)
            tuned = len(self.methods) * suggestions * len(search.seeds)
            total += tuned + min(confirm.top, suggestions) * confirm.looks[-1]
        return total * len(self.repeats)

    def num_suggestions(self, arm: str) -> int:
        """How many configurations each searcher suggests for an arm: the study's trials, or all that its space has."""
        cohort = self.cohort.get(arm, [])[: self.study.search.trials]
        new = self.arms[arm].space.size - len({canonical_json(point) for point in cohort})
        return int(min(self.study.search.trials, len(cohort) + max(0, new)))

    @property
    def running_names(self) -> dict[str, str]:
        """The names that the arms of the study file run under now, by those they have there (`clr` may be `clr@2`)."""
        return dict(zip(self.study.arms, self.arms, strict=False))

    @property
    def control(self) -> str:
        """The arm that others are compared with, under the name that it runs under now."""
        return self.running_names[self.study.control]

    @cached_property
    def model_facts(self) -> Facts:
        """What is known of the model once it is built. Raises InputError if it cannot be."""
        return facts_of(self.workload)

    @cached_property
    def has_batchnorm(self) -> bool:
        """Whether the model has BatchNorm. A user's or timm's is built to find out; False if it cannot be."""
        known = has_batchnorm(self.workload.model)
        if known is not None:
            return known
        try:
            return self.model_facts.has_batchnorm
        except Exception:  # the rehearsal says what is wrong
            return False

    @cached_property
    def head_inputs(self) -> int | None:
        """How many numbers enter the model's head for an image; None if it cannot be trained on them alone."""
        return head_inputs(self.workload)

    def run(self, arm: Arm, configuration: Configuration) -> Run:
        """What the policy of a trial knows about its run. The default `norm_batch` means nothing to a model without BatchNorm."""
        recipe = arm.recipe(configuration, self.workload.recipe)
        if recipe.norm_batch is not None and not self.has_batchnorm:
            recipe = replace(recipe, norm_batch=None)
        has_features = bool(arm.stages) and self.head_inputs is not None
        return Run(self.workload.counts[0], self.study.budget.epochs, NUM_SECTIONS, recipe, has_features)

    def spec(
        self,
        trial_id: str,
        arm: Arm,
        configuration: Configuration,
        seed: int,
        confirm: bool,
        origin: Mapping[str, Any],
    ) -> TrialSpec:
        """The specification of one trial.

        Args:
            trial_id: The trial's name.
            arm: The arm.
            configuration: The values of the arm's parameters.
            seed: The seed of the training.
            confirm: Whether the trial confirms a configuration, and so reads the test part.
            origin: Where the trial comes from, as its records will say.
        """
        return TrialSpec(
            trial_id=trial_id,
            policy=arm.policy,
            parameters=arm.parameters(configuration),
            run=self.run(arm, configuration),
            root=self.root(seed),
            device_share=self.workload.device_share,
            read_test=confirm,
            origin=origin,
            selection=Selection(self.study.select, self.study.metric),
            until=arm.until,
        )

    def root(self, seed: int) -> Root:
        """The root of trials with this seed."""
        return self.workload.root(seed)

    def is_by_model(self, arm: str, method: str, index: int) -> bool:
        """Whether a model will make suggestion `index` of an arm, as far as can be known before results.

        It can if enough different results are told by then; if all of them failed, the suggestion is drawn at random.
        """
        cohort = self.cohort.get(arm, [])[: self.study.search.trials]
        told = max(len(cohort), index - self.outstanding + 1)
        different = len({canonical_json(point) for point in cohort}) + told - len(cohort)
        return method not in INDEPENDENT and index >= len(cohort) and different >= START_UP

    def searcher_seed(self, arm: str, method: str, repeat: int = 0) -> int:
        """The seed of an arm's search number `repeat` by the searcher `method`, derived from the study's search seed."""
        name = f"{self.search_seed}/{arm}/{method}" + (f"/{repeat}" if repeat else "")
        digest = blake2b(name.encode(), digest_size=4).digest()
        return int.from_bytes(digest, "little") >> 1


def largest_batch(plan: Plan) -> int:
    """The largest batch that a trial of the cohort is planned to train with."""
    specs = [
        plan.spec("", plan.arms[name], configuration, 0, False, {})
        for name, configurations in plan.cohort.items()
        for configuration in configurations
    ]
    return max(settings.batch_size for spec in specs for settings in spec.untriggered())


def read(text: str, overrides: Sequence[str] = (), base: Path = _HERE) -> StudyFile:
    """Read and check a study file. References to users' code are relative to the folder `base`.

    Raises InputError with every fault that can be found without the data.
    """
    study, faults = config.examine(text, overrides)
    faults = faults if study is None else [*faults, *_further_faults(study, base)]
    if faults or study is None:
        raise InputError(faults)
    return study


def read_each(text: str, overrides: Sequence[str] = (), base: Path = _HERE) -> dict[str, StudyFile]:
    """The study file of every workload in the map of a file, by its name; of a file without a map under the name "".

    Raises InputError with every fault of all of them.
    """
    examined = config.examine_each(text, overrides, lambda study: _further_faults(study, base))
    if faults := of_all({name: found for name, (_, found) in examined.items()}):
        raise InputError(faults)
    return {name: study for name, (study, _) in examined.items() if study is not None}


def _further_faults(study: StudyFile, base: Path) -> list[Fault]:
    """The faults of arms and of the workload that show without the data."""
    of_arms = faults_of(lambda: arms_module.resolve(study, base))
    return [*of_arms, *(fault.within("workload") for fault in faults_of(lambda: check_without_data(study, base)))]


def make_plan(
    study: StudyFile, workload: Workload, cohort_size: int, outstanding: int, search_seed: int = 0, base: Path = _HERE
) -> Plan:
    """Resolve the arms and the cohort of a study.

    Whether they fit the workload is not checked here but in planning/arm_checks.py.

    Args:
        study: The study file.
        workload: The workload.
        cohort_size: How many trials of each arm belong to the cohort.
        outstanding: W, how many results of an arm may be missing when its next configuration is asked for.
        search_seed: The seed that the searchers' seeds are derived from.
        base: The folder that references to users' policies are relative to.

    Raises:
        InputError: Common parameters or arms are at fault.
    """
    arms = arms_module.resolve(study, base)
    points = arms_module.cohort(study, cohort_size)
    common = common_definition(study)
    placed = {name: at_cohort_points(arm, points, common) for name, arm in arms.items()}
    return Plan(study, arms, workload, placed, outstanding, cohort_size, search_seed)


def default_cohort(study: StudyFile) -> int:
    """The size of the cohort: as the study says, else half of an arm's trials, rounded up."""
    return study.search.cohort if study.search.cohort is not None else (study.search.trials + 1) // 2


def default_outstanding(study: StudyFile, slots: int) -> int:
    """W: as the study says, else 2 * slots / streams, rounded up, and at least 4."""
    streams = len(study.arms) * len(study.search.method) * study.search.repeats
    return study.search.outstanding or max(4, -(-2 * slots // streams))


def with_rates(plan: Plan, rates: Mapping[tuple[str, str], float]) -> Plan:
    """The plan with the rates that range tests have found, by arm and parameter, in the place of provisional ones."""
    arms, cohort = dict(plan.arms), dict(plan.cohort)
    for (name, rate), value in rates.items():
        found = parse_parameter(rate, value, rate)
        parameters = (found if parameter.name == rate else parameter for parameter in arms[name].space.parameters)
        arms[name] = replace(arms[name], space=Space(tuple(parameters)))
        cohort[name] = [{**configuration, rate: value} for configuration in cohort.get(name, ())]
    return replace(plan, arms=arms, cohort=cohort)


def with_store_points(spec: TrialSpec, depths: frozenset[int]) -> TrialSpec:
    """The specification, with the epochs at which the state is stored because other trials wait for it."""
    return replace(spec, store_at=depths)
