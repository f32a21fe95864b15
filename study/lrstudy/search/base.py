"""What a searcher is: ask for configuration i, tell what configurations cost. No Ray, no clocks.

Order matters: the caller asks index by index and tells results in index order (suggestion i is asked
when exactly the results 0 ... i-W are told). A searcher keeps no state but what it was asked and told,
and draws the randomness of suggestion i from (seed, i): so it suggests the same configurations after a
crash and on any number of workers, and can be pickled or rebuilt at any moment.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from lrstudy.search.parameter import Configuration
from lrstudy.search.space import Space
from lrstudy.settings import canonical_json

START_UP = 4
"""Results told before a model-based searcher uses its model. Until then it asks what random search would.

A cohort's points count, so with the default cohort of half the trials a model chooses from its first
suggestion on. (HyperOpt's own default is 20: with 16 trials that is random search.)
"""

_DRAWS = 64  # random draws that may all be known already before the rest of a finite space is listed


@dataclass(frozen=True)
class Told:
    """A result: `cost` is to be minimised; it is None when the trial diverged or failed."""

    configuration: Configuration
    cost: float | None


@dataclass(frozen=True)
class Point:
    """A configuration that was told: its codes (see Space.encode) and a finite cost, if failed a penalty."""

    codes: dict[str, float]
    cost: float
    failed: bool


class Searcher(ABC):
    """Proposes configurations of one arm's space. One instance per arm; never shared.

    No configuration is suggested that was asked, expected or told before: training it again would tell
    nothing new. When a finite space has no other, the searcher is finished.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self.space = space
        self.seed = seed
        self._num_asked = 0
        self._exhausted = False
        self._codes: dict[bytes, dict[str, float]] = {}  # of every known configuration, in order
        self._costs: dict[bytes, float | None] = {}  # of those told

    def ask(self) -> Configuration | None:
        """The next configuration, complete (fixed values included, inactive parameters absent).

        Returns None when the space is exhausted; then every later call returns None too.
        """
        configuration = None if self._exhausted else self._propose()
        if configuration is None:
            self._exhausted = True
            return None
        self._num_asked += 1
        self.expect(configuration)
        return configuration

    def expect(self, configuration: Configuration) -> None:
        """Take a configuration that is tried though it was not asked here, and whose result will be told.

        Like one asked, it is not suggested again. Raises ValueError if it is not one of the space.
        """
        self._codes.setdefault(canonical_json(configuration), self.space.encode(configuration))

    def tell(self, told: Told) -> None:
        """Take a result, of a configuration asked here or of any other one of the space (a cohort's point).

        Failures are told with cost None; they become a finite penalty. A configuration told again
        replaces its earlier result. Raises ValueError if the configuration is not one of the space, or
        if the cost is infinite or NaN.
        """
        if told.cost is not None and not math.isfinite(told.cost):
            raise ValueError(f"cost: expected a finite number, or None for a failed trial; got {told.cost}.")
        self.expect(told.configuration)
        self._costs[canonical_json(told.configuration)] = told.cost

    @abstractmethod
    def _propose(self) -> Configuration | None:
        """A configuration that is not known yet, or None if the space has no other."""

    @property
    def _is_starting_up(self) -> bool:
        """Whether there is too little to model: few results, or nothing but failures."""
        return len(self._costs) < START_UP or all(cost is None for cost in self._costs.values())

    def _is_known(self, configuration: Configuration) -> bool:
        return canonical_json(configuration) in self._codes

    def _told(self) -> list[Point]:
        """The points told so far, in the order in which they became known.

        A failure costs as much more than the worst success as that costs more than the best: finite,
        because a model that meets NaN or infinity fixates on the failing branch (26-30 of 32 picks
        against 3-6 with a penalty).
        """
        finite = [cost for cost in self._costs.values() if cost is not None] or [0.0]
        penalty = max(finite) + (max(finite) - min(finite) or max(abs(max(finite)), 1.0))
        known = [(codes, self._costs[key]) for key, codes in self._codes.items() if key in self._costs]
        return [Point(codes, penalty if cost is None else cost, cost is None) for codes, cost in known]

    def _pending(self) -> list[dict[str, float]]:
        """The codes of the configurations asked or expected and not yet told."""
        return [codes for key, codes in self._codes.items() if key not in self._costs]

    def _fresh(self) -> Configuration | None:
        """A random configuration that is not known yet; None if the space has no other.

        Every parameter is drawn uniformly from its list or range. The draw depends on the seed, the
        number of configurations asked and the known ones alone: all searchers share it.
        """
        rng = np.random.default_rng(self._entropy())
        for _ in range(_DRAWS):
            point = {p.name: p.at(rng.random()) for p in self.space.searched}
            if not self._is_known(configuration := self.space.complete(point)):
                return configuration
        if math.isinf(self.space.size):
            return configuration  # a range as good as finite: a repeat does no harm
        rest = [configuration for configuration in self.space.grid() if not self._is_known(configuration)]
        return rest[rng.integers(len(rest))] if rest else None

    def _entropy(self, attempt: int = 0) -> list[int]:
        """What the randomness of the next suggestion is drawn from."""
        return [self.seed, self._num_asked, attempt]
