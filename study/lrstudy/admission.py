"""Admission: which trial is handed out next, and which is held back. Free of Ray.

A trial whose next state is in training elsewhere is held back without a device. Only admitted trials
claim states, they claim their whole missing suffix, and admission requires that nobody else has claimed
any of it; so a trial never waits for one that waits. (If waiting trials claim too, 213 of 3,000 random
simulations deadlocked; with this rule none did, and no state was trained twice.) Trials that are
recorded already finish here, in the driver, and cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lrstudy.journal import Journal
from lrstudy.memo import Memo
from lrstudy.plan import CONFIRM_SEED, Phase, Plan, with_store_points
from lrstudy.records import Record
from lrstudy.search.stream import Stream
from lrstudy.settings import canonical_json
from lrstudy.space import Configuration
from lrstudy.trial import TrialSpec

Status = Literal["waiting", "running", "completed", "diverged", "failed", "interrupted"]


@dataclass(eq=False)
class Trial:
    """One trial as the driver knows it. `records` grow as epochs arrive."""

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

    @property
    def recalled(self) -> list[bool]:
        """For each record, whether it is of another trial: what this trial trained itself in an earlier run is not."""
        own = (self.spec.origin["study"], self.trial_id)
        return [(record.origin.get("study"), record.origin.get("trial")) != own for record in self.records]

    def value(self, metric: str, select: str) -> float | None:
        """The validation metric that the trial is judged by; None if it did not complete."""
        if self.status != "completed":
            return None
        values = [record.metrics[f"val_{metric}"] for record in self.records]
        return max(values) if select == "best" else values[-1]


class Admission:
    """All trials of a study run: tune (cohort, then searcher), freeze, confirm with fresh seeds.

    Call `next` for a trial to run, `stepped` with its epochs, `ended` when it is over, until `is_done`.
    """

    def __init__(self, plan: Plan, memo: Memo, journal: Journal) -> None:
        self.plan, self.memo, self.journal = plan, memo, journal
        self.trials: dict[str, Trial] = {}
        self.is_done = False
        self.stopped = ""
        self.failure = ""
        self.frozen: dict[str, list[Configuration]] | None = None
        self._waiting: list[Trial] = []
        self._claims: dict[str, str] = {}
        self._idle_since: float | None = None
        self._is_over = False
        self._origin = {"study": journal.study_id, "run": journal.run}
        told = {(t["arm"], t["method"], t["index"]): t["cost"] for t in journal.of_kind("told")}
        self._told = told
        self._suggested = {(s["arm"], s["method"], s["index"]) for s in journal.of_kind("suggest")}
        self._num_running = 0
        self._noted = {line["trial_id"]: line for line in journal.of_kind("trial") if line["status"] != "interrupted"}
        self._streams = {(arm, method): self._stream(arm, method, told) for arm in plan.arms for method in plan.methods}

    def _stream(self, arm: str, method: str, told: Mapping[tuple[str, str, int], float | None]) -> Stream:
        plan = self.plan
        remembered = {
            line["index"]: line["configuration"]
            for line in self.journal.of_kind("suggest")
            if (line["arm"], line["method"]) == (arm, method)
        }
        stream = Stream(
            method, plan.arms[arm].space, plan.searcher_seed(arm, method), plan.cohort.get(arm, ()),
            len(remembered) if arm in plan.retired else max(plan.study.search.trials, len(remembered)),
            plan.outstanding, remembered,
        )  # fmt: skip
        for (of_arm, of_method, index), cost in told.items():
            if (of_arm, of_method) == (arm, method):
                stream.result(index, cost)
        return stream

    # What a runner calls

    def next(self) -> Trial | None:
        """A trial to run now, or None: all are running, held back or done (`is_done`)."""
        while not (self.stopped or self.is_done):
            self._fill()
            trial = next((t for t in self._waiting if self._is_admissible(t)), None)
            if trial is not None:
                self._waiting.remove(trial)
                if self._is_recorded(trial):
                    self._finish_recalled(trial)
                    continue
                return self._admit(trial)
            if self._waiting or self._num_running or not all(s.is_complete for s in self._streams.values()):
                break
            if self.frozen is not None or not self._freeze():
                self.is_done = True
                break
        if self.is_done or self.stopped:
            self._close_idle()
            if not self._num_running and not self._is_over:
                self._is_over = True
                self.journal.write("done", at=time.monotonic())
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        return None

    def stepped(self, trial_id: str, records: Iterable[Record]) -> None:
        """Take the records of a running trial's epochs. Repeats after a worker's death are ignored."""
        trial = self.trials[trial_id]
        for record in records:
            self.memo.learn(record)
            self._claims.pop(record.lineage, None)
            if record.epoch == len(trial.records):
                trial.records.append(record)

    def ended(self, trial_id: str, status: Status, error: str = "", test: Mapping[str, Any] | None = None) -> None:
        """A running trial is over. An interrupted one is not told to its searcher and will go on in another run."""
        trial = self.trials[trial_id]
        self._num_running -= 1
        trial.status, trial.error, trial.test = status, error, test
        trial.ended_at = time.time()
        self._release(trial)
        if status != "interrupted":
            self._note(trial)
            self._tell(trial)

    def returned(self, trial_id: str) -> None:
        """A running trial has lost its worker: it waits again, first in line, and will recall what it committed."""
        trial = self.trials[trial_id]
        self._num_running -= 1
        self._release(trial)
        trial.status = "waiting"
        self._waiting.insert(0, trial)

    def stop(self, reason: str) -> None:
        """Hand out nothing more."""
        self.stopped = self.stopped or reason

    def fail(self, reason: str) -> None:
        """Stop because going on makes no sense: the storage does not take what is trained."""
        self.failure = self.failure or reason
        self.stop(reason)

    @property
    def num_planned(self) -> int:
        """How many trials the whole study has, as far as is known: a small space may be used up early."""
        search = self.plan.study.search
        missing = sum(
            search.trials - len(stream.asked)
            for (arm, _), stream in self._streams.items()
            if stream.is_exhausted and arm not in self.plan.retired
        )
        return self.plan.num_trials - missing * len(search.seeds)

    # Tuning

    def _fill(self) -> None:
        """Ask every stream in turn for what it may suggest now."""
        asked = True
        while asked:
            asked = False
            for (arm, method), stream in self._streams.items():
                if not stream.can_ask:
                    continue
                index, configuration = len(stream.asked), stream.ask()
                if configuration is None:
                    continue
                asked = True
                self._suggest(arm, method, index, configuration)

    def _suggest(self, arm: str, method: str, index: int, configuration: Configuration) -> None:
        phase: Phase = "cohort" if index < self.plan.cohort_size else "tune"
        if (arm, method, index) not in self._suggested:
            self._suggested.add((arm, method, index))
            self.journal.write("suggest", arm=arm, method=method, index=index, configuration=configuration)
        for seed in self.plan.study.search.seeds:
            self._add(f"{arm}-{method}-{index}-{seed}", arm, method, phase, index, configuration, seed)

    def _tell(self, trial: Trial) -> None:
        """Give the stream the result of a configuration once all its seeds are over."""
        if trial.phase == "confirm":
            return
        ids = [f"{trial.arm}-{trial.method}-{trial.index}-{seed}" for seed in self.plan.study.search.seeds]
        group = [self.trials[i] for i in ids]
        if any(t.status in ("waiting", "running", "interrupted") for t in group):
            return
        values = [t.value(self.plan.study.metric, self.plan.study.select) for t in group]
        finite = [value for value in values if value is not None]
        cost = 1.0 - sum(finite) / len(finite) if len(finite) == len(values) else None
        key = (trial.arm, trial.method, trial.index)
        self._streams[key[:2]].result(trial.index, cost)
        if key not in self._told:
            self._told[key] = cost
            self.journal.write("told", arm=trial.arm, method=trial.method, index=trial.index, cost=cost)

    # Freezing and confirming

    def _freeze(self) -> bool:
        """Choose each arm's best configurations and add their confirm trials; False if there are none."""
        study = self.plan.study
        chosen = {arm: self._best(arm)[: study.confirm.top] for arm in self.plan.arms}
        self.frozen = {arm: [configuration for _, configuration in best] for arm, best in chosen.items()}
        previous = [line["arms"] for line in self.journal.of_kind("frozen")]
        if not previous or canonical_json(previous[-1]) != canonical_json(self.frozen):
            self.journal.write("frozen", arms=self.frozen, deviates=any(line["test"] for line in self._noted.values()))
        for seed in range(CONFIRM_SEED, CONFIRM_SEED + study.confirm.seeds):
            for arm, best in chosen.items():
                for rank, (index, configuration) in enumerate(best, start=1):
                    trial_id = f"{arm}-confirm-{rank}-{seed}"
                    self._add(trial_id, arm, self.plan.methods[0], "confirm", index, configuration, seed)
        return bool(self._waiting)

    def _best(self, arm: str) -> list[tuple[int, Configuration]]:
        """The arm's configurations under the first searcher, best mean over seeds first, each once."""
        metric, select, method = self.plan.study.metric, self.plan.study.select, self.plan.methods[0]
        by_index: dict[int, list[float | None]] = {}
        for trial in self.trials.values():
            if (trial.arm, trial.method) == (arm, method) and trial.phase != "confirm":
                by_index.setdefault(trial.index, []).append(trial.value(metric, select))
        means = {i: sum(v) / len(v) for i, v in by_index.items() if all(x is not None for x in v)}  # type: ignore[arg-type]
        asked, seen, best = self._streams[arm, method].asked, set(), []
        for index in sorted(means, key=lambda i: (-means[i], i)):
            key = canonical_json(asked[index])
            if key not in seen:
                seen.add(key)
                best.append((index, asked[index]))
        return best

    # Holding back and handing out

    def _add(
        self,
        trial_id: str,
        arm: str,
        method: str,
        phase: Phase,
        index: int,
        configuration: Configuration,
        seed: int,
    ) -> None:
        spec = self.plan.spec(trial_id, self.plan.arms[arm], configuration, seed, phase == "confirm", self._origin)
        trial = Trial(trial_id, arm, method, phase, index, configuration, seed, spec, spec.chain())
        for name in trial.chain:  # look at the storage once; later the workers' results say what is new
            if self.memo.find(name) is None:
                break
        self.trials[trial_id] = trial
        if arm in self.plan.retired and not self._is_recorded(trial):
            trial.status, trial.records = "interrupted", self._walked(trial)
            self._streams[arm, method].result(index, None)
        else:
            self._waiting.append(trial)

    def _missing(self, trial: Trial) -> Sequence[str]:
        """The names of a trial's chain from the first one that has no record."""
        for depth, name in enumerate(trial.chain):
            record = self.memo.known(name)
            if record is None:
                return trial.chain[depth:]
            if record.diverged:
                return ()
        return ()

    def _is_admissible(self, trial: Trial) -> bool:
        return not any(name in self._claims for name in self._missing(trial))

    def _is_recorded(self, trial: Trial) -> bool:
        if self._missing(trial):
            return False
        last = self._walked(trial)[-1]
        if not trial.spec.read_test or last.diverged:
            return True
        noted = self._noted.get(trial.trial_id, {})
        return bool(noted.get("lineage") == last.lineage and noted["test"])

    def _walked(self, trial: Trial) -> list[Record]:
        """The known records of a trial's chain, up to the first one that diverged."""
        walked: list[Record] = []
        for name in trial.chain:
            record = self.memo.known(name)
            if record is None:
                break
            walked.append(record)
            if record.diverged:
                break
        return walked

    def _finish_recalled(self, trial: Trial) -> None:
        trial.records = self._walked(trial)
        last = trial.records[-1]
        trial.status = "diverged" if last.diverged else "completed"
        noted = self._noted.get(trial.trial_id, {})
        if (noted.get("status"), noted.get("lineage")) == (trial.status, last.lineage):
            trial.started_at, trial.ended_at, trial.test = noted["started_at"], noted["ended_at"], noted["test"]
        else:
            trial.started_at = trial.ended_at = time.time()
            self._note(trial)
        self._tell(trial)

    def _admit(self, trial: Trial) -> Trial:
        for name in self._missing(trial):
            self._claims[name] = trial.trial_id
        shared = {self._common_depth(trial, other) for other in self._waiting}
        trial.spec = with_store_points(trial.spec, frozenset(shared - {0, len(trial.chain)}))
        trial.status, trial.started_at = "running", time.time()
        self._num_running += 1
        self._close_idle()
        return trial

    def _release(self, trial: Trial) -> None:
        """Give up a trial's claims on the states that it has not published."""
        for name in trial.chain:
            if self._claims.get(name) == trial.trial_id:
                del self._claims[name]

    @staticmethod
    def _common_depth(one: Trial, other: Trial) -> int:
        return sum(1 for a, b in zip(one.chain, other.chain, strict=False) if a == b)

    def _note(self, trial: Trial) -> None:
        """Write a trial's end to the journal, once per outcome."""
        lineage = trial.records[-1].lineage if trial.records else ""
        self.journal.write(
            "trial", trial_id=trial.trial_id, status=trial.status, error=trial.error, lineage=lineage,
            test=dict(trial.test) if trial.test else None, started_at=trial.started_at, ended_at=trial.ended_at,
        )  # fmt: skip

    def close(self) -> None:
        """The run ends: running trials count as interrupted, and idle time that is still open is noted."""
        for trial in self.trials.values():
            if trial.status == "running":
                self.ended(trial.trial_id, "interrupted")
        self._close_idle()

    def _close_idle(self) -> None:
        if self._idle_since is not None:
            self.journal.write("idle", start=self._idle_since, end=time.monotonic())
            self._idle_since = None
