"""A study's searches: how they are named in the ids of trials, and in lines of the journal.

An arm has a search under every searcher, or several with seeds of their own. The first one is named as in versions that
had no others, so that the studies of those are recalled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrstudy.search.base import ProposedBy

Search = tuple[str, str, int]
"""A search: its arm, its searcher, and which of their searches it is, from 0."""

_EARLIER_START_UP = 4
"""Results from which on a model was used by versions that did not write where a suggestion came from."""


def tuning_name(search: Search, index: int) -> str:
    """What the ids of the trials of a suggestion begin with: ``clr-hyperopt-3``, or ``clr-hyperopt.1-3``."""
    arm, method, repeat = search
    return f"{arm}-{numbered(method, repeat)}-{index}"


def numbered(name: str, repeat: int) -> str:
    """``hyperopt`` of an arm's first search, ``hyperopt.1`` of the next one."""
    return f"{name}.{repeat}" if repeat else name


def search_of(line: Mapping[str, Any]) -> Search:
    """The search that a line of the journal is about."""
    return line["arm"], line["method"], line.get("repeat", 0)


def place(search: Search, index: int) -> dict[str, Any]:
    """The keys of a line of the journal that is about a suggestion."""
    arm, method, repeat = search
    return {"arm": arm, "method": method, "index": index, **unless_first(repeat)}


def unless_first(repeat: int) -> dict[str, int]:
    """The key of a line of the journal that says which of an arm's searches it is about; of the first it says nothing."""
    return {"repeat": repeat} if repeat else {}


def proposed_by(line: Mapping[str, Any], cohort: int, outstanding: int) -> ProposedBy:
    """Where the suggestion of a line of the journal came from.

    Earlier versions did not write it: the first `cohort` were the cohort's, and of the others suggestion i was asked when
    the results 0 ... i - `outstanding` were told.
    """
    if "proposed_by" in line:
        return line["proposed_by"]  # type: ignore[no-any-return]
    if line["index"] < cohort:
        return "cohort"
    if line["method"] in ("grid", "random"):
        return line["method"]  # type: ignore[no-any-return]
    return "model" if line["index"] - outstanding + 1 >= _EARLIER_START_UP else "random"
