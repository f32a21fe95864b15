"""Random search: every parameter uniformly from its list or range (Bergstra and Bengio, JMLR 2012).

The search is without replacement: if a configuration is known already, another one is drawn, and once a finite space
has no other it is exhausted. Independent draws would repeat points of a ladder, and a repeat trains nothing.
"""

from __future__ import annotations

from lrstudy.search.base import Searcher
from lrstudy.search.parameter import Configuration


class RandomSearcher(Searcher):
    """Draws configurations at random. Results matter only in that their configurations are not drawn again."""

    def _propose(self) -> Configuration | None:
        return self._fresh()
