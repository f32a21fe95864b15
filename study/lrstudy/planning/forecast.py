"""What a study will ask for, before anything is trained: trials, epochs, and which of them are the same.

Known beforehand are the cohort, what a random or grid search will suggest, what an earlier run has suggested and, after
it, the confirmed configurations. What a model will suggest depends on results: those trials count as unshared, so the
distinct epochs are an upper bound. Epochs are told apart by the names that training them would have (lineage.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from lrstudy.config.common import COMMON
from lrstudy.lineage import chain
from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.planning.arms import Arm, origin
from lrstudy.planning.plan import CONFIRM_SEED, Plan
from lrstudy.policies import build
from lrstudy.policies.base import Policy
from lrstudy.policies.run import Run
from lrstudy.search import INDEPENDENT, make
from lrstudy.search.parameter import Configuration
from lrstudy.settings import Settings, canonical_json
from lrstudy.study_folder.journal import Journal

Work = Counter[tuple[int, int]]
"""How many epochs there are of each (batch size, updates)."""


@dataclass(frozen=True)
class Known:
    """A configuration that will be trained, with these seeds, `copies` times each (searchers may agree)."""

    arm: str
    label: str
    configuration: Configuration
    seeds: tuple[int, ...]
    copies: int


@dataclass(frozen=True)
class Branch:
    """Epochs `start` to `end` (exclusive) that all `members`, each an arm with a number, train alike."""

    start: int
    end: int
    members: tuple[str, ...]
    below: tuple[Branch, ...] = ()

    @property
    def saved(self) -> int:
        """How many epochs need not be trained, in this branch and below."""
        return (self.end - self.start) * (len(self.members) - 1) + sum(branch.saved for branch in self.below)


@dataclass
class Counts:
    """Epochs of an arm, or of the study. Those of trials that are not known yet count as distinct and to be trained."""

    trials: int = 0
    known_trials: int = 0
    asked: int = 0
    known_asked: int = 0
    distinct: int = 0
    recorded: int = 0

    @property
    def to_train(self) -> int:
        """Epochs to be trained, at most."""
        return self.distinct - self.recorded

    def unknown(self, trials: int, epochs: int) -> None:
        """Add trials of which nothing is known."""
        self.trials += trials
        self.asked += trials * epochs
        self.distinct += trials * epochs

    def to_json(self) -> dict[str, int]:
        """JSON values."""
        return {**asdict(self), "to_train": self.to_train}


@dataclass(frozen=True)
class Forecast:
    """What a study asks for. `arms` and `total` count epochs; shared ones count once in `total`, in each of their arms.

    `work` is what is to be trained and `asked_work` what would be without sharing and without records; `tree` holds the
    shared prefixes under one seed; `records` are the epochs that are recorded.
    """

    epochs: int
    arms: Mapping[str, Counts]
    total: Counts
    known_distinct: int
    tree: tuple[Branch, ...]
    work: Work
    asked_work: Work
    records: Sequence[Record]
    warnings: tuple[str, ...] = ()

    @property
    def known_sharing(self) -> float:
        """Epochs asked over distinct ones among the known trials; 1 if there are none."""
        return self.total.known_asked / self.known_distinct if self.known_distinct else 1.0

    @property
    def sharing(self) -> float:
        """The same over all trials, at least."""
        return self.total.asked / self.total.distinct if self.total.distinct else 1.0

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "epochs_per_trial": self.epochs,
            "arms": {name: counts.to_json() for name, counts in self.arms.items()},
            "total": self.total.to_json(),
            "known_distinct": self.known_distinct,
            "sharing": {"known": self.known_sharing, "at_least": self.sharing},
            "tree": [asdict(branch) for branch in self.tree],
            "warnings": list(self.warnings),
        }


def forecast(plan: Plan, journal: Journal, memo: Memo) -> Forecast:
    """Count what `plan` asks for; `journal` is what earlier runs left, `memo` what is recorded. Nothing is written."""
    known, unknown = _trials(plan, journal)
    walker = _Walker(plan, memo)
    for one in known:
        walker.walk(one)
    epochs = plan.study.budget.epochs
    for arm, trials in unknown.items():
        walker.add_unknown(arm, trials)
    labelled = [(label, names) for label, names in walker.paths.items() if names]
    tree = tuple(sorted(_branches(labelled, 0), key=lambda branch: -branch.saved))
    known_distinct = len(walker.distinct)
    found = Forecast(
        epochs, walker.arms, walker.total, known_distinct, tree, walker.work, walker.asked_work, walker.records
    )
    return Forecast(**{**vars(found), "warnings": tuple(_warnings(plan, found))})


def _trials(plan: Plan, journal: Journal) -> tuple[list[Known], dict[str, int]]:
    """The known configurations, and by arm the number of trials whose configuration is not known."""
    search, confirm = plan.study.search, plan.study.confirm
    frozen = _frozen(journal)
    known: list[Known] = []
    unknown: dict[str, int] = {}
    for arm in (arm for name, arm in plan.arms.items() if name not in plan.retired):
        copies: Counter[bytes] = Counter()
        first: dict[bytes, tuple[int, Configuration]] = {}
        missing, most = 0, 0
        for method in plan.methods:
            configurations, total = _configurations(plan, arm, method, journal)
            missing, most = missing + total - len(configurations), max(most, total)
            for index, configuration in enumerate(configurations):
                key = canonical_json(configuration)
                first.setdefault(key, (index, configuration))
                copies[key] += 1
        for key, (index, configuration) in first.items():
            known.append(Known(arm.name, f"{arm.name} {index}", configuration, tuple(search.seeds), copies[key]))
        unknown[arm.name] = missing * len(search.seeds)
        seeds = tuple(range(CONFIRM_SEED, CONFIRM_SEED + confirm.seeds))
        chosen = frozen.get(arm.name, [])[: confirm.top]
        known += [Known(arm.name, "", configuration, seeds, 1) for configuration in chosen]
        unknown[arm.name] += (min(confirm.top, most) - len(chosen)) * confirm.seeds
    return known, unknown


def _configurations(plan: Plan, arm: Arm, method: str, journal: Journal) -> tuple[list[Configuration], int]:
    """What a stream suggests, as far as it is known beforehand, and how many suggestions it makes in all."""
    cohort = list(plan.cohort.get(arm.name, ()))[: plan.study.search.trials]
    seen = {canonical_json(point) for point in cohort}
    suggested = {
        line["index"]: line["configuration"]
        for line in journal.of_kind("suggest")
        if (line["arm"], line["method"]) == (arm.name, method)
    }
    total = max(plan.num_suggestions(arm.name), len(suggested))
    if method in INDEPENDENT:
        return [*cohort, *islice(_enumerated(plan, arm, method, cohort, seen), total - len(cohort))], total
    found = list(cohort)
    while len(found) in suggested and len(found) < total:
        found.append(suggested[len(found)])
    return found, total


def _enumerated(
    plan: Plan, arm: Arm, method: str, cohort: Sequence[Configuration], seen: set[bytes]
) -> Iterator[Configuration]:
    """What a searcher suggests after the cohort, whatever the results."""
    if method == "grid":
        yield from (point for point in arm.space.grid() if canonical_json(point) not in seen)
        return
    searcher = make(method, arm.space, plan.searcher_seed(arm.name, method))
    for point in cohort:
        searcher.expect(point)
    while (suggestion := searcher.ask()) is not None:
        yield suggestion


def _frozen(journal: Journal) -> Mapping[str, list[Configuration]]:
    lines = [line["arms"] for line in journal.of_kind("frozen")]
    return dict(lines[-1]) if lines else {}


@dataclass
class _Walker:
    """Walks the lineages of trials and counts. The settings of a configuration are computed once for all its seeds."""

    plan: Plan
    memo: Memo
    arms: dict[str, Counts] = field(default_factory=dict)
    total: Counts = field(default_factory=Counts)
    distinct: set[str] = field(default_factory=set)
    work: Work = field(default_factory=Counter)
    asked_work: Work = field(default_factory=Counter)
    records: list[Record] = field(default_factory=list)
    paths: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._find = self.memo.finder()
        self._found: dict[str, Record | None] = {}
        self._of_arm: dict[str, set[str]] = {}
        self._work_of: dict[str, list[list[tuple[int, int]]]] = {}
        self._roots: dict[int, str] = {}
        for name in self.plan.arms:
            if name not in self.plan.retired:
                self.arms[name] = Counts()

    def walk(self, one: Known) -> None:
        """Count the trials of one configuration."""
        plan, arm = self.plan, self.plan.arms[one.arm]
        policy = build(arm.policy, arm.parameters(one.configuration))
        settings = _untriggered(policy, plan.run(arm, one.configuration))
        work = _work(settings)
        self._work_of.setdefault(one.arm, []).append(work)
        for seed in one.seeds:
            names = list(chain(self._root(seed), settings))
            if policy.reactive:
                names = self._bent(one, seed, names)
            recorded = self._recorded(names)
            if recorded and recorded[-1].diverged:
                names = names[: len(recorded)]
            self._count(one, names, recorded, work)
            if one.label and seed == plan.study.search.seeds[0]:
                self.paths[one.label] = names

    def add_unknown(self, arm: str, trials: int) -> None:
        """Count trials of an arm whose configurations are not known: each as long as its known ones on average."""
        epochs = self.plan.study.budget.epochs
        self.arms[arm].unknown(trials, epochs)
        self.total.unknown(trials, epochs)
        if not trials:
            return
        if arm not in self._work_of:
            resolved = self.plan.arms[arm]
            middle = resolved.space.default()
            policy = build(resolved.policy, resolved.parameters(middle))
            self._work_of[arm] = [_work(_untriggered(policy, self.plan.run(resolved, middle)))]
        examples = self._work_of[arm]
        for trial in range(trials):
            typical = Counter(examples[trial % len(examples)])
            self.work.update(typical)
            self.asked_work.update(typical)

    def _root(self, seed: int) -> str:
        if seed not in self._roots:
            self._roots[seed] = self.plan.root(seed).name()
        return self._roots[seed]

    def _bent(self, one: Known, seed: int, names: list[str]) -> list[str]:
        """The chain of a reactive policy as its recorded epochs bend it."""
        spec = self.plan.spec("", self.plan.arms[one.arm], one.configuration, seed, False, {})
        while True:
            metrics = [record.metrics for record in self._recorded(names)]
            bent = names
            for reached in range(1, len(metrics) + 1):
                bent = spec.replanned(names, metrics[:reached])
                if bent is not names:
                    break
            if bent is names:
                return names
            names = bent

    def _recorded(self, names: Sequence[str]) -> list[Record]:
        """The records of the first epochs, up to one that is missing or diverged."""
        walked: list[Record] = []
        for name in names:
            if name not in self._found:
                self._found[name] = self._find(name)
            record = self._found[name]
            if record is None:
                break
            walked.append(record)
            if record.diverged:
                break
        return walked

    def _count(
        self, one: Known, names: Sequence[str], recorded: Sequence[Record], work: Sequence[tuple[int, int]]
    ) -> None:
        of_arm = self._of_arm.setdefault(one.arm, set())
        counts = self.arms[one.arm]
        for into in (counts, self.total):
            into.trials += one.copies
            into.known_trials += one.copies
            into.asked += one.copies * len(names)
            into.known_asked += one.copies * len(names)
        for epoch, name in enumerate(names):
            self.asked_work[work[epoch]] += one.copies
            is_recorded = epoch < len(recorded)
            if name not in of_arm:
                of_arm.add(name)
                counts.distinct += 1
                counts.recorded += is_recorded
            if name in self.distinct:
                continue
            self.distinct.add(name)
            self.total.distinct += 1
            self.total.recorded += is_recorded
            if is_recorded:
                self.records.append(recorded[epoch])
            else:
                self.work[work[epoch]] += 1


def _untriggered(policy: Policy, run: Run) -> list[Settings]:
    """The settings of all epochs of a run, in which a reactive policy is not triggered."""
    return [policy.settings(epoch, (), run) for epoch in range(run.num_epochs)]


def _work(settings: Sequence[Settings]) -> list[tuple[int, int]]:
    return [(one.batch_size, one.num_updates) for one in settings]


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


def _warnings(plan: Plan, found: Forecast) -> Iterator[str]:
    """Why nothing, or less than could be, will be shared."""
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
    if found.known_distinct and found.total.known_asked == found.known_distinct and found.total.known_trials > 1:
        yield (
            "No two of the known trials share an epoch. Arms share what they train alike: the same common parameters, "
            "on ladders (`steps`), drawn for the cohort (`search.cohort`)."
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more arms" if len(names) > 4 else "")
