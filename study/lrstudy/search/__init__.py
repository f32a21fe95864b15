"""Searchers by name. The library of a searcher is imported when one is made, not before."""

from __future__ import annotations

from lrstudy.errors import InputError, unknown
from lrstudy.search.base import Result, Searcher
from lrstudy.search.space import Space

__all__ = ["METHODS", "Result", "Searcher", "make"]

INDEPENDENT = ("random", "grid")
"""Searchers whose suggestions do not depend on results, so that they need not wait for any."""
METHODS: tuple[str, ...] = ("random", "grid", "hyperopt", "smac", "optuna")


def make(method: str, space: Space, seed: int) -> Searcher:
    """The searcher named `method` over `space`; all its randomness is drawn from `seed` >= 0.

    Raises InputError for an unknown method, or for a space that the method cannot search.
    """
    if method == "random":
        from lrstudy.search.random import RandomSearcher

        return RandomSearcher(space, seed)
    if method == "grid":
        from lrstudy.search.grid import GridSearcher

        return GridSearcher(space, seed)
    if method == "hyperopt":
        from lrstudy.search.hyperopt import HyperOptSearcher

        return HyperOptSearcher(space, seed)
    if method == "smac":
        from lrstudy.search.smac import SmacSearcher

        return SmacSearcher(space, seed)
    if method == "optuna":
        from lrstudy.search.optuna import OptunaSearcher

        return OptunaSearcher(space, seed)
    raise InputError(unknown("search.method", "method", method, METHODS))
