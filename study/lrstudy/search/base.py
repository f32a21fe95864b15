"""The ask-and-tell interface of a searcher: ask for configuration i, tell what configurations cost. No Ray, no clocks.

Order matters: the caller asks index by index and tells results in index order (stream.py has the rule). A searcher's
only state is what it was asked and told, and the randomness of suggestion i is drawn from (seed, i). So it suggests the
same configurations after a crash and with any number of workers, and can be pickled or rebuilt at any moment.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lrstudy.search.parameter import Configuration
from lrstudy.search.space import Space
from lrstudy.settings import canonical_json

ProposedBy = Literal["cohort", "default", "random", "grid", "model"]
"""Where a suggestion comes from: the cohort, of it the point with every parameter at its default, or a searcher; one that
learns from results draws at random as long as it has no model, and where all that its model suggests is known."""

START_UP = 2
"""Results, of different configurations and not all failures, that a model needs to tell good from bad.

The cohort is the initial design, so with two points or more every suggestion after it is the model's. Without one, the
searcher draws initial points as random search does, until it has been told two results: with W (see stream.py) of 4 the
first 5. (HyperOpt's own default is 20 random points, Optuna's 10; in a study of 16 trials that is random search.)
"""

NUM_CANDIDATES = (24, 12, 6, 3, 1, 1, 1, 1)
"""Candidates of a TPE in each attempt: the number of HyperOpt and Optuna, then fewer. The best of 24 on a ladder is nearly
always the same value, so if a suggestion is known already, another is drawn, in the end straight from the density of the
good points."""

_MAX_DRAWS = 64
"""How many random draws may be known already before the rest of a finite space is listed."""


@dataclass(frozen=True)
class Result:
    """A result. `cost` is to be minimised; None if the trial diverged or failed."""

    configuration: Configuration
    cost: float | None


@dataclass(frozen=True)
class Point:
    """A configuration whose result was told: its codes (see Space.encode) and a finite cost, for a failure a penalty."""

    codes: dict[str, float]
    cost: float
    failed: bool


class Searcher(ABC):
    """Proposes configurations of one arm's space; every arm has a searcher of its own.

    A configuration that was asked, expected or told before is not suggested again, as its training would yield nothing
    new. When a finite space has no other, it is exhausted. `proposed_by` says where its last suggestion comes from.
    """

    proposes: ClassVar[ProposedBy] = "model"
    """Where its suggestions come from, unless they are drawn at random."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space = space
        self.seed = seed
        self.proposed_by = self.proposes
        self._num_asked = 0
        self._is_exhausted = False
        self._codes: dict[
            bytes, dict[str, float]
        ] = {}  # of all known configurations, in the order in which they became known
        self._costs: dict[bytes, float | None] = {}  # of those whose result was told

    def ask(self) -> Configuration | None:
        """The next configuration, complete (fixed values included, inactive parameters absent).

        Returns None once the space is exhausted, then and on every later call.
        """
        self.proposed_by = self.proposes
        configuration = None if self._is_exhausted else self._propose()
        if configuration is None:
            self._is_exhausted = True
            return None
        self.suggested(configuration)
        return configuration

    def suggested(self, configuration: Configuration) -> None:
        """Take note of a suggestion: its own, or one that a searcher like it made in an earlier run, in the same place.

        Raises ValueError if it is not in the space.
        """
        self._num_asked += 1
        self.expect(configuration)

    def expect(self, configuration: Configuration) -> None:
        """Announce a configuration that was not asked of this searcher but is tried, and whose result will be told.

        Like one that was asked, it is not suggested again. Raises ValueError if it is not in the space.
        """
        self._codes.setdefault(canonical_json(configuration), self.space.encode(configuration))

    def tell(self, result: Result) -> None:
        """Take the result of a configuration, be it asked of this searcher or another one of the space (a cohort's point).

        A failure has the cost None, which becomes a finite penalty. A second result of the same configuration replaces
        the first. Raises ValueError if the configuration is not in the space, or if the cost is infinite or NaN.
        """
        if result.cost is not None and not math.isfinite(result.cost):
            raise ValueError(f"cost: expected a finite number, or None for a failed trial; got {result.cost}.")
        self.expect(result.configuration)
        self._costs[canonical_json(result.configuration)] = result.cost

    @abstractmethod
    def _propose(self) -> Configuration | None:
        """A configuration that is not known yet; None if all are."""

    @property
    def _is_starting_up(self) -> bool:
        """Whether there is too little to fit a model to: few results, or only failures."""
        return len(self._costs) < START_UP or all(cost is None for cost in self._costs.values())

    def _is_known(self, configuration: Configuration) -> bool:
        return canonical_json(configuration) in self._codes

    def _told_points(self) -> list[Point]:
        """The points whose results were told, in the order in which they became known.

        A failure costs more than the worst success, by the difference between the worst and the best. The penalty is
        finite because a model that is given NaN or infinity fixates on the branch that fails (26-30 of 32 suggestions,
        against 3-6 with a penalty).
        """
        finite = [cost for cost in self._costs.values() if cost is not None] or [0.0]
        penalty = max(finite) + (max(finite) - min(finite) or max(abs(max(finite)), 1.0))
        known = [(codes, self._costs[key]) for key, codes in self._codes.items() if key in self._costs]
        return [Point(codes, penalty if cost is None else cost, cost is None) for codes, cost in known]

    def _pending(self) -> list[dict[str, float]]:
        """The codes of the configurations that were asked or expected and whose results are missing."""
        return [codes for key, codes in self._codes.items() if key not in self._costs]

    def _first_new(self, suggest: Callable[[int, int], Configuration]) -> Configuration | None:
        """The first suggestion of a TPE that is not known yet; if all are, a random one, as `_fresh` draws it.

        `suggest` is called with the number of the attempt, from 0, and how many candidates to draw.
        """
        for attempt, num_candidates in enumerate(NUM_CANDIDATES):
            configuration = suggest(attempt, num_candidates)
            if not self._is_known(configuration):
                return configuration
        return self._fresh()

    def _fresh(self) -> Configuration | None:
        """A random configuration that is not known yet; None if all are.

        Every parameter is drawn uniformly from its list or range. The draw depends only on the seed, the number of
        configurations asked and the known ones, and is the same in all searchers.
        """
        self.proposed_by = "random"
        rng = np.random.default_rng(self._entropy())
        for _ in range(_MAX_DRAWS):
            point = {p.name: p.at(rng.random()) for p in self.space.searched}
            if not self._is_known(configuration := self.space.complete(point)):
                return configuration
        if math.isinf(self.space.size):
            return configuration  # a range with few distinct values: a repeat does no harm
        rest = [configuration for configuration in self.space.grid() if not self._is_known(configuration)]
        return rest[rng.integers(len(rest))] if rest else None

    def _entropy(self, attempt: int = 0) -> list[int]:
        """What the random numbers of the next suggestion are seeded with."""
        return [self.seed, self._num_asked, attempt]
