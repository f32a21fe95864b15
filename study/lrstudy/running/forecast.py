"""What a study will ask for, before anything is trained: trials, epochs, and which of them are the same.

The study's own protocol says which trials are known beforehand: the cohort, what a random or grid search will suggest,
what an earlier run has suggested, and what it chose to confirm. What a model will suggest depends on results: those
trials count as unshared, so the distinct epochs are an upper bound. Two epochs are the same if training them gives
states of the same name (lineage.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from lrstudy.config.common import COMMON
from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.planning.arms import origin
from lrstudy.planning.plan import Plan
from lrstudy.running.forecast_counts import Counts, OneSearch
from lrstudy.running.found_rates import Asked, FoundRates
from lrstudy.running.protocol import StudyProtocol
from lrstudy.running.range_tests import RangeTest
from lrstudy.running.searches import Search, numbered
from lrstudy.running.trials import Candidate, Trial
from lrstudy.search import INDEPENDENT
from lrstudy.search.base import START_UP
from lrstudy.settings import Effort, Settings, canonical_json, effort
from lrstudy.study_folder.journal import Journal


class EpochKind(NamedTuple):
    """What decides how long an epoch takes: the batch size, the number of updates, and what is trained."""

    batch_size: int
    updates: int
    effort: Effort = "all"


Work = Counter[EpochKind]
"""How many epochs there are of each kind."""


@dataclass(frozen=True)
class Branch:
    """Epochs `start` to `end` (exclusive), which all `members` share: each an arm and the number of its suggestion."""

    start: int
    end: int
    members: tuple[str, ...]
    below: tuple[Branch, ...] = ()

    @property
    def saved(self) -> int:
        """How many epochs sharing saves, in this branch and below it."""
        return (self.end - self.start) * (len(self.members) - 1) + sum(branch.saved for branch in self.below)


@dataclass(frozen=True)
class Forecast:
    """What a study asks for. `arms` and `total` count epochs; one that arms share counts in each of them, once in `total`.

    `one_search` counts what a search shares that each searcher's repetition of the cohort does not add to. `work` is what is
    left to train, and `asked_work` what would be without sharing and records; `tree` holds the prefixes
    shared under one seed; `records` are those of the epochs that are recorded already. `passes` is how often features are
    left to be computed, `asked_passes` how often they would be without sharing and records. `efforts` says of settings that
    train on features, or some sections alone, by their digests.
    """

    epochs: int
    arms: Mapping[str, Counts]
    total: Counts
    known_distinct: int
    one_search: OneSearch
    tree: tuple[Branch, ...]
    work: Work
    asked_work: Work
    records: Sequence[Record]
    warnings: tuple[str, ...] = ()
    passes: int = 0
    asked_passes: int = 0
    efforts: Mapping[str, Effort] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "epochs_per_trial": self.epochs,
            "arms": {name: counts.to_json() for name, counts in self.arms.items()},
            "total": self.total.to_json(),
            "known_distinct": self.known_distinct,
            "sharing": self.one_search.to_json(),
            "tree": [asdict(branch) for branch in self.tree],
            "warnings": list(self.warnings),
        }


def forecast(plan: Plan, journal: Journal, memo: Memo) -> Forecast:
    """Count what `plan` asks for; `journal` is what earlier runs left, `memo` what is recorded. Nothing is written."""
    rates = FoundRates(plan, memo, journal)
    plan = rates.plan
    protocol, tally = StudyProtocol(plan, journal), _Tally(plan, memo)
    tally.add_range_tests(rates.missing)
    num_unknown: dict[str, int] = {}
    by_model: dict[tuple[str, str], int] = {}
    for arm in tally.arms:
        candidates = protocol.foresee(arm)
        first = (arm, plan.methods[0], 0)
        num_unknown[arm] = _num_unknown(plan, list(product([arm], plan.methods, plan.repeats)), candidates)
        tally.one_search.unknown += _num_unknown(plan, [first], candidates) * plan.study.budget.epochs
        by_model |= {(arm, method): _num_by_model(plan, arm, method, candidates) for method in plan.methods}
        for alike in _alike(candidates):
            of_first = sum(candidate.search == first for candidate in alike)
            tally.add(*protocol.trials_of(alike[0]), copies=len(alike), of_first=of_first)
    for arm, trials in num_unknown.items():
        tally.add_unknown(arm, trials)
    tally.add_suggested(by_model)
    counted = tally.forecast()
    return replace(counted, warnings=(*_model_warnings(plan, by_model), *_warnings(plan, counted)))


def _alike(candidates: Iterable[Candidate]) -> Iterable[list[Candidate]]:
    """The candidates by configuration, as searchers may agree; those to be confirmed apart, as they have other seeds."""
    alike: dict[tuple[bool, bytes], list[Candidate]] = {}
    for candidate in candidates:
        key = candidate.phase == "confirm", canonical_json(candidate.configuration)
        alike.setdefault(key, []).append(candidate)
    return alike.values()


def _num_unknown(plan: Plan, searches: Sequence[Search], known: Sequence[Candidate]) -> int:
    """How many trials some searches of an arm will have, confirm trials included, besides those of its known candidates."""
    search, confirm = plan.study.search, plan.study.confirm
    mine = [candidate for candidate in known if candidate.search in searches]
    suggested = Counter(candidate.search for candidate in mine if candidate.phase != "confirm")
    in_all = {key: max(plan.num_suggestions(key[0]), suggested[key]) for key in searches}
    to_suggest = sum(in_all.values()) - suggested.total()
    num_confirmed = sum(method == plan.methods[0] for _, method, _ in searches)
    to_choose = min(confirm.top, max(in_all.values())) * num_confirmed - (len(mine) - suggested.total())
    return to_suggest * len(search.seeds) + to_choose * confirm.looks[-1]


def _num_by_model(plan: Plan, arm: str, method: str, known: Sequence[Candidate]) -> int:
    """How many suggestions a model makes in the arm's searches by `method`: those known to be, and those to come."""
    num_by_model = 0
    for search in product([arm], [method], plan.repeats):
        mine = [candidate for candidate in known if candidate.search == search and candidate.phase != "confirm"]
        to_come = range(len(mine), plan.num_suggestions(arm))
        num_by_model += sum(candidate.proposed_by == "model" for candidate in mine)
        num_by_model += sum(plan.is_by_model(arm, method, index) for index in to_come)
    return num_by_model


class _Tally:
    """Counts trials and their epochs, by arm and in all."""

    def __init__(self, plan: Plan, memo: Memo) -> None:
        self.plan = plan
        self.arms = {name: Counts() for name in plan.arms if name not in plan.retired}
        self.total = Counts()
        self._find = cache(memo.finder())
        self._names_of: dict[str, set[str]] = {name: set() for name in self.arms}
        self._names: set[str] = set()
        self.one_search = OneSearch()
        self._names_of_first: set[str] = set()
        self._records: list[Record] = []
        self._paths: dict[str, list[str]] = {}
        self._work, self._asked_work = Work(), Work()
        self._work_of: dict[str, list[list[EpochKind]]] = {name: [] for name in self.arms}
        self._features: set[str] = set()
        self._asked_passes = 0
        self._efforts: dict[str, Effort] = {}

    def add(self, trials: Sequence[Trial], settings: Sequence[Settings], copies: int, of_first: int) -> None:
        """Count the trials of one configuration.

        Args:
            trials: One per seed.
            settings: Those of their epochs.
            copies: How often each trial is asked for, by all searches.
            of_first: How often by the first search of the first searcher.
        """
        work, first = _work(settings), trials[0]
        self._work_of[first.arm].append(work)
        self._efforts |= {s.digest: kind.effort for s, kind in zip(settings, work, strict=True) if kind.effort != "all"}
        for trial in trials:
            records = trial.walk(self._find)
            self._count_features(trial, len(records), copies)
            if records and records[-1].diverged:
                trial.chain = trial.chain[: len(records)]
            self._count(trial, records, work, copies)
            self.one_search.asked += of_first * len(trial.chain)
            self.one_search.distinct += len(_unseen(trial.chain if of_first else (), self._names_of_first))
        if first.phase != "confirm":
            self._paths[self._label(first)] = first.chain

    def _label(self, trial: Trial) -> str:
        """What a suggestion is called in the tree: its arm, its searcher if that is not the first, its number."""
        of = "" if trial.method == self.plan.methods[0] else f"{trial.method} "
        return f"{trial.arm} {of}{numbered(str(trial.index), trial.repeat)}"

    def add_unknown(self, arm: str, trials: int) -> None:
        """Count trials of an arm whose configurations are not known: each as long as its known ones on average."""
        self.arms[arm].unknown(trials, self.plan.study.budget.epochs)
        self.total.unknown(trials, self.plan.study.budget.epochs)
        if not trials:
            return
        examples = self._work_of[arm] or [self._default_work(arm)]
        for number in range(trials):
            typical = Counter(examples[number % len(examples)])
            self._work.update(typical)
            self._asked_work.update(typical)

    def add_range_tests(self, tests: Mapping[Asked, RangeTest]) -> None:
        """Count the range tests that are to come: those that arms have in common once in what is left to train."""
        for test in tests.values():
            self._asked_work.update(_work(test.passes))
        for test in {test.digest: test for test in tests.values()}.values():
            self._work.update(_work(test.passes))

    def add_suggested(self, by_model: Mapping[tuple[str, str], int]) -> None:
        """Count the suggestions that models make, by arm and searcher."""
        for (arm, _), suggestions in by_model.items():
            self.arms[arm].by_model += suggestions
            self.total.by_model += suggestions

    def forecast(self) -> Forecast:
        """What was counted."""
        return Forecast(
            self.plan.study.budget.epochs,
            self.arms,
            self.total,
            len(self._names),
            self.one_search,
            tuple(sorted(_branches(list(self._paths.items()), 0), key=lambda branch: -branch.saved)),
            self._work,
            self._asked_work,
            self._records,
            passes=len(self._features),
            asked_passes=self._asked_passes,
            efforts=self._efforts,
        )

    def _count_features(self, trial: Trial, num_recorded: int, copies: int) -> None:
        """Count the features that a trial's epochs train on, those to be computed once."""
        names = trial.spec.features(trial.chain)
        self._asked_passes += copies * len(names)
        ends = dict(trial.spec.feature_stretches)
        missing = (name for start, name in names.items() if num_recorded < ends[start] and self._find(name) is None)
        self._features.update(missing)

    def _count(self, trial: Trial, records: Sequence[Record], work: Sequence[EpochKind], copies: int) -> None:
        """Count one trial, whose first epochs have these records."""
        names, num_recorded, counts = trial.chain, len(records), self.arms[trial.arm]
        counts.known(copies, len(names))
        self.total.known(copies, len(names))
        for epoch in range(len(names)):
            self._asked_work[work[epoch]] += copies
        counts.new(_unseen(names, self._names_of[trial.arm]), num_recorded)
        unseen = _unseen(names, self._names)
        self.total.new(unseen, num_recorded)
        for epoch in unseen:
            if epoch < num_recorded:
                self._records.append(records[epoch])
            else:
                self._work[work[epoch]] += 1

    def _default_work(self, arm: str) -> list[EpochKind]:
        resolved = self.plan.arms[arm]
        return _work(self.plan.spec("", resolved, resolved.space.default(), 0, False, {}).untriggered())


def _unseen(names: Sequence[str], seen: set[str]) -> list[int]:
    """The epochs whose names are not in `seen`, to which all `names` are added."""
    unseen = [epoch for epoch, name in enumerate(names) if name not in seen]
    seen.update(names)
    return unseen


def _work(settings: Sequence[Settings]) -> list[EpochKind]:
    return [EpochKind(one.batch_size, one.num_updates, effort(one.recipe)) for one in settings]


def _branches(paths: Sequence[tuple[str, list[str]]], depth: int) -> Iterator[Branch]:
    """The prefixes from `depth` on that at least two of `paths` share, deeper ones below them."""
    groups: dict[str, list[tuple[str, list[str]]]] = {}
    for path in paths:
        if len(path[1]) > depth:
            groups.setdefault(path[1][depth], []).append(path)
    for group in groups.values():
        if len(group) < 2:
            continue
        end, shortest, first = depth + 1, min(len(names) for _, names in group), group[0][1]
        while end < shortest and all(names[end] == first[end] for _, names in group):
            end += 1
        yield Branch(depth, end, tuple(label for label, _ in group), tuple(_branches(group, end)))


def _model_warnings(plan: Plan, by_model: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """Which searchers learn from results and will make no suggestion by them, though there is something to suggest."""
    search = plan.study.search
    for method in (method for method in plan.methods if method not in INDEPENDENT):
        names = [
            arm
            for (arm, of), suggestions in by_model.items()
            if of == method and not suggestions and plan.arms[arm].space.size > plan.num_suggestions(arm)
        ]
        if names:
            yield (
                f"{method} learns from results, but none of its suggestions for {_listed(names)} will be a model's: of "
                f"{search.trials} trials (search.trials) the cohort has {plan.cohort_size} (search.cohort), and a model "
                f"needs {START_UP} results. Raise search.trials, or lower search.cohort or search.outstanding."
            )


def _warnings(plan: Plan, counted: Forecast) -> Iterator[str]:
    """Why less will be shared than could be."""
    continuous: dict[str, list[str]] = {}
    for arm in (arm for name, arm in plan.arms.items() if name not in plan.retired):
        for parameter in arm.space.searched:
            if parameter.name in COMMON and not parameter.values:
                continuous.setdefault(origin(plan.study, arm.name.partition("@")[0], parameter.name), []).append(
                    arm.name
                )
    what = "only the cohort's points are" if plan.cohort_size else "nothing is"
    for where, names in continuous.items():
        yield (
            f"{where} is a continuous range: no two trials draw the same value, so of {_listed(names)} {what} shared. "
            "Give it `steps`, as in {log: [1e-3, 1.0], steps: 10}."
        )
    if counted.one_search.asked == counted.one_search.distinct > plan.study.budget.epochs:
        yield (
            "No two of the known trials share an epoch. Arms share what they train alike: the same common parameters, "
            "on ladders (`steps`), drawn for the cohort (`search.cohort`)."
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more arms" if len(names) > 4 else "")
