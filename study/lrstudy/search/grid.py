"""Grid search: every configuration of a finite space once, the first parameter varying slowest."""

from __future__ import annotations

from lrstudy.search.base import Searcher
from lrstudy.space import Configuration, Space


class GridSearcher(Searcher):
    """Asks the grid in order, without the points told from elsewhere before their turn.

    Raises InputError if a range of the space is continuous.
    """

    def __init__(self, space: Space, seed: int) -> None:
        space.grid()
        super().__init__(space, seed)

    def _propose(self) -> Configuration | None:
        return next((point for point in self.space.grid() if not self._is_known(point)), None)
