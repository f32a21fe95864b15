"""The protocol of a study: which trials there are. Tune (cohort, then searcher), freeze, confirm with fresh seeds.

Everything is decided from the plan, the journal and the results of trials, in an order that does not depend on
which trial finishes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from lrstudy.lineage import chain
from lrstudy.memo.records import Record
from lrstudy.planning.plan import CONFIRM_SEED, Phase, Plan
from lrstudy.search import INDEPENDENT
from lrstudy.search.parameter import Configuration
from lrstudy.search.stream import Stream
from lrstudy.settings import Settings, canonical_json
from lrstudy.study_folder.journal import Journal
from lrstudy.trial.spec import TrialSpec

INDEPENDENT_WINDOW = 4
"""How many times further ahead of results a searcher may be that ignores them: more trials to choose the next one from."""

Status = Literal["waiting", "running", "completed", "diverged", "failed", "interrupted"]


@dataclass(frozen=True)
class Candidate:
    """A configuration to be tried under several seeds: suggested to an arm by a searcher, or chosen to be confirmed.

    `name` is what the ids of its trials begin with; `index` counts the suggestions of its searcher. `rank` counts the
    arm's configurations to be confirmed from 1, the best; None for a suggestion.
    """

    name: str
    arm: str
    method: str
    phase: Phase
    index: int
    configuration: Configuration
    seeds: Sequence[int]
    rank: int | None = None


@dataclass(eq=False)
class Trial:
    """One trial as the driver knows it. `chain` holds the names of its states; `records` grow as epochs arrive.

    `rank` is that of the configuration which it confirms, from 1; None for a tuning trial.
    The chain of a reactive policy is the one that it follows if nothing triggers any more.
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
    rank: int | None = None
    _replanned_after: int = 0

    def walk(self, find: Callable[[str], Record | None]) -> list[Record]:
        """The records along its chain, up to a missing one or one that diverged; the chain is replanned on the way."""
        walked: list[Record] = []
        while len(walked) < len(self.chain) and (record := find(self.chain[len(walked)])) is not None:
            walked.append(record)
            if record.diverged:
                break
            if len(walked) > self._replanned_after and self.spec.is_reactive:
                self.replan(walked)
        return walked

    def replan(self, records: Sequence[Record]) -> None:
        """Let the chain go on as its policy decides after the `records` of the first epochs."""
        self.chain = self.spec.replanned(self.chain, [record.metrics for record in records])
        self._replanned_after = len(records)

    @property
    def recalled(self) -> list[bool]:
        """For each record, whether another trial trained it; what this one trained in an earlier run is not recalled."""
        own = (self.spec.origin["study"], self.trial_id)
        return [(record.origin.get("study"), record.origin.get("trial")) != own for record in self.records]

    @property
    def selected(self) -> int | None:
        """The epoch, from 0, that the trial is judged by; None if it did not complete."""
        return self.spec.selected(self.records) if self.status == "completed" else None

    @property
    def value(self) -> float | None:
        """The study's metric on the validation part after the selected epoch; None if it did not complete or has none."""
        return None if self.selected is None else self.spec.selection.value(self.records[self.selected])


class StudyProtocol:
    """Makes the trials of a study, as far as results allow. `trials` holds all that were made, by id."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.plan, self.journal = plan, journal
        self.trials: dict[str, Trial] = {}
        self.frozen: dict[str, list[Configuration]] | None = None
        self._told = {(t["arm"], t["method"], t["index"]): t["cost"] for t in journal.of_kind("told")}
        self._suggested = {(s["arm"], s["method"], s["index"]) for s in journal.of_kind("suggest")}
        self._root_name = cache(lambda seed: plan.root(seed).name())  # naming it takes a seventh of planning a trial
        self._streams = {(arm, method): self._stream(arm, method) for arm in plan.arms for method in plan.methods}

    def suggest(self) -> list[Trial]:
        """The trials that may be made now: every stream is asked in turn for all that it may suggest."""
        made: list[Trial] = []
        while ready := [key for key, stream in self._streams.items() if stream.can_ask]:
            for key in ready:
                if (candidate := self._ask(*key)) is not None:
                    self._note_suggestion(candidate)
                    made += self._keep(self.trials_of(candidate)[0])
        return made

    def foresee(self, arm: str) -> list[Candidate]:
        """The candidates of an arm that no result to come can change: searcher by searcher, then those to be confirmed.

        For a forecast: searchers that learn from results are not asked, and nothing is written. What an earlier run chose
        to confirm is taken to be chosen again; its index is -1, as the journal does not keep it.
        """
        known: list[Candidate] = []
        for method in self.plan.methods:
            while self._streams[arm, method].is_next_known:
                if (candidate := self._ask(arm, method)) is not None:
                    known.append(candidate)
        chosen = self._frozen_before().get(arm, [])[: self.plan.study.confirm.top]
        return known + [self._to_confirm(arm, rank, -1, choice) for rank, choice in enumerate(chosen, start=1)]

    def trials_of(self, candidate: Candidate) -> tuple[list[Trial], list[Settings]]:
        """The trials of a candidate, one per seed, and the settings of their epochs if nothing triggers.

        The settings are the same for all seeds, and computing them takes half the time of planning a trial.
        """
        specs = [self._spec(candidate, seed) for seed in candidate.seeds]
        settings = specs[0].untriggered()
        return [self._trial(candidate, spec, settings) for spec in specs], settings

    def tell(self, trial: Trial) -> None:
        """Take the result of a tuning trial; its searcher learns of it once all seeds of the configuration are over."""
        if trial.phase == "confirm":
            return
        study, key = self.plan.study, (trial.arm, trial.method, trial.index)
        group = [self.trials[f"{_tuning_name(*key)}-{seed}"] for seed in study.search.seeds]
        if any(t.status in ("waiting", "running", "interrupted") for t in group):
            return
        value = _mean([t.value for t in group])
        cost = None if value is None else 1.0 - value
        self._streams[key[:2]].result(trial.index, cost)
        if key not in self._told:
            self._told[key] = cost
            self.journal.write("told", arm=trial.arm, method=trial.method, index=trial.index, cost=cost)

    def give_up(self, trial: Trial) -> None:
        """End a trial of a retired arm that is not recorded: it will not be trained."""
        trial.status = "interrupted"
        self._streams[trial.arm, trial.method].result(trial.index, None)

    @property
    def is_tuned(self) -> bool:
        """Whether every configuration that will be suggested has its result."""
        return all(stream.is_complete for stream in self._streams.values())

    def freeze(self) -> list[Trial]:
        """Choose each arm's best configurations and make their confirm trials: of all arms with one seed, then the next."""
        chosen = {arm: self._best(arm)[: self.plan.study.confirm.top] for arm in self.plan.arms}
        self.frozen = {arm: [configuration for _, configuration in best] for arm, best in chosen.items()}
        if canonical_json(self._frozen_before()) != canonical_json(self.frozen):
            has_read_test = any(line["test"] for line in self.journal.of_kind("trial"))
            self.journal.write("frozen", arms=self.frozen, deviates=has_read_test)
        of_candidates = [
            self.trials_of(self._to_confirm(arm, rank, index, configuration))[0]
            for arm, best in chosen.items()
            for rank, (index, configuration) in enumerate(best, start=1)
        ]
        return self._keep(trial for with_seed in zip(*of_candidates, strict=True) for trial in with_seed)

    @property
    def num_planned(self) -> int:
        """How many trials the whole study has, as far as is known: a small space may be used up early."""
        search = self.plan.study.search
        missing = sum(
            self.plan.num_suggestions(arm) - len(stream.asked)
            for (arm, _), stream in self._streams.items()
            if stream.is_exhausted and arm not in self.plan.retired
        )
        return self.plan.num_trials - missing * len(search.seeds)

    def _stream(self, arm: str, method: str) -> Stream:
        plan = self.plan
        remembered = {
            line["index"]: line["configuration"]
            for line in self.journal.of_kind("suggest")
            if (line["arm"], line["method"]) == (arm, method)
        }
        stream = Stream(
            method, plan.arms[arm].space, plan.searcher_seed(arm, method), plan.cohort.get(arm, ()),
            len(remembered) if arm in plan.retired else max(plan.study.search.trials, len(remembered)),
            plan.outstanding * (INDEPENDENT_WINDOW if method in INDEPENDENT else 1), remembered,
        )  # fmt: skip
        for (of_arm, of_method, index), cost in self._told.items():
            if (of_arm, of_method) == (arm, method):
                stream.result(index, cost)
        return stream

    def _ask(self, arm: str, method: str) -> Candidate | None:
        """The next suggestion of a stream; None if its space is exhausted."""
        stream = self._streams[arm, method]
        configuration = stream.ask()
        if configuration is None:
            return None
        index = len(stream.asked) - 1
        phase: Phase = "cohort" if index < self.plan.cohort_size else "tune"
        name, seeds = _tuning_name(arm, method, index), self.plan.study.search.seeds
        return Candidate(name, arm, method, phase, index, configuration, seeds)

    def _to_confirm(self, arm: str, rank: int, index: int, configuration: Configuration) -> Candidate:
        seeds = range(CONFIRM_SEED, CONFIRM_SEED + self.plan.study.confirm.seeds)
        name, method = f"{arm}-confirm-{rank}", self.plan.methods[0]
        return Candidate(name, arm, method, "confirm", index, configuration, seeds, rank)

    def _spec(self, candidate: Candidate, seed: int) -> TrialSpec:
        trial_id, arm = f"{candidate.name}-{seed}", self.plan.arms[candidate.arm]
        origin = {"study": self.journal.study_id, "run": self.journal.run}
        return self.plan.spec(trial_id, arm, candidate.configuration, seed, candidate.phase == "confirm", origin)

    def _trial(self, candidate: Candidate, spec: TrialSpec, settings: Iterable[Settings]) -> Trial:
        """The trial with this specification, whose epochs have these settings if nothing triggers."""
        of, seed = candidate, spec.root.seed
        names = list(chain(self._root_name(seed), settings))
        return Trial(
            spec.trial_id, of.arm, of.method, of.phase, of.index, of.configuration, seed, spec, names, rank=of.rank
        )  # fmt: skip

    def _note_suggestion(self, candidate: Candidate) -> None:
        """Write a suggestion to the journal, once."""
        key = (candidate.arm, candidate.method, candidate.index)
        if key not in self._suggested:
            self._suggested.add(key)
            arm, method, index = key
            self.journal.write("suggest", arm=arm, method=method, index=index, configuration=candidate.configuration)

    def _keep(self, trials: Iterable[Trial]) -> list[Trial]:
        """Add trials to those of the study; returns them."""
        made = list(trials)
        self.trials.update((trial.trial_id, trial) for trial in made)
        return made

    def _frozen_before(self) -> Mapping[str, list[Configuration]]:
        """The configurations that were frozen last, by arm; none if nothing was."""
        frozen: Mapping[str, list[Configuration]] = {}
        for line in self.journal.of_kind("frozen"):
            frozen = line["arms"]
        return frozen

    def _best(self, arm: str) -> list[tuple[int, Configuration]]:
        """The arm's configurations under the first searcher, best mean over seeds first, each once, with their index."""
        asked, means = self._streams[arm, self.plan.methods[0]].asked, self._means(arm)
        worst_first = sorted(means, key=lambda index: (means[index], -index))
        last = {canonical_json(asked[index]): index for index in worst_first}  # of a repeat, the best
        return [(index, asked[index]) for index in reversed(last.values())]

    def _means(self, arm: str) -> dict[int, float]:
        """By index, the mean over seeds of the arm's tuning trials under the first searcher, where all have a value."""
        method = self.plan.methods[0]
        values: dict[int, list[float | None]] = {}
        for trial in self.trials.values():
            if (trial.arm, trial.method) == (arm, method) and trial.phase != "confirm":
                values.setdefault(trial.index, []).append(trial.value)
        return {index: mean for index, of_seeds in values.items() if (mean := _mean(of_seeds)) is not None}


def _tuning_name(arm: str, method: str, index: int) -> str:
    return f"{arm}-{method}-{index}"


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if a value is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
