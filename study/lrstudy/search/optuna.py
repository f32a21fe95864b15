"""Tree-structured Parzen estimators by Optuna, whose TPE models the parameters jointly (Watanabe, arXiv 2304.11127).

For every suggestion a study in memory is filled with all that is known, asked once and thrown away, so nothing that
Optuna would keep can differ after a restart. A parameter that exists only under a condition is simply absent from the
trials without it: Optuna samples those that all trials have jointly, and the others one by one. A ladder is a whole
number, whose Parzen windows reach its neighbours; a choice is categorical.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from lrstudy.search.base import Searcher
from lrstudy.search.parameter import Configuration, Parameter


class OptunaSearcher(Searcher):
    """TPE with Optuna's defaults, except that it uses its model from START_UP results on, not from 10.

    Configurations whose result is missing are running trials: by the default of Optuna 5, the constant liar, they count
    among the bad ones, so that suggestions that are asked together spread. A failure is a completed trial with a finite
    penalty. The state FAIL would not do: TPE ignores such trials, and returns to where they failed.
    """

    def _propose(self) -> Configuration | None:
        if self._is_starting_up:
            return self._fresh()
        trials = self._trials()
        return self._first_new(lambda attempt, num_candidates: self._suggest(trials, attempt, num_candidates))

    def _suggest(self, trials: list[FrozenTrial], attempt: int, num_candidates: int) -> Configuration:
        seed = int(np.random.SeedSequence(self._entropy(attempt)).generate_state(1)[0])
        sampler = TPESampler(seed=seed, n_startup_trials=0, n_ei_candidates=num_candidates)
        study = _study(sampler)
        study.add_trials(trials)
        return self.space.decode(self._codes_of(study.ask()))

    def _codes_of(self, trial: Trial) -> dict[str, float]:
        """The codes that a trial samples for the parameters that exist in it, each after those it depends on."""
        codes: dict[str, float] = {}
        for parameter, needed in self._conditions:
            if all(codes.get(name) == code for name, code in needed.items()):
                codes[parameter.name] = _sampled(trial, parameter)
        return codes

    @cached_property
    def _conditions(self) -> list[tuple[Parameter, dict[str, float]]]:
        """Every searched parameter with the codes that others must have for it to exist, parents first.

        A parameter has all the requirements of its parents and one more.
        """
        needed = [(p, self.space.requirements(p.name) or {}) for p in self.space.searched]
        coded = [(p, {name: self.space[name].encode(value) for name, value in own.items()}) for p, own in needed]
        return sorted(coded, key=lambda condition: len(condition[1]))

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        return {p.name: _distribution(p) for p in self.space.searched}

    def _trials(self) -> list[FrozenTrial]:
        told = [self._trial(point.codes, point.cost) for point in self._told_points()]
        return told + [self._trial(codes, None) for codes in self._pending()]

    def _trial(self, codes: dict[str, float], cost: float | None) -> FrozenTrial:
        return create_trial(
            state=TrialState.RUNNING if cost is None else TrialState.COMPLETE,
            value=cost,
            params=codes,
            distributions={name: self._distributions[name] for name in codes},
        )


def _study(sampler: TPESampler) -> optuna.Study:
    """A study in memory. Optuna says that it was made, unless its log is quiet for a moment."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study(sampler=sampler)
    finally:
        optuna.logging.set_verbosity(before)


def _sampled(trial: Trial, parameter: Parameter) -> float:
    """The code that a trial samples for a parameter."""
    if not parameter.values:
        return trial.suggest_float(parameter.name, 0.0, 1.0)
    if parameter.is_ordinal:
        return trial.suggest_int(parameter.name, 0, len(parameter.values) - 1)
    return trial.suggest_categorical(parameter.name, range(len(parameter.values)))


def _distribution(parameter: Parameter) -> BaseDistribution:
    """The distribution of a parameter's codes that `_sampled` asks for."""
    if not parameter.values:
        return FloatDistribution(0.0, 1.0)
    if parameter.is_ordinal:
        return IntDistribution(0, len(parameter.values) - 1)
    return CategoricalDistribution(range(len(parameter.values)))
