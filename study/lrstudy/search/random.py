"""Random search: every parameter uniformly from its list or range (Bergstra and Bengio, JMLR 2012).

Without replacement: a configuration known already is drawn again, and once a finite space has no other
the search is finished. Independent draws would repeat points of a ladder, and a repeat trains nothing.
"""

from __future__ import annotations

from lrstudy.search.base import Searcher
from lrstudy.search.parameter import Configuration


class RandomSearcher(Searcher):
    """Draws configurations at random; results change nothing but what is known."""

    def _propose(self) -> Configuration | None:
        return self._fresh()
