"""The protocol of a study: which trials there are. Tune (cohort, then searcher), freeze, confirm with fresh seeds.

Each arm has a search of its own under every searcher, and so many of them as `search.repeats` says.

Everything is decided from the plan, the journal and the results of trials, in an order that does not depend on
which trial finishes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product
from typing import Any

from lrstudy.lineage import chain
from lrstudy.planning.plan import CONFIRM_SEED, Phase, Plan
from lrstudy.running import history
from lrstudy.running.searches import Search, numbered, place, proposed_by, search_of, tuning_name
from lrstudy.running.trials import Candidate, Trial
from lrstudy.search import INDEPENDENT
from lrstudy.search.base import ProposedBy
from lrstudy.search.parameter import Configuration
from lrstudy.search.stream import Stream, Suggestion
from lrstudy.settings import Settings, canonical_json
from lrstudy.study_folder.journal import Journal
from lrstudy.trial.spec import TrialSpec

INDEPENDENT_WINDOW = 4
"""How many times further ahead of results a searcher may be that ignores them: more trials to choose the next one from."""


class StudyProtocol:
    """Makes the trials of a study, as far as results allow. `trials` holds all that were made, by id.

    `is_decided` is asked once the confirm trials of a look have ended, unless it is the last: whether the tables decide
    all comparisons, so that no further seeds are needed. Whoever runs the study may set it; by default there are all looks.
    """

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.plan, self.journal = plan, journal
        self.trials: dict[str, Trial] = {}
        self.frozen: list[dict[str, list[Configuration]]] | None = None  # by the number of the search, then by arm
        self.is_decided: Callable[[], bool] = lambda: False
        self._chosen: dict[tuple[str, int], list[tuple[int, Configuration]]] = {}
        self._num_looks = 1 + self._num_undecided()
        self._told = {(search_of(told), told["index"]): told["cost"] for told in journal.of_kind("told")}
        self._suggested = {(search_of(line), line["index"]) for line in journal.of_kind("suggest")}
        self._root_name = cache(lambda seed: plan.root(seed).name())  # naming it takes a seventh of planning a trial
        self._streams = {search: self._stream(search) for search in product(plan.arms, plan.methods, plan.repeats)}

    def suggest(self) -> list[Trial]:
        """The trials that may be made now: every stream is asked in turn for all that it may suggest."""
        made: list[Trial] = []
        while ready := [key for key, stream in self._streams.items() if stream.can_ask]:
            for key in ready:
                if (candidate := self._ask(key)) is not None:
                    self._note_suggestion(candidate)
                    made += self._keep(self.trials_of(candidate)[0])
        return made

    def foresee(self, arm: str) -> list[Candidate]:
        """The candidates of an arm that no result to come can change: search by search, then those to be confirmed.

        For a forecast: searchers that learn from results are not asked, and nothing is written. What an earlier run chose
        to confirm is taken to be chosen again; its index is -1, as the journal does not keep it.
        """
        known: list[Candidate] = []
        for search, stream in self._streams.items():
            while search[0] == arm and stream.is_next_known:
                if (candidate := self._ask(search)) is not None:
                    known.append(candidate)
        confirm = self.plan.study.confirm
        is_decided = any(line["decided"] for line in self._looks())
        seeds = range(CONFIRM_SEED, CONFIRM_SEED + (self.num_seeds if is_decided else confirm.looks[-1]))
        for repeat, arms in zip(self.plan.repeats, history.frozen(self.journal), strict=False):
            chosen = arms.get(arm, [])[: confirm.top]
            known += [
                self._to_confirm(arm, repeat, rank, -1, choice, seeds) for rank, choice in enumerate(chosen, start=1)
            ]
        return known

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
        study, key = self.plan.study, (trial.search, trial.index)
        group = [self.trials[f"{tuning_name(*key)}-{seed}"] for seed in study.search.seeds]
        if any(t.status in ("waiting", "running", "interrupted") for t in group):
            return
        value = _mean([t.value for t in group])
        cost = None if value is None else 1.0 - value
        self._streams[trial.search].result(trial.index, cost)
        if key not in self._told:
            self._told[key] = cost
            self.journal.write("told", **place(*key), cost=cost)

    def give_up(self, trial: Trial) -> None:
        """End a trial of a retired arm that is not recorded: it will not be trained."""
        trial.status = "interrupted"
        self._streams[trial.search].result(trial.index, None)

    @property
    def is_tuned(self) -> bool:
        """Whether every configuration that will be suggested has its result."""
        return all(stream.is_complete for stream in self._streams.values())

    def freeze(self) -> list[Trial]:
        """Choose each search's best configurations and make their confirm trials: of all with one seed, then the next.

        Only searches of the first searcher are confirmed.
        """
        arms, top = self.plan.arms, self.plan.study.confirm.top
        self._chosen = {
            (arm, repeat): self._best(arm, repeat)[:top] for arm, repeat in product(arms, self.plan.repeats)
        }
        self.frozen = [
            {arm: [configuration for _, configuration in self._chosen[arm, repeat]] for arm in arms}
            for repeat in self.plan.repeats
        ]
        if history.note_freeze(self.journal, history.planned(self.plan, self.frozen)):
            self._num_looks = 1
        return self._confirm_trials(range(CONFIRM_SEED, CONFIRM_SEED + self.num_seeds))

    def next_look(self) -> list[Trial]:
        """The confirm trials of the next look; none if this one was the last or decides all comparisons.

        The answer is written to the journal, and obeyed when the study runs again.
        """
        looks, before = self.plan.study.confirm.looks, self.num_seeds
        if self._num_looks == len(looks) or not any(self._chosen.values()):
            return []
        noted = [line["decided"] for line in self._looks() if line["seeds"] == before]
        decided = noted[-1] if noted else self.is_decided()
        if not noted:
            self.journal.write("look", seeds=before, decided=decided)
        if decided:
            return []
        self._num_looks += 1
        return self._confirm_trials(range(CONFIRM_SEED + before, CONFIRM_SEED + self.num_seeds))

    @property
    def num_seeds(self) -> int:
        """How many fresh seeds every arm is confirmed with, as far as the looks have come."""
        return self.plan.study.confirm.looks[self._num_looks - 1]

    @property
    def num_planned(self) -> int:
        """How many trials the study has up to this look, as far as is known, without those of retired arms."""
        return sum(self.num_planned_of(arm) for arm in self.plan.arms.keys() - self.plan.retired)

    def num_planned_of(self, arm: str) -> int:
        """How many trials an arm has up to this look, as far as is known.

        A small space may be used up early, and an arm of which nothing completed is not confirmed.
        """
        search, confirm, suggestions = self.plan.study.search, self.plan.study.confirm, self.plan.num_suggestions(arm)
        streams = [stream for key, stream in self._streams.items() if key[0] == arm]
        tuned = sum(len(stream.asked) if stream.is_exhausted else suggestions for stream in streams)
        if self.frozen is None:
            confirmed = min(confirm.top, suggestions) * len(self.plan.repeats)
        else:
            confirmed = sum(len(arms[arm]) for arms in self.frozen)
        return tuned * len(search.seeds) + confirmed * self.num_seeds

    def _stream(self, search: Search) -> Stream:
        plan, (arm, method, _) = self.plan, search
        remembered = {
            line["index"]: Suggestion(line["configuration"], proposed_by(line, plan.cohort_size, plan.outstanding))
            for line in self.journal.of_kind("suggest")
            if search_of(line) == search
        }
        stream = Stream(
            method, plan.arms[arm].space, plan.searcher_seed(*search), plan.cohort.get(arm, ()),
            len(remembered) if arm in plan.retired else max(plan.study.search.trials, len(remembered)),
            plan.outstanding * (INDEPENDENT_WINDOW if method in INDEPENDENT else 1), remembered,
        )  # fmt: skip
        for (of_search, index), cost in self._told.items():
            if of_search == search:
                stream.result(index, cost)
        return stream

    def _ask(self, search: Search) -> Candidate | None:
        """The next suggestion of a search; None if its space is exhausted."""
        stream, (arm, method, repeat) = self._streams[search], search
        made = stream.ask()
        if made is None:
            return None
        index = len(stream.asked) - 1
        phase: Phase = "cohort" if index < self.plan.cohort_size else "tune"
        name, seeds = tuning_name(search, index), self.plan.study.search.seeds
        return Candidate(name, arm, method, phase, index, made.configuration, seeds, repeat, made.proposed_by)

    def _confirm_trials(self, seeds: Sequence[int]) -> list[Trial]:
        """The confirm trials of what was chosen: of all searches with one seed, then the next."""
        of_candidates = [
            self.trials_of(self._to_confirm(arm, repeat, rank, index, configuration, seeds))[0]
            for (arm, repeat), best in self._chosen.items()
            for rank, (index, configuration) in enumerate(best, start=1)
        ]
        return self._keep(trial for with_seed in zip(*of_candidates, strict=True) for trial in with_seed)

    def _looks(self) -> list[dict[str, Any]]:
        """The looks since the last freeze that changed anything."""
        lines = [line for line in self.journal.lines if line["kind"] in ("frozen", "look")]
        last = max((k for k, line in enumerate(lines) if line["kind"] == "frozen"), default=-1)
        return lines[last + 1 :]

    def _num_undecided(self) -> int:
        """How many looks have been gone beyond already."""
        undecided = {line["seeds"] for line in self._looks() if not line["decided"]}
        return sum(seeds in undecided for seeds in self.plan.study.confirm.looks[:-1])

    def _to_confirm(
        self, arm: str, repeat: int, rank: int, index: int, configuration: Configuration, seeds: Sequence[int]
    ) -> Candidate:
        method = self.plan.methods[0]
        asked = self._streams[arm, method, repeat].asked
        origin: ProposedBy = asked[index].proposed_by if index >= 0 else "model"
        name = f"{arm}-{numbered('confirm', repeat)}-{rank}"
        return Candidate(name, arm, method, "confirm", index, configuration, seeds, repeat, origin, rank)

    def _spec(self, candidate: Candidate, seed: int) -> TrialSpec:
        trial_id, arm = f"{candidate.name}-{seed}", self.plan.arms[candidate.arm]
        origin = {"study": self.journal.study_id, "run": self.journal.run}
        return self.plan.spec(trial_id, arm, candidate.configuration, seed, candidate.phase == "confirm", origin)

    def _trial(self, candidate: Candidate, spec: TrialSpec, settings: Iterable[Settings]) -> Trial:
        """The trial with this specification, whose epochs have these settings if nothing triggers."""
        of, seed = candidate, spec.root.seed
        names = list(chain(self._root_name(seed), settings))
        return Trial(
            spec.trial_id, of.arm, of.method, of.phase, of.index, of.configuration, seed, spec, names,
            repeat=of.repeat, proposed_by=of.proposed_by, rank=of.rank,
        )  # fmt: skip

    def _note_suggestion(self, candidate: Candidate) -> None:
        """Write a suggestion to the journal, once."""
        key = (candidate.search, candidate.index)
        if key not in self._suggested:
            self._suggested.add(key)
            made = {"configuration": candidate.configuration, "proposed_by": candidate.proposed_by}
            self.journal.write("suggest", **place(*key), **made)

    def _keep(self, trials: Iterable[Trial]) -> list[Trial]:
        """Add trials to those of the study; returns them."""
        made = list(trials)
        self.trials.update((trial.trial_id, trial) for trial in made)
        return made

    def _best(self, arm: str, repeat: int) -> list[tuple[int, Configuration]]:
        """The configurations of a search of the first searcher, best mean over seeds first, each once, with their index.

        Of equal ones, and of one that the cohort repeats, the first suggestion counts.
        """
        asked, means = self._streams[arm, self.plan.methods[0], repeat].asked, self._means(arm, repeat)
        best: dict[bytes, tuple[int, Configuration]] = {}
        for index in sorted(means, key=lambda index: (-means[index], index)):
            configuration = asked[index].configuration
            best.setdefault(canonical_json(configuration), (index, configuration))
        return list(best.values())

    def _means(self, arm: str, repeat: int) -> dict[int, float]:
        """By index, the mean over seeds of a search of the first searcher, where all have a value."""
        search = (arm, self.plan.methods[0], repeat)
        values: dict[int, list[float | None]] = {}
        for trial in self.trials.values():
            if trial.search == search and trial.phase != "confirm":
                values.setdefault(trial.index, []).append(trial.value)
        return {index: mean for index, of_seeds in values.items() if (mean := _mean(of_seeds)) is not None}


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if a value is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
