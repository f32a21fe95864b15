"""Tree-structured Parzen estimators by HyperOpt, used directly (Bergstra et al., NeurIPS 2011).

The space is a flat graph of codes. HyperOpt models each parameter on its own, from the trials that have a value for it,
so a conditional parameter is simply absent from the documents of some trials. A nested `hp.choice` amounts to the same
(24 candidates in the chosen branch, none in the others), but a flat graph also allows several parents, chains of them,
and ladders as parents. A ladder is a quantised uniform index, whose Parzen windows reach its neighbours; `hp.randint`
would make it an unordered choice, and `hp.qloguniform` rounds the value.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from hyperopt import JOB_STATE_DONE, STATUS_OK, Domain, Trials, hp, tpe, trials_from_docs

from lrstudy.search.base import Searcher
from lrstudy.search.parameter import Configuration, Parameter


class HyperOptSearcher(Searcher):
    """TPE with HyperOpt's defaults, except that it uses its model from START_UP results on, not from 20.

    The trials are rebuilt for every suggestion, so that the penalty of a failure follows the worst result. Configurations
    without a result are trials without a loss, which TPE counts among the bad ones.
    """

    def _propose(self) -> Configuration | None:
        if self._is_starting_up:
            return self._fresh()
        trials = self._trials()
        return self._first_new(lambda attempt, num_candidates: self._suggest(trials, attempt, num_candidates))

    @cached_property
    def _domain(self) -> Domain:
        return Domain(None, {p.name: _node(p) for p in self.space.searched})

    def _suggest(self, trials: Trials, attempt: int, num_candidates: int) -> Configuration:
        seed = int(np.random.SeedSequence(self._entropy(attempt)).generate_state(1)[0])
        with np.errstate(divide="ignore", invalid="ignore"):  # the logarithm of a density of 0 is -inf
            document = tpe.suggest(
                [len(self._codes)],
                self._domain,
                trials,
                seed,
                n_startup_jobs=0,
                n_EI_candidates=num_candidates,
                verbose=False,
            )[0]
        return self.space.decode({name: codes[0] for name, codes in document["misc"]["vals"].items()})

    def _trials(self) -> Trials:
        with_result = [(point.codes, {"status": STATUS_OK, "loss": point.cost}) for point in self._told_points()]
        pending = [(codes, self._domain.new_result()) for codes in self._pending()]
        documents = [self._document(tid, *trial) for tid, trial in enumerate(with_result + pending)]
        return trials_from_docs(documents, validate=False)

    def _document(self, tid: int, codes: dict[str, float], result: dict[str, Any]) -> dict[str, Any]:
        values = {p.name: [codes[p.name]] if p.name in codes else [] for p in self.space.searched}
        misc = {
            "tid": tid,
            "cmd": self._domain.cmd,
            "workdir": self._domain.workdir,
            "idxs": {name: [tid] * len(value) for name, value in values.items()},
            "vals": values,
        }
        document: dict[str, Any] = Trials().new_trial_docs([tid], [None], [result], [misc])[0]
        return document | {"state": JOB_STATE_DONE} if "loss" in result else document


def _node(parameter: Parameter) -> Any:
    """The prior of a parameter over its codes: all values are equally likely."""
    if not parameter.values:
        return hp.uniform(parameter.name, 0.0, 1.0)
    if parameter.is_ordinal:
        return hp.quniform(parameter.name, -0.5, len(parameter.values) - 0.5, 1.0)
    return hp.randint(parameter.name, len(parameter.values))
