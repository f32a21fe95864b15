"""Admission: which trial is handed out next, and which is held back. Free of Ray.

A trial whose next state is in training elsewhere is held back without a device. Only admitted trials claim
states: each claims all that its chain lacks, and is admitted only if nobody else has claimed any of these. So
no trial waits for one that waits itself. (When waiting trials claimed too, 213 of 3,000 random simulations
deadlocked; with this rule none did, and no state was trained twice.) Trials that are recorded already end
here, in the driver, and cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lrstudy.errors import Fault, InputError
from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.planning.plan import Plan, with_store_points
from lrstudy.running import calibration
from lrstudy.running.calibration import UpdateKind
from lrstudy.running.found_rates import FoundRates
from lrstudy.running.protocol import StudyProtocol
from lrstudy.running.range_tests import RangeTest
from lrstudy.running.trials import Status, Trial
from lrstudy.running.waiting_line import WaitingLine
from lrstudy.study_folder.journal import Journal

_MANY = 100
"""So many trials at once, as at the start on hundreds of slots, are looked up in a list of all records: two requests for
each of 8,000 trials, one after the other, take minutes on a bucket."""


class Admission:
    """Hands out the trials of a study run.

    Call `next` for a trial to run, `stepped` with its epochs, `ended` when it is over, until `is_done`. Before the first
    trial come the range tests that find rates, if there are any: while `waits_for_rates`, call `next_test` and `tested`.
    `num_running` counts the trials and tests that are handed out. `stopped`, `failure` and `refusal` say why nothing more
    is; `notes` are for the user to read at the end. `kinds` knows the kinds of update of trials.
    """

    def __init__(self, plan: Plan, memo: Memo, journal: Journal) -> None:
        self.memo, self.journal = memo, journal
        self.rates = FoundRates(plan, memo, journal)
        self.rates.note()
        self.plan = self.rates.plan
        self.protocol = StudyProtocol(self.plan, journal)
        self.is_done = False
        self.stopped = ""
        self.failure = ""
        self.refusal: InputError | None = None
        self.notes: list[str] = []
        self.num_running = 0
        self._line = WaitingLine(memo.known)
        self._noted = {line["trial_id"]: line for line in journal.of_kind("trial") if line["status"] != "interrupted"}
        self._idle_since: float | None = None
        self._is_over = False
        self.kinds = calibration.Kinds(plan.workload.counts[0])

    @property
    def trials(self) -> Mapping[str, Trial]:
        """All trials made so far, by id."""
        return self.protocol.trials

    @property
    def waits_for_rates(self) -> bool:
        """Whether range tests come first."""
        return bool(self.rates.missing) and not self.stopped

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing more will be handed out."""
        return self.num_running == 0 and (self.is_done or bool(self.stopped))

    def unpriced(self) -> list[UpdateKind]:
        """The kinds of update whose costs a study that is done compares and nobody has measured."""
        if not self.is_done or self.failure:
            return []
        return calibration.unpriced(self.memo, self.plan.workload, self.kinds.to_measure(self.trials.values()))

    def next(self) -> Trial | None:
        """A trial to run now, or None: all are running, held back or done (`is_done`), or rates are to be found first."""
        if self.waits_for_rates:
            if not self.rates.has_next:
                self._note_idleness()
            return None
        while not (self.stopped or self.is_done):
            self._queue(self.protocol.suggest())
            trial = self._line.next()
            if trial is not None:
                self._line.remove(trial)
                if not self._is_recorded(trial):
                    return self._admit(trial)
                self._finish_recalled(trial)
            elif len(self._line) or self.num_running or not self.protocol.is_tuned:
                break
            elif self.protocol.frozen is None:
                self._queue(self.protocol.freeze())
            elif more := self.protocol.next_look():
                self._queue(more)
            else:
                self.is_done = True
        self._note_idleness()
        return None

    def next_test(self) -> RangeTest | None:
        """A range test to run now; None if there is none to run."""
        test = self.rates.next() if self.waits_for_rates else None
        if test is not None:
            self._close_idle()
            self.num_running += 1
        return test

    def tested(self, test: RangeTest, error: str = "") -> None:
        """A range test is over; `error` says why it failed. Once all are, there may be trials.

        Without a rate the study ends: `refusal` says why. Raises StorageError.
        """
        self.num_running -= 1
        try:
            if error:
                raise InputError(Fault(self.rates.place(test), f"the range test failed: {error}"))
            self.rates.take(test)
        except InputError as refusal:
            self.refusal = self.refusal or refusal
            self.stop("a range test found no rate")
        if not self.rates.missing:
            is_decided = self.protocol.is_decided
            self.plan = self.rates.plan
            self.protocol = StudyProtocol(self.plan, self.journal)
            self.protocol.is_decided = is_decided

    def test_returned(self, test: RangeTest) -> None:
        """A range test has lost its worker: it waits again."""
        self.num_running -= 1
        self.rates.returned(test)

    def stepped(self, trial_id: str, records: Iterable[Record]) -> None:
        """Take the records of a running trial's epochs. Repeats after a worker's death are ignored."""
        trial = self.trials[trial_id]
        for record in records:
            self.memo.learn(record)
            self._line.learned(record.lineage)
            if record.kind == "train" and record.epoch == len(trial.records):
                trial.records.append(record)
                self._follow(trial)

    def ended(self, trial_id: str, status: Status, error: str = "", test: Mapping[str, Any] | None = None) -> None:
        """A running trial is over. An interrupted one is not told to its searcher and goes on in another run.

        Args:
            trial_id: The trial, which `next` handed out.
            status: How it ended.
            error: Why it failed or diverged, for people to read.
            test: Loss and metrics on the test part, if the trial has read it; as `train_<name>`, those on the training part.

        Raises:
            StorageError: The journal cannot be written.
        """
        trial = self.trials[trial_id]
        self.num_running -= 1
        trial.status, trial.error, trial.test = status, error, test
        trial.ended_at = time.time()
        self._line.release(trial, trial.names)
        if status != "interrupted":
            self._note(trial)
            self.protocol.tell(trial)

    def returned(self, trial_id: str) -> None:
        """A running trial has lost its worker: it waits again, first in line, and will recall what it has committed."""
        trial = self.trials[trial_id]
        self.num_running -= 1
        self._line.release(trial, trial.names)
        trial.status = "waiting"
        self._line.add(trial, first=True)

    def stop(self, reason: str) -> None:
        """Hand out nothing more."""
        self.stopped = self.stopped or reason

    def fail(self, reason: str) -> None:
        """Stop because going on makes no sense: the storage does not take what is trained."""
        self.failure = self.failure or reason
        self.stop(reason)

    def close(self) -> None:
        """The run ends: running trials count as interrupted, and idle time that is still open is noted."""
        for trial in self.trials.values():
            if trial.status == "running":
                self.ended(trial.trial_id, "interrupted")
        self._close_idle()

    # Holding back

    def _queue(self, trials: Sequence[Trial]) -> None:
        """Let trials wait. The storage is read once; what is new later comes with the workers' results."""
        find = self.memo.find if len(trials) < _MANY else self.memo.finder()
        for trial in trials:
            for record in trial.walk(find):
                self._line.learned(record.lineage)
            for name in trial.spec.features(trial.chain).values():
                if find(name) is not None:
                    self._line.learned(name)
            if trial.arm in self.plan.retired and not self._is_recorded(trial):
                trial.records = self._walked(trial)
                self.protocol.give_up(trial)
            else:
                self._line.add(trial)

    def _missing(self, trial: Trial) -> Sequence[str]:
        """The names of a trial's states that have no record, and of features that these are trained on."""
        walked = self._walked(trial)
        return () if walked and walked[-1].diverged else trial.lacking(len(walked), self.memo.known)

    def _walked(self, trial: Trial) -> list[Record]:
        """The known records of a trial's chain, up to the first one that diverged."""
        return trial.walk(self.memo.known)

    def _is_recorded(self, trial: Trial) -> bool:
        """Whether nothing is left to train, and to read of the test part."""
        if self._missing(trial):
            return False
        records = self._walked(trial)
        if not trial.spec.read_test or records[-1].diverged:
            return True
        noted = self._noted.get(trial.trial_id, {})
        tested = noted.get("tested", noted.get("lineage"))  # earlier versions tested the last state
        return bool(tested == records[trial.spec.selected(records)].lineage and noted["test"])

    # Handing out and finishing

    def _admit(self, trial: Trial) -> Trial:
        self._close_idle()  # the journal first: if it fails, nothing was handed out
        self._line.claim(trial, self._missing(trial))
        trial.spec = with_store_points(trial.spec, self._line.branches(trial))
        trial.status, trial.started_at = "running", time.time()
        self.num_running += 1
        return trial

    def _follow(self, trial: Trial) -> None:
        """A trial leaves its chain: its policy was triggered, or it has reached its target and trains no further.

        It claims what nobody else has claimed of the new one, and trains the rest all the same: a running trial never waits, so
        nothing can deadlock.
        """
        before, names = trial.chain, trial.names
        if trial.records[-1].diverged:
            return
        trial.replan(trial.records)
        if trial.chain is not before:
            self._line.release(trial, names)
            self._line.claim(trial, trial.lacking(len(trial.records), self.memo.known))

    def _finish_recalled(self, trial: Trial) -> None:
        """End a trial that is recorded already; its times and test result are the journal's, if it has them."""
        trial.records = self._walked(trial)
        last = trial.records[-1]
        trial.status = "diverged" if last.diverged else "completed"
        noted = self._noted.get(trial.trial_id, {})
        if (noted.get("status"), noted.get("lineage")) == (trial.status, last.lineage):
            trial.started_at, trial.ended_at, trial.test = noted["started_at"], noted["ended_at"], noted["test"]
        else:
            trial.started_at = trial.ended_at = time.time()
            self._note(trial)
        self.protocol.tell(trial)

    def _note(self, trial: Trial) -> None:
        """Write a trial's end to the journal."""
        lineage = trial.records[-1].lineage if trial.records else ""
        tested = trial.records[trial.selected].lineage if trial.test and trial.selected is not None else None
        self.journal.write(
            "trial", trial_id=trial.trial_id, status=trial.status, error=trial.error, lineage=lineage, tested=tested,
            test=dict(trial.test) if trial.test else None, started_at=trial.started_at, ended_at=trial.ended_at,
        )  # fmt: skip

    # Idle time is measured here: only the driver knows that it had nothing to hand out

    def _note_idleness(self) -> None:
        if not (self.is_done or self.stopped):
            self._idle_since = self._idle_since or time.monotonic()
            return
        self._close_idle()
        if not self.num_running and not self._is_over:
            self._is_over = True
            self.journal.write("done", at=time.monotonic())

    def _close_idle(self) -> None:
        if self._idle_since is not None:
            self.journal.write("idle", start=self._idle_since, end=time.monotonic())
            self._idle_since = None
