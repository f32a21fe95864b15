"""What a forecast counts: epochs asked for, distinct and recorded, by arm, in all, and within one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Counts:
    """Epochs of an arm, or of the study. Those of trials that are not known yet count as distinct and to be trained.

    `by_model` counts the configurations that a model suggests, of all searches.
    """

    trials: int = 0
    known_trials: int = 0
    asked: int = 0
    known_asked: int = 0
    distinct: int = 0
    recorded: int = 0
    by_model: int = 0

    @property
    def to_train(self) -> int:
        """Epochs to be trained, at most."""
        return self.distinct - self.recorded

    def known(self, trials: int, epochs: int) -> None:
        """Add known trials of this many epochs; `new` adds those epochs that no other has."""
        self.trials += trials
        self.known_trials += trials
        self.asked += trials * epochs
        self.known_asked += trials * epochs

    def new(self, epochs: Sequence[int], num_recorded: int) -> None:
        """Add distinct epochs of a trial whose first `num_recorded` are recorded."""
        self.distinct += len(epochs)
        self.recorded += sum(epoch < num_recorded for epoch in epochs)

    def unknown(self, trials: int, epochs: int) -> None:
        """Add trials of this many epochs of which nothing else is known."""
        self.trials += trials
        self.asked += trials * epochs
        self.distinct += trials * epochs

    def to_json(self) -> dict[str, int]:
        """JSON values."""
        return {**asdict(self), "to_train": self.to_train}


@dataclass
class OneSearch:
    """Epochs of the first searcher's first search in every arm, confirm trials included.

    Another searcher, or another search, asks for the cohort once more: that it is recalled is no sharing between policies.
    `asked` and `distinct` are of the known trials, and `unknown` of those that depend on results.
    """

    asked: int = 0
    distinct: int = 0
    unknown: int = 0

    @property
    def known_sharing(self) -> float:
        """Epochs asked over distinct ones among the known trials; 1 if there are none."""
        return self.asked / self.distinct if self.distinct else 1.0

    @property
    def sharing(self) -> float:
        """The same over all trials, at least: what is not known yet counts as unshared."""
        total = self.distinct + self.unknown
        return (self.asked + self.unknown) / total if total else 1.0

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "known": self.known_sharing, "at_least": self.sharing}
