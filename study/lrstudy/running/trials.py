"""Trials as the driver knows them, and the configurations that they try."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lrstudy.memo.records import Record
from lrstudy.planning.plan import Phase
from lrstudy.running.searches import Search
from lrstudy.search.base import ProposedBy
from lrstudy.search.parameter import Configuration
from lrstudy.trial.spec import TrialSpec

Status = Literal["waiting", "running", "completed", "diverged", "failed", "interrupted"]


@dataclass(frozen=True)
class Candidate:
    """A configuration to be tried under several seeds: suggested to an arm by a searcher, or chosen to be confirmed.

    `name` is what the ids of its trials begin with; `index` counts the suggestions of its search, and `repeat` the
    searches of the arm under its searcher, from 0. `rank` counts the configurations of a search to be confirmed from 1,
    the best; None for a suggestion.
    """

    name: str
    arm: str
    method: str
    phase: Phase
    index: int
    configuration: Configuration
    seeds: Sequence[int]
    repeat: int = 0
    proposed_by: ProposedBy = "model"
    rank: int | None = None

    @property
    def search(self) -> Search:
        """The search that it belongs to."""
        return self.arm, self.method, self.repeat


@dataclass(eq=False)
class Trial:
    """One trial as the driver knows it. `chain` holds the names of its states; `records` grow as epochs arrive.

    `rank` is that of the configuration which it confirms, from 1; None for a tuning trial.
    The chain of a reactive policy is the one that it follows if nothing triggers any more; that of a trial which trains
    until a target is as long as its budget before it is reached.
    """

    trial_id: str
    arm: str
    method: str
    phase: Phase
    index: int
    configuration: Configuration
    seed: int
    spec: TrialSpec
    chain: list[str]
    status: Status = "waiting"
    error: str = ""
    records: list[Record] = field(default_factory=list)
    test: Mapping[str, Any] | None = None
    started_at: float | None = None
    ended_at: float | None = None
    repeat: int = 0
    proposed_by: ProposedBy = "model"
    rank: int | None = None
    _replanned_after: int = 0

    @property
    def search(self) -> Search:
        """The search that it belongs to, or whose winner it confirms."""
        return self.arm, self.method, self.repeat

    def walk(self, find: Callable[[str], Record | None]) -> list[Record]:
        """The records along its chain, up to a missing one or its end; the chain is replanned on the way."""
        walked: list[Record] = []
        while len(walked) < len(self.chain) and (record := find(self.chain[len(walked)])) is not None:
            walked.append(record)
            if record.diverged:
                break
            if len(walked) > self._replanned_after and self.spec.depends_on_results:
                self.replan(walked)
        return walked

    def replan(self, records: Sequence[Record]) -> None:
        """Let the chain go on, or end, as the `records` of the first epochs decide."""
        self.chain = self.spec.replanned(self.chain, [record.metrics for record in records])
        self._replanned_after = len(records)

    def lacking(self, num_walked: int, known: Callable[[str], Record | None]) -> list[str]:
        """The names of its states, and of the features that they are trained on, that are still to be made, in order.

        Args:
            num_walked: How many epochs of its chain have records.
            known: The record of a name, if it is known.
        """
        names = self.chain[num_walked:]
        features = self.spec.features(self.chain)
        for start, end in reversed(self.spec.feature_stretches):
            if num_walked < end and known(features[start]) is None:
                names.insert(max(start - num_walked, 0), features[start])
        return names

    @property
    def names(self) -> list[str]:
        """The names of all its states, and of the features that they are trained on."""
        return [*self.chain, *self.spec.features(self.chain).values()]

    def features(self, known: Callable[[str], Record | None]) -> dict[int, Record]:
        """The known records of the features that its recorded epochs were trained on, by the epoch with which that begins."""
        named = self.spec.features(self.chain).items()
        found = {start: known(name) for start, name in named if start < len(self.records)}
        return {start: record for start, record in found.items() if record is not None}

    @property
    def recalled(self) -> list[bool]:
        """For each record, whether another trial trained it; what this one trained in an earlier run is not recalled."""
        return [self.is_recalled(record) for record in self.records]

    def is_recalled(self, record: Record) -> bool:
        """Whether another trial made what this record tells of."""
        own = (self.spec.origin["study"], self.trial_id)
        return (record.origin.get("study"), record.origin.get("trial")) != own

    @property
    def selected(self) -> int | None:
        """The epoch, from 0, that the trial is judged by; None if it did not complete."""
        return self.spec.selected(self.records) if self.status == "completed" else None

    @property
    def value(self) -> float | None:
        """The study's metric on the validation part after the selected epoch; None if it did not complete or has none."""
        return None if self.selected is None else self.spec.selection.value(self.records[self.selected])
