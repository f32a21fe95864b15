"""SMAC: random-forest Bayesian optimisation (Hutter et al., LION 2011; Lindauer et al., JMLR 2022).

Uses SMAC 3's hyperparameter optimisation facade, a new one for every suggestion: it is seeded from our seed and the
index of the suggestion, filled with all that is known, asked once and thrown away. So nothing that SMAC would keep
(generators, the state of its random numbers, trials it believes to be running) can differ after a restart. It writes no
file.

It differs from the facade's defaults as follows:

- no initial design of its own, which is the cohort (without one: random points, the same in all searchers);
- 1,000 random challengers instead of 10,000, and a forest without the preallocation of 2**20 leaves (2 s a suggestion);
- local searches that stop after 2 rounds without improvement instead of 10, and look at 16 neighbours at a time instead
  of 2 (half the time, no worse points);
- configurations whose result is missing enter the model at the mean cost;
- configurations that are known already are not candidates;
- the order of candidates does not depend on PYTHONHASHSEED.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from ConfigSpace import (
    AndConjunction,
    CategoricalHyperparameter,
    ConfigurationSpace,
    EqualsCondition,
    OrdinalHyperparameter,
    UniformFloatHyperparameter,
)
from ConfigSpace import Configuration as SmacConfiguration
from smac import HyperparameterOptimizationFacade, Scenario
from smac.acquisition.maximizer import LocalAndSortedRandomSearch, LocalSearch
from smac.intensifier.intensifier import Intensifier
from smac.main.config_selector import ConfigSelector
from smac.main.exceptions import ConfigurationSpaceExhaustedException
from smac.main.smbo import SMBO
from smac.model.random_forest import RandomForest
from smac.runhistory import StatusType, TrialInfo, TrialValue

from lrstudy.search.base import Searcher
from lrstudy.search.parameter import Configuration, Parameter
from lrstudy.search.space import Space

_SEED = 0  # of all trials in SMAC's history: for SMAC a configuration has a single cost
_NUM_CHALLENGERS = 1000
_NUM_TRIALS = 10**6  # SMAC's budget; a constant, so that suggestions do not depend on how many a study asks for


class SmacSearcher(Searcher):
    """SMAC over the codes of the space; it uses its model from START_UP results on."""

    def _propose(self) -> Configuration | None:
        if self._is_starting_up:
            return self._fresh()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # for its log, SMAC takes the mean of an empty list of timings
            try:
                chosen = self._filled_facade().ask().config
            except ConfigurationSpaceExhaustedException:
                return self._fresh()  # SMAC gives up after some random draws; this lists the rest
        configuration = self.space.decode(dict(chosen))
        return self._fresh() if self._is_known(configuration) else configuration

    def _filled_facade(self) -> _Facade:
        seed = int(np.random.SeedSequence(self._entropy()).generate_state(1)[0] >> 1)  # SMAC requires a seed < 2**31
        scenario = Scenario(self._smac_space, deterministic=True, n_trials=_NUM_TRIALS, seed=seed)
        logging.getLogger("smac").setLevel(logging.ERROR)
        facade = _Facade(scenario)
        for point in self._told_points():
            status = StatusType.CRASHED if point.failed else StatusType.SUCCESS
            info = TrialInfo(self._smac_configuration(point.codes), seed=_SEED)
            facade.runhistory.add_trial(info, TrialValue(cost=point.cost, status=status))
        for codes in self._pending():
            facade.runhistory.add_running_trial(TrialInfo(self._smac_configuration(codes), seed=_SEED))
        return facade

    @cached_property
    def _smac_space(self) -> ConfigurationSpace:
        return _configuration_space(self.space)

    def _smac_configuration(self, codes: dict[str, float]) -> SmacConfiguration:
        """A configuration for SMAC, built from values and then again from its vector, as SMAC does; else the hash differs."""
        vector = SmacConfiguration(self._smac_space, values=codes).get_array()
        return SmacConfiguration(self._smac_space, vector=vector)


def _configuration_space(space: Space) -> ConfigurationSpace:
    result = ConfigurationSpace()
    result.add([_hyperparameter(p) for p in space.searched])
    for parameter in space.searched:
        conditions = [
            EqualsCondition(result[parameter.name], result[name], int(space[name].encode(value)))
            for name, value in (space.requirements(parameter.name) or {}).items()
        ]
        if conditions:
            result.add(conditions[0] if len(conditions) == 1 else AndConjunction(*conditions))
    return result


def _hyperparameter(parameter: Parameter) -> Any:
    if not parameter.values:
        return UniformFloatHyperparameter(parameter.name, 0.0, 1.0)
    indices = list(range(len(parameter.values)))
    if parameter.is_ordinal:
        return OrdinalHyperparameter(parameter.name, indices)
    return CategoricalHyperparameter(parameter.name, indices)


class _Facade(HyperparameterOptimizationFacade):
    """The facade, with the components below instead of its own."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(
            scenario,
            model=RandomForest(
                scenario.configspace,
                log_y=True,
                n_trees=10,  # this and the following are the facade's, down to max_leaf_nodes
                ratio_features=1.0,
                min_samples_split=2,
                min_samples_leaf=1,
                max_leaf_nodes=4096,
                n_jobs=1,
                seed=scenario.seed,
            ),
            acquisition_maximizer=_Maximizer(scenario.configspace, _NUM_CHALLENGERS, scenario.seed),
            initial_design=self.get_initial_design(scenario, n_configs=0),
            intensifier=_OneTrialEach(scenario, max_config_calls=1),
            config_selector=_Selector(scenario, retrain_after=1),
            logging_level=False,
        )

    def _get_optimizer(self) -> SMBO:
        return _Unsaved(self._scenario, self._runner, self._runhistory, self._intensifier)


class _Unsaved(SMBO):
    """The optimisation loop, without writing files."""

    def _initialize_state(self) -> None:
        pass


class _OneTrialEach(Intensifier):
    """No racing, hence no incumbents: the next trial is whatever the selector proposes."""

    def __iter__(self) -> Iterator[TrialInfo]:
        for configuration in self.config_generator:
            yield TrialInfo(configuration, seed=_SEED)


class _Selector(ConfigSelector):
    """Takes running trials into account, and predicts the costs of all finished ones in one call instead of one by one.

    A running trial is given the mean cost of the others: the "constant liar" of Ginsbourger et al., "Kriging is
    well-suited to parallelize optimization" (2010).
    """

    def _collect_data(self) -> tuple[Any, Any, Any]:
        vectors, costs, finished = super()._collect_data()
        assert self._runhistory is not None
        running = [config.get_array() for config in self._runhistory.get_running_configs()]
        if not running:
            return vectors, costs, finished
        lies = np.full((len(running), 1), costs.mean())
        return np.vstack([vectors, *running]), np.vstack([costs, lies]), finished

    def _get_x_best(self, X: Any) -> tuple[Any, float]:
        assert self._model is not None
        predicted = self._model.predict_marginalized(X)[0][:, 0]
        best = int(np.argmin(predicted))
        return X[best], float(predicted[best])


class _Maximizer(LocalAndSortedRandomSearch):
    """Candidates in order of expected improvement, including those of the random search.

    SMAC itself passes on only the ends of its local searches. On a ladder these are mostly known points, and SMAC then
    falls back to random search.
    """

    def __init__(self, configspace: ConfigurationSpace, num_challengers: int, seed: int) -> None:
        super().__init__(configspace, challengers=num_challengers, seed=seed)
        self._local_search = _LocalSearch(configspace, n_steps_plateau_walk=2, vectorization_min_obtain=16, seed=seed)

    def _maximize(
        self, previous_configs: list[SmacConfiguration], n_points: int
    ) -> list[tuple[float, SmacConfiguration]]:
        drawn = self._random_search._maximize(previous_configs, n_points, _sorted=True)
        starts = drawn[: self._local_search_iterations]
        climbed = self._local_search._maximize(previous_configs, self._local_search_iterations, starts)
        fresh = {_order(config): (value, config) for value, config in [*climbed, *drawn]}
        for config in previous_configs:
            fresh.pop(_order(config), None)
        if not fresh:
            raise ConfigurationSpaceExhaustedException
        return sorted(fresh.values(), key=lambda candidate: candidate[0], reverse=True)


class _LocalSearch(LocalSearch):
    """Starts from its points in an order that does not depend on PYTHONHASHSEED, where SMAC lists a set of them."""

    def _get_init_points_from_previous_configs(self, *arguments: Any) -> list[SmacConfiguration]:
        return sorted(super()._get_init_points_from_previous_configs(*arguments), key=_order)


def _order(config: SmacConfiguration) -> bytes:
    """A total order of configurations, by their vectors (in which inactive parameters are NaN)."""
    return config.get_array().tobytes()
