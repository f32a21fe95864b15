"""Grid search: every configuration of a finite space once, the first parameter varying slowest."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from lrstudy.search.base import Searcher
from lrstudy.search.parameter import Configuration
from lrstudy.search.space import Space


class GridSearcher(Searcher):
    """Suggests the points of the grid in order, leaving out those that were expected or told before their turn.

    Raises InputError if a range of the space is continuous.
    """

    proposes = "grid"

    def __init__(self, space: Space, seed: int) -> None:
        self._points: Iterator[Configuration] | None = space.grid()
        self._num_passed = 0
        super().__init__(space, seed)

    def _propose(self) -> Configuration | None:
        # A point once passed stays known. Starting over each time took half of the time of a study of 3,000 trials.
        if self._points is None:
            self._points = islice(self.space.grid(), self._num_passed, None)
        for point in self._points:
            self._num_passed += 1
            if not self._is_known(point):
                return point
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_points": None}
