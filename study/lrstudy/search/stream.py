"""A stream: the configurations of one arm under one searcher, in order.

The cohort comes first, C configurations. The searcher is asked for suggestion i >= C when it has been told exactly the
results 0 ... max(C, i-W+1) - 1, in index order, where W is `outstanding`. So the suggestions do not depend on the order in
which trials finish, on the number of workers or on a crash in between; without such a rule HyperOpt kept 5 of 24
configurations after a resume. And the cohort is the searcher's initial design: every suggestion after it is made by a
model that knows it whole. Without the C, a W of 9 or more left a model none of 16 suggestions.

No stream waits for ever: suggestion i needs results of suggestions before it alone. A searcher that ignores results is
not held back by the cohort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lrstudy.search import INDEPENDENT, make
from lrstudy.search.base import ProposedBy, Result, Searcher
from lrstudy.search.parameter import Configuration
from lrstudy.search.space import Space


@dataclass(frozen=True)
class Suggestion:
    """A configuration of a stream, and where it comes from."""

    configuration: Configuration
    proposed_by: ProposedBy


class Stream:
    """The cohort's points, then the searcher's suggestions, `num_trials` in all.

    Args:
        method: The searcher's name, one of `search.METHODS`.
        space: The arm's space.
        seed: The searcher's seed.
        cohort: The configurations that come first; those beyond `num_trials` are left out.
        num_trials: How many configurations the stream has at most.
        outstanding: W, the number of results that may be missing when the searcher is asked for the next suggestion.
        remembered: Suggestions of earlier runs by index, which are made again as they are, whatever rule they were made
            by. The searcher is only created, and told what it was told then, when a new suggestion is needed.
    """

    def __init__(
        self,
        method: str,
        space: Space,
        seed: int,
        cohort: Sequence[Configuration],
        num_trials: int,
        outstanding: int,
        remembered: Mapping[int, Suggestion] | None = None,
    ) -> None:
        self.asked: list[Suggestion] = []
        self.is_exhausted = False
        self._method, self._space, self._seed = method, space, seed
        self._cohort, self._num_trials, self._outstanding = list(cohort)[:num_trials], num_trials, outstanding
        self._remembered = dict(remembered or {})
        self._costs: dict[int, float | None] = {}
        self._num_told = 0  # results 0 ... n - 1 have arrived
        self._searcher: Searcher | None = None
        self._searcher_told = 0

    @property
    def is_complete(self) -> bool:
        """Whether every suggestion has been made and has its result."""
        return not self._has_more and self._num_told >= len(self.asked)

    @property
    def can_ask(self) -> bool:
        """Whether the next suggestion may be made now."""
        return self._has_more and self._num_told >= self._num_needed(len(self.asked))

    @property
    def is_next_known(self) -> bool:
        """Whether the next suggestion is the same whatever the results; then it may be made before them."""
        index = len(self.asked)
        is_given = index < len(self._cohort) or index in self._remembered
        return self._has_more and (is_given or self._method in INDEPENDENT)

    def ask(self) -> Suggestion | None:
        """Make the next suggestion; None if the space is exhausted. Call only if `can_ask` or `is_next_known`."""
        assert self.can_ask or self.is_next_known
        index = len(self.asked)
        if index < len(self._cohort):
            suggestion: Suggestion | None = self._of_cohort(index)
        elif index in self._remembered:
            suggestion = self._remembered[index]
        else:
            suggestion = self._of_searcher(index)
        if suggestion is None:
            self.is_exhausted = True
            return None
        self.asked.append(suggestion)
        return suggestion

    def result(self, index: int, cost: float | None) -> None:
        """Take the cost of suggestion `index` (None: it failed). The first result of a suggestion stands."""
        self._costs.setdefault(index, cost)
        while self._num_told in self._costs:
            self._num_told += 1

    @property
    def _has_more(self) -> bool:
        return not self.is_exhausted and len(self.asked) < self._num_trials

    def _num_needed(self, index: int) -> int:
        """How many results must have been told when suggestion `index` is asked for."""
        if index < len(self._cohort):
            return 0
        lagged = index - self._outstanding + 1
        return lagged if self._method in INDEPENDENT else max(len(self._cohort), lagged)

    def _of_cohort(self, index: int) -> Suggestion:
        point = self._cohort[index]
        return Suggestion(point, "default" if point == self._space.default() else "cohort")

    def _of_searcher(self, index: int) -> Suggestion | None:
        """A new suggestion, by a searcher that is made when the first one is needed and taken through what was before."""
        if self._searcher is None:
            self._searcher = make(self._method, self._space, self._seed)
            for point in self._cohort:
                self._searcher.expect(point)
            for earlier in range(len(self._cohort), index):
                self._tell(earlier)
                self._searcher.suggested(self.asked[earlier].configuration)
        self._tell(index)
        configuration = self._searcher.ask()
        return None if configuration is None else Suggestion(configuration, self._searcher.proposed_by)

    def _tell(self, index: int) -> None:
        """Tell the searcher what it must know when suggestion `index` is asked for, as far as it is there."""
        assert self._searcher is not None
        while self._searcher_told < min(self._num_needed(index), self._num_told):
            told = self._searcher_told
            self._searcher.tell(Result(self.asked[told].configuration, self._costs[told]))
            self._searcher_told += 1
