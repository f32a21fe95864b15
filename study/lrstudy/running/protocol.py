"""The protocol of a study: which trials there are. Tune (cohort, then searcher), freeze, confirm with fresh seeds.

Everything is decided from the plan, the journal and the results of trials, in an order that does not depend on
which trial finishes first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lrstudy.memo.records import Record
from lrstudy.planning.plan import CONFIRM_SEED, Phase, Plan
from lrstudy.search import INDEPENDENT
from lrstudy.search.parameter import Configuration
from lrstudy.search.stream import Stream
from lrstudy.settings import canonical_json
from lrstudy.study_folder.journal import Journal
from lrstudy.trial.spec import TrialSpec

INDEPENDENT_WINDOW = 4
"""Searchers that do not look at results may be so many times further ahead of them: more trials to choose the next from."""

Status = Literal["waiting", "running", "completed", "diverged", "failed", "interrupted"]


@dataclass(eq=False)
class Trial:
    """One trial as the driver knows it. `chain` holds the names of its states; `records` grow as epochs arrive.

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
        """For each record, whether it is of another trial: what this trial trained itself in an earlier run is not."""
        own = (self.spec.origin["study"], self.trial_id)
        return [(record.origin.get("study"), record.origin.get("trial")) != own for record in self.records]

    def value(self, metric: str, select: str) -> float | None:
        """The validation metric that the trial is judged by; None if it did not complete or has none."""
        if self.status != "completed":
            return None
        values = [record.metrics.get(f"val_{metric}") for record in self.records]
        known = [value for value in values if value is not None]
        return max(known, default=None) if select == "best" else values[-1]


class StudyProtocol:
    """Makes the trials of a study, as far as results allow. `trials` holds all that were made, by id."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.plan, self.journal = plan, journal
        self.trials: dict[str, Trial] = {}
        self.frozen: dict[str, list[Configuration]] | None = None
        self._told = {(t["arm"], t["method"], t["index"]): t["cost"] for t in journal.of_kind("told")}
        self._suggested = {(s["arm"], s["method"], s["index"]) for s in journal.of_kind("suggest")}
        self._streams = {(arm, method): self._stream(arm, method) for arm in plan.arms for method in plan.methods}

    def suggest(self) -> list[Trial]:
        """The trials that may be made now: every stream is asked in turn for all that it may suggest."""
        made: list[Trial] = []
        asked = True
        while asked:
            asked = False
            for (arm, method), stream in self._streams.items():
                if not stream.can_ask:
                    continue
                index, configuration = len(stream.asked), stream.ask()
                if configuration is not None:
                    asked = True
                    made += self._suggested_trials(arm, method, index, configuration)
        return made

    def tell(self, trial: Trial) -> None:
        """Take the result of a tuning trial; its searcher learns of it once all seeds of the configuration are over."""
        if trial.phase == "confirm":
            return
        study = self.plan.study
        group = [self.trials[_tuning_id(trial.arm, trial.method, trial.index, seed)] for seed in study.search.seeds]
        if any(t.status in ("waiting", "running", "interrupted") for t in group):
            return
        values = [t.value(study.metric, study.select) for t in group]
        finite = [value for value in values if value is not None]
        cost = 1.0 - sum(finite) / len(finite) if len(finite) == len(values) else None
        key = (trial.arm, trial.method, trial.index)
        self._streams[key[:2]].result(trial.index, cost)
        if key not in self._told:
            self._told[key] = cost
            self.journal.write("told", arm=trial.arm, method=trial.method, index=trial.index, cost=cost)

    def give_up(self, trial: Trial) -> None:
        """A trial of a retired arm that is not recorded: it will not be trained."""
        trial.status = "interrupted"
        self._streams[trial.arm, trial.method].result(trial.index, None)

    @property
    def is_tuned(self) -> bool:
        """Whether every configuration that will be suggested has its result."""
        return all(stream.is_complete for stream in self._streams.values())

    def freeze(self) -> list[Trial]:
        """Choose each arm's best configurations and make their confirm trials."""
        study = self.plan.study
        chosen = {arm: self._best(arm)[: study.confirm.top] for arm in self.plan.arms}
        self.frozen = {arm: [configuration for _, configuration in best] for arm, best in chosen.items()}
        previous = [line["arms"] for line in self.journal.of_kind("frozen")]
        if not previous or canonical_json(previous[-1]) != canonical_json(self.frozen):
            has_read_test = any(line["test"] for line in self.journal.of_kind("trial"))
            self.journal.write("frozen", arms=self.frozen, deviates=has_read_test)
        return [
            self._make(f"{arm}-confirm-{rank}-{seed}", arm, self.plan.methods[0], "confirm", index, configuration, seed)
            for seed in range(CONFIRM_SEED, CONFIRM_SEED + study.confirm.seeds)
            for arm, best in chosen.items()
            for rank, (index, configuration) in enumerate(best, start=1)
        ]

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

    def _suggested_trials(self, arm: str, method: str, index: int, configuration: Configuration) -> list[Trial]:
        """The trials of one configuration, one per seed."""
        phase: Phase = "cohort" if index < self.plan.cohort_size else "tune"
        if (arm, method, index) not in self._suggested:
            self._suggested.add((arm, method, index))
            self.journal.write("suggest", arm=arm, method=method, index=index, configuration=configuration)
        return [
            self._make(_tuning_id(arm, method, index, seed), arm, method, phase, index, configuration, seed)
            for seed in self.plan.study.search.seeds
        ]

    def _make(
        self, trial_id: str, arm: str, method: str, phase: Phase, index: int, configuration: Configuration, seed: int
    ) -> Trial:
        origin = {"study": self.journal.study_id, "run": self.journal.run}
        spec = self.plan.spec(trial_id, self.plan.arms[arm], configuration, seed, phase == "confirm", origin)
        trial = Trial(trial_id, arm, method, phase, index, configuration, seed, spec, spec.chain())
        self.trials[trial_id] = trial
        return trial

    def _best(self, arm: str) -> list[tuple[int, Configuration]]:
        """The arm's configurations under the first searcher, best mean over seeds first, each once, with their index."""
        metric, select, method = self.plan.study.metric, self.plan.study.select, self.plan.methods[0]
        by_index: dict[int, list[float | None]] = {}
        for trial in self.trials.values():
            if (trial.arm, trial.method) == (arm, method) and trial.phase != "confirm":
                by_index.setdefault(trial.index, []).append(trial.value(metric, select))
        means = {
            index: sum(known) / len(values)
            for index, values in by_index.items()
            if len(known := [value for value in values if value is not None]) == len(values)
        }
        asked = self._streams[arm, method].asked
        ranked = {
            canonical_json(asked[i]): i for i in sorted(means, key=lambda i: (means[i], -i))
        }  # a repeat: its best
        return [(index, asked[index]) for index in reversed(ranked.values())]


def _tuning_id(arm: str, method: str, index: int, seed: int) -> str:
    return f"{arm}-{method}-{index}-{seed}"
