"""A stream: the configurations of one arm under one searcher, in order.

The searcher is asked for suggestion i when it has been told exactly the results 0 ... i-W, in index order, where W is
`outstanding`. So the suggestions do not depend on the order in which trials finish, on the number of workers or on a
crash in between. Without this rule HyperOpt kept 5 of 24 configurations after a resume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lrstudy.search import INDEPENDENT, make
from lrstudy.search.base import Result, Searcher
from lrstudy.search.parameter import Configuration
from lrstudy.search.space import Space


class Stream:
    """The cohort's points, then the searcher's suggestions, `num_trials` in all.

    Args:
        method: The searcher's name, one of `search.METHODS`.
        space: The arm's space.
        seed: The searcher's seed.
        cohort: The configurations that come first; those beyond `num_trials` are left out.
        num_trials: How many configurations the stream has at most.
        outstanding: W, the number of results that may be missing when the searcher is asked for the next suggestion.
        remembered: Suggestions of earlier runs by index, which are made again. The searcher is only created, and taken
            through the same calls as before, when a new suggestion is needed.
    """

    def __init__(
        self,
        method: str,
        space: Space,
        seed: int,
        cohort: Sequence[Configuration],
        num_trials: int,
        outstanding: int,
        remembered: Mapping[int, Configuration] | None = None,
    ) -> None:
        self.asked: list[Configuration] = []
        self.is_exhausted = False
        self._method, self._space, self._seed = method, space, seed
        self._cohort, self._num_trials, self._outstanding = list(cohort)[:num_trials], num_trials, outstanding
        self._remembered = dict(remembered or {})
        self._costs: dict[int, float | None] = {}
        self._num_told = 0  # results 0 ... n - 1 have arrived
        self._searcher: Searcher | None = None
        self._searcher_told = 0
        self._searcher_asked = len(self._cohort)

    @property
    def is_complete(self) -> bool:
        """Whether every suggestion has been made and has its result."""
        return not self._has_more and self._num_told >= len(self.asked)

    @property
    def can_ask(self) -> bool:
        """Whether the next suggestion may be made now."""
        index = len(self.asked)
        if not self._has_more:
            return False
        return index < len(self._cohort) or index - self._outstanding < self._num_told

    @property
    def is_next_known(self) -> bool:
        """Whether the next suggestion is the same whatever the results; then it may be made before them."""
        index = len(self.asked)
        is_given = index < len(self._cohort) or index in self._remembered
        return self._has_more and (is_given or self._method in INDEPENDENT)

    def ask(self) -> Configuration | None:
        """Make the next suggestion; None if the space is exhausted. Call only if `can_ask` or `is_next_known`."""
        assert self.can_ask or self.is_next_known
        index = len(self.asked)
        if index < len(self._cohort):
            configuration: Configuration | None = self._cohort[index]
        elif index in self._remembered:
            configuration = self._remembered[index]
        else:
            configuration = self._from_searcher(index)
        if configuration is None:
            self.is_exhausted = True
            return None
        self.asked.append(configuration)
        return configuration

    def result(self, index: int, cost: float | None) -> None:
        """Take the cost of suggestion `index` (None: it failed). The first result of a suggestion stands."""
        self._costs.setdefault(index, cost)
        while self._num_told in self._costs:
            self._num_told += 1

    @property
    def _has_more(self) -> bool:
        return not self.is_exhausted and len(self.asked) < self._num_trials

    def _from_searcher(self, index: int) -> Configuration | None:
        if self._searcher is None:
            self._searcher = make(self._method, self._space, self._seed)
            for point in self._cohort:
                self._searcher.expect(point)
        while True:
            self._tell_up_to(min(self._searcher_asked - self._outstanding, self._num_told - 1))
            suggested = self._searcher.ask()
            if self._searcher_asked == index:
                self._searcher_asked += suggested is not None
                return suggested
            self._searcher_asked += 1  # a suggestion of an earlier run: the remembered one is used instead

    def _tell_up_to(self, last: int) -> None:
        assert self._searcher is not None
        while self._searcher_told <= last:
            index = self._searcher_told
            self._searcher.tell(Result(self.asked[index], self._costs[index]))
            self._searcher_told += 1
