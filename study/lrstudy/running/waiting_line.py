"""The waiting line: the trials that are held back, which of them comes next, and which states running trials have claimed.

A trial lacks the names of its chain from the first one on that has no record, and before the epochs that train on features
the name of these. A name is a hash of all that came before it,
so the trials that lack the same name first form a group, and no trial of another group lacks any name that one of them does.
What happens to a name concerns one group, and only groups to which something has happened are looked at again. (To look at
all waiting trials took 4 ms for every trial handed out on 250 slots, 16 ms on 1,000, and as much for every report as long
as a slot was free and everything was held back.)
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from lrstudy.memo.records import Record
from lrstudy.running.trials import Trial


@dataclass(frozen=True)
class _Place:
    """A trial, its turn among equals, its chain when it came, and how many epochs it has records of; `lacks` is the next."""

    trial: Trial
    turn: int
    counted: Sequence[str]
    num_walked: int
    lacks: str | None


class _Candidate(NamedTuple):
    """The trial of a group that would be next, if no other group had a better one. The best candidate is the least."""

    less_wanted: int
    fewer_epochs: int
    turn: int
    group: str
    trial: Trial


class WaitingLine:
    """Trials wait from `add` to `remove`; of those that may be handed out, `next` is the one that should be.

    Args:
        known: The record of an epoch, if it is known. Whoever learns of a record calls `learned`.
    """

    def __init__(self, known: Callable[[str], Record | None]) -> None:
        self._known = known
        self._claims: dict[str, str] = {}
        self._places: dict[str, _Place] = {}
        self._turns, self._first_turns = count(), count(-1, -1)
        self._wanted: Counter[str] = Counter()
        self._sharing: dict[str, set[str]] = {}  # trials by the first name of their chains, which is never replanned
        self._groups: dict[str, dict[str, _Place]] = {}  # by the name that they lack first, then by trial
        self._changed: set[str] = set()  # groups to be looked at again
        self._recorded: list[tuple[int, str]] = []  # a heap of turns and trials
        self._best: dict[str, _Candidate] = {}  # by group
        self._candidates: list[_Candidate] = []  # a heap; those that are no group's best any more are void

    def __len__(self) -> int:
        return len(self._places)

    def add(self, trial: Trial, first: bool = False) -> None:
        """Let a trial wait. What it wants is counted by its present chain, which may be replanned later."""
        turn = next(self._first_turns if first else self._turns)
        self._wanted.update(trial.chain)
        self._sharing.setdefault(trial.chain[0], set()).add(trial.trial_id)
        self._note(trial.chain)
        self._stand(trial, turn, trial.chain)

    def remove(self, trial: Trial) -> None:
        """A trial does not wait any more."""
        place = self._places.pop(trial.trial_id)
        for name in place.counted:
            self._wanted[name] -= 1
            if not self._wanted[name]:
                del self._wanted[name]
        sharing = self._sharing[trial.chain[0]]
        sharing.remove(trial.trial_id)
        if not sharing:
            del self._sharing[trial.chain[0]]
        if place.lacks is not None:
            del self._groups[place.lacks][trial.trial_id]
        self._note(place.counted)

    def claim(self, trial: Trial, names: Iterable[str]) -> None:
        """A running trial will train these states, unless another one has claimed them."""
        for name in names:
            self._claims.setdefault(name, trial.trial_id)
        self._note(names)

    def release(self, trial: Trial, names: Sequence[str]) -> None:
        """A running trial gives up its claims on these states and features."""
        for name in names:
            if self._claims.get(name) == trial.trial_id:
                del self._claims[name]
        self._note(names)

    def learned(self, lineage: str) -> None:
        """There is a record of this epoch, so nobody need train it any more."""
        self._claims.pop(lineage, None)
        self._note((lineage,))

    def next(self) -> Trial | None:
        """The waiting trial to be handed out: one that is recorded, else one whose states most others wait for.

        Among equals the one with most epochs to train comes first, because it will end last, and then the one that has
        waited longest. Trials that lack a state which is claimed are held back. benchmarks/scheduling.py measures the
        rule on simulated slots.
        """
        self._look()
        while self._recorded:
            turn, trial_id = self._recorded[0]
            place = self._places.get(trial_id)
            if place is not None and place.turn == turn:
                return place.trial
            heapq.heappop(self._recorded)
        while self._candidates:
            candidate = self._candidates[0]
            if self._best.get(candidate.group) is candidate:
                return candidate.trial
            heapq.heappop(self._candidates)
        return None

    def branches(self, trial: Trial) -> frozenset[int]:
        """After how many of its epochs trials that wait part from this one, which does not wait."""
        others = (self._places[trial_id].trial for trial_id in self._sharing.get(trial.chain[0], ()))
        depths = {_common_depth(trial.chain, other.chain) for other in others}
        return frozenset(depths - {0, len(trial.chain)})

    def _note(self, names: Iterable[str]) -> None:
        """Something has happened to these names: to be wanted, claimed or recorded."""
        self._changed.update(name for name in names if name in self._groups)

    def _look(self) -> None:
        """Look at the groups to which something has happened."""
        while self._changed:
            name = self._changed.pop()
            is_recorded = self._known(name) is not None
            best = None if is_recorded else self._best_of(name)
            if best is None:
                self._best.pop(name, None)
            elif best != self._best.get(name):
                self._best[name] = best
                heapq.heappush(self._candidates, best)
            if is_recorded or not self._groups[name]:
                for place in self._groups.pop(name).values():
                    self._stand(place.trial, place.turn, place.counted)

    def _stand(self, trial: Trial, turn: int, counted: Sequence[str]) -> None:
        """Put a trial into its group, or among those that are recorded."""
        walked = trial.walk(self._known)
        ends = len(walked) == len(trial.chain) or (bool(walked) and walked[-1].diverged)
        lacks = None if ends else trial.lacking(len(walked), self._known)[0]
        place = _Place(trial, turn, counted, len(walked), lacks)
        self._places[trial.trial_id] = place
        if place.lacks is None:
            heapq.heappush(self._recorded, (turn, trial.trial_id))
        else:
            self._groups.setdefault(place.lacks, {})[trial.trial_id] = place
            self._changed.add(place.lacks)

    def _best_of(self, group: str) -> _Candidate | None:
        """The trial of a group that comes first; None if all are held back."""
        if group in self._claims:
            return None
        free = (self._candidate(place) for place in self._groups[group].values())
        return min((candidate for candidate in free if candidate is not None), default=None)

    def _candidate(self, place: _Place) -> _Candidate | None:
        missing = place.trial.lacking(place.num_walked, self._known)
        if any(name in self._claims for name in missing):
            return None
        wanted = sum(map(self._wanted.__getitem__, missing))
        num_epochs = len(place.trial.chain) - place.num_walked
        return _Candidate(-wanted, -num_epochs, place.turn, missing[0], place.trial)


def _common_depth(one: Sequence[str], other: Sequence[str]) -> int:
    """How many names two chains have in common, all before the first one that differs."""
    return bisect_left(range(min(len(one), len(other))), True, key=lambda depth: one[depth] != other[depth])
