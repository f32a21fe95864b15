"""What a trial is: a policy with its values on a root, and so the names of all its states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lrstudy.lineage import Root, chain, extend, features_name
from lrstudy.memo.records import Record
from lrstudy.policies.base import Policy
from lrstudy.policies.run import History, Run
from lrstudy.policies.stages import STAGES, build_policy, feature_stretches
from lrstudy.settings import Settings
from lrstudy.trial.selection import FINAL, Selection
from lrstudy.trial.until import Until


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One configuration of one arm with one seed; plain values, picklable.

    `run` holds the budget, the size of the training set, sections and recipe. `device_share` is the number of devices (CPU
    cores on a CPU) that the trial occupies. `read_test`: whether the state of the epoch that `selection` selects is
    evaluated on the test part at the end. `store_at`: after how many epochs other trials wait for the state. `until`: what
    ends the trial before its budget does.
    """

    trial_id: str
    policy: str
    parameters: Mapping[str, Any]
    run: Run
    root: Root
    device_share: float
    read_test: bool = False
    store_at: frozenset[int] = frozenset()
    origin: Mapping[str, Any] = field(default_factory=dict)
    selection: Selection = FINAL
    until: Until | None = None

    def build_policy(self) -> Policy:
        """The policy with its parameters."""
        return build_policy(self.policy, self.parameters)

    @cached_property
    def is_reactive(self) -> bool:
        """Whether the policy looks at the metrics of earlier epochs."""
        return self.build_policy().reactive

    @property
    def depends_on_results(self) -> bool:
        """Whether the metrics of an epoch may change what comes after it."""
        return self.is_reactive or self.until is not None

    def ends_with(self, metrics: Mapping[str, float]) -> bool:
        """Whether an epoch with these metrics is the trial's last, whatever is left of its budget."""
        return self.until is not None and self.until.is_reached(metrics)

    @cached_property
    def cycle_ends(self) -> tuple[int, ...]:
        """After how many epochs each cycle of the policy ends within the budget."""
        return tuple(self.build_policy().cycle_ends(self.run))

    @cached_property
    def stage_starts(self) -> frozenset[int]:
        """The first epoch of every stage: the state before it is worth storing, as other second stages may follow."""
        return frozenset(self.build_policy().stage_starts(self.run))

    @cached_property
    def feature_stretches(self) -> tuple[tuple[int, int], ...]:
        """The epochs that train on features, as (first, one past the last)."""
        return tuple(feature_stretches(self.build_policy(), self.run)) if self.policy == STAGES else ()

    def features(self, names: Sequence[str]) -> dict[int, str]:
        """The names of the features that are trained on, by the epoch with which that begins; `names` is the chain so far."""
        starts = (start for start, _ in self.feature_stretches if start <= len(names))
        return {
            start: features_name(self.root, names[start - 1] if start else self.root.name(), start) for start in starts
        }

    def selected(self, records: Sequence[Record]) -> int:
        """The epoch, from 0, that is selected of those with these records, at least one: so far, if there will be more."""
        ends = self.cycle_ends if self.selection.select == "last_cycle" else ()
        return self.selection.epoch(records, ends)

    def untriggered(self, begin: int = 0, history: History = ()) -> list[Settings]:
        """The settings of the epochs from `begin` on, given the metrics of the first ones.

        Epochs without metrics trigger nothing.
        """
        policy = self.build_policy()
        return [policy.settings(epoch, history, self.run) for epoch in range(begin, self.run.num_epochs)]

    def chain(self, names: Sequence[str] = (), history: History = ()) -> list[str]:
        """name(1) ... name(E): the known first `names`, then those that follow from them.

        `history` has the metrics of the first epochs; the other epochs trigger nothing in a reactive policy.
        """
        return [*names, *chain(names[-1] if names else self.root.name(), self.untriggered(len(names), history))]

    def replanned(self, names: list[str], history: History) -> list[str]:
        """The chain as it goes on after the epochs of `history`: `names` itself if these change nothing.

        It ends with an epoch that reaches the trial's target; else it is as the policy plans it.
        """
        reached = len(history)
        if self.ends_with(history[-1]):
            return names if len(names) == reached else names[:reached]
        if not self.is_reactive or reached == self.run.num_epochs:
            return names
        following = extend(names[reached - 1], self.build_policy().settings(reached, history, self.run))
        return names if following == names[reached] else self.chain([*names[:reached], following], history)
