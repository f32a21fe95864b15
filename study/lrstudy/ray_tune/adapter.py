"""What is plugged into Tune: a searcher that asks admission, a scheduler that keeps workers, and a callback.

A trial can be held back in a Tune searcher, as no placement group exists for it yet, but not in a scheduler, which
starts every pending trial anyway.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from lrstudy.errors import StorageError
from lrstudy.memo.records import Record
from lrstudy.ray_tune.slots import Slots
from lrstudy.ray_tune.trainable import Assignment, CalibrationAssignment, RangeTestAssignment
from lrstudy.running.admission import Admission
from lrstudy.running.calibration import UpdateKind
from lrstudy.running.shipping import Shipment
from lrstudy.running.trials import Trial
from lrstudy.workload.workload import Workload

MAX_WORKER_DEATHS = 3
"""A trial whose workers died more often than this has failed. Those that went with their node do not count."""


MANY = 10**6
"""In the place of limits of Tune's on trials and workers: the slots limit them, and they may become more."""


class AdmissionSearcher(Searcher):
    """Suggests to Tune the trials that admission admits.

    When all trials have ended, one worker alone measures what updates of the trials cost. Tune pickles its
    searcher for a way of resuming that is not used here, so the pickle is empty.

    Args:
        admission: Decides which trial may run next, and is told how trials go on.
        workload: What the trials train.
        folder: Where the study lies for workers: a path or a URL.
        first: A trial that was admitted before Ray was started; None if there was none.
        slots: Notes which worker occupies which slot.
        shipment: The user's files for workers on other hosts.
    """

    def __init__(self, admission: Admission, workload: Workload, folder: str, first: Trial | None,
                 slots: Slots, shipment: Shipment | None = None) -> None:  # fmt: skip
        super().__init__(metric="epoch", mode="max")
        self._admission = admission
        self._workload, self._folder = workload, folder
        self._first = first
        self._slots, self._shipment = slots, shipment
        self._ids: dict[str, str] = {}
        self._workers: dict[str, str] = {}
        self._deaths: dict[str, list[str | None]] = {}
        self._tests: dict[str, RangeTestAssignment] = {}
        self._is_calibrated = False
        self._calibrates_since: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """An assignment for a worker; None while no more fit or all are held back, FINISHED when there are no more."""
        if self._admission.num_running - (self._first is not None) >= self._slots.wanted:
            return None
        trial, self._first = self._first, None
        with self._stopping_when_storage_fails():
            trial = trial or self._admission.next()
        if trial is None:
            return self._range_test(trial_id) or (self._calibration() if self._admission.is_over else None)
        self._ids[trial_id] = trial.trial_id
        memo = self._admission.memo.location
        self._slots.hand_out(trial.trial_id)
        return {"assignment": Assignment(trial.spec, trial.arm, self._workload, memo, self._folder, self._shipment)}

    def _range_test(self, trial_id: str) -> dict[str, Any] | None:
        """The assignment to run a range test, if there is one to run."""
        test = None
        with self._stopping_when_storage_fails():
            test = self._admission.next_test()
        if test is None:
            return None
        memo = self._admission.memo.location
        assignment = self._tests[trial_id] = RangeTestAssignment(test, self._workload, memo, self._shipment)
        self._slots.hand_out(assignment.name)
        return {"assignment": assignment}

    def _calibration(self) -> dict[str, Any] | str:
        """The assignment to measure the costs that are not known of the trials' updates, once; then FINISHED."""
        kinds: list[UpdateKind] = []
        if not self._is_calibrated:
            self._is_calibrated = True
            with self._stopping_when_storage_fails():
                kinds = self._admission.unpriced()
        if not kinds:
            self._close_slots()
            return Searcher.FINISHED
        self._calibrates_since = self._slots.hand_out("")
        memo = self._admission.memo.location
        return {"assignment": CalibrationAssignment(tuple(kinds), self._workload, memo, self._shipment)}

    def _close_slots(self) -> None:
        """Nothing more is handed out: from now on the run gives its devices back, unless the calibration is under way."""
        if self._calibrates_since is None:
            with self._stopping_when_storage_fails():
                self._slots.close(time.monotonic())

    def on_worker(self, trial_id: str, worker: str) -> None:
        """A worker begins a trial: note which, as it may die before it has reported anything."""
        self._workers[trial_id] = worker

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take the epochs of a report that is not the last."""
        self._take(self._ids[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take the last report of a trial, or the death of its worker."""
        name = self._ids.get(trial_id)
        if trial_id in self._tests:
            self._end_test(self._tests[trial_id], result, self._workers.get(trial_id))
            return
        if name is None:
            self._end_calibration(result)
            return
        if error or not result:
            self._worker_died(name, self._workers.get(trial_id))
            return
        self._take(name, result)
        with self._stopping_when_storage_fails():
            if "fatal" in result:
                self._admission.fail(result["fatal"])
                self._admission.ended(name, "interrupted")
            else:
                test = dict(result["test"]) if "test" in result else None
                self._admission.ended(name, result["status"], result.get("error", ""), test)

    def _end_test(self, assignment: RangeTestAssignment, result: dict[str, Any] | None, worker: str | None) -> None:
        """Take the report of a range test, or the death of its worker."""
        if not result:
            num_deaths = self._num_deaths(assignment.name, worker)
            if num_deaths <= MAX_WORKER_DEATHS:
                self._admission.test_returned(assignment.test)
                return
            result = {"error": f"its worker died {num_deaths} times"}
        else:
            with self._stopping_when_storage_fails():
                self._slots.observe(result)
        with self._stopping_when_storage_fails():
            if "fatal" in result:
                self._admission.fail(result["fatal"])
            self._admission.tested(assignment.test, result.get("error", "its result was not stored"))

    def _end_calibration(self, result: dict[str, Any] | None) -> None:
        """Take the report of the calibration. If it failed, costs are the medians of what was recorded."""
        with self._stopping_when_storage_fails():
            if result:
                self._slots.observe(result)
            else:
                self._slots.notice_deaths("")
            if self._calibrates_since is not None:  # the others had nothing to do meanwhile
                self._admission.journal.write("idle", start=self._calibrates_since, end=time.monotonic())
        self._calibrates_since = None
        self._close_slots()
        if reason := result["error"] if result else "its worker died":
            self._admission.notes.append(
                f"what updates cost alone on the device could not be measured ({reason}); the report takes the medians of what "
                "was recorded, and the next run tries again."
            )

    def _take(self, name: str, result: dict[str, Any]) -> None:
        with self._stopping_when_storage_fails():
            self._admission.stepped(name, [Record(**record) for record in result["records"]])
        with self._stopping_when_storage_fails():
            self._slots.observe(result)

    def _worker_died(self, name: str, worker: str | None) -> None:
        """Return the trial to admission. Tune's own retry omits trials whose worker dies before it has begun them."""
        num_deaths = self._num_deaths(name, worker)
        with self._stopping_when_storage_fails():
            if num_deaths <= MAX_WORKER_DEATHS:
                self._admission.returned(name)
            else:
                reason = f"its worker died {num_deaths} times: killed for memory, or a crash in native code"
                self._admission.ended(name, "failed", reason)

    def _num_deaths(self, name: str, worker: str | None) -> int:
        """Note the death of a worker; returns how many the trial has had, without those that went with their node."""
        with self._stopping_when_storage_fails():
            self._deaths.setdefault(name, []).append(self._slots.node_of(worker))
            self._slots.notice_deaths(name, worker)
        return sum(not self._slots.has_lost(node) for node in self._deaths[name])

    @contextmanager
    def _stopping_when_storage_fails(self) -> Iterator[None]:
        """End the study if the storage fails within this context.

        Tune would take an exception for one of the trial's and go on, which makes no sense without storage. Each step has
        a context of its own: a trial whose end cannot be noted must still not count as running for ever.
        """
        try:
            yield
        except StorageError as error:
            self._admission.fail(str(error))

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal and the memo hold everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a study is resumed by running it again."""


class Events(Callback):
    """Calls one function several times a second, and another with every trial that begins and the worker that has it.

    Tune pickles callbacks, so the functions are left out of the pickle.
    """

    def __init__(self, refresh: Callable[[], None], on_worker: Callable[[str, str], None]) -> None:
        self._refresh, self._on_worker = refresh, on_worker

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a worker begins a trial, be it new or kept."""
        self._on_worker(trial.trial_id, trial.temporary_state.ray_actor._actor_id.hex())

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called after every step of Tune's loop."""
        self._refresh()


class KeepingWorkers(FIFOScheduler):
    """First in, first out, on a controller that keeps its workers, both those that boot and those without a trial.

    Tune kills a worker when no trial waits for it, although one may come a moment later (when a held trial is released,
    or tuning gives way to confirmation), and a new worker takes seconds to boot. It also kills a booting worker when its
    trial could take a cached one; with trials shorter than a boot this repeats for ever (after one killed worker a study
    used up 10 workers with one slot working: 127 s; with workers kept 82 s). Keeping them is safe: a trial that
    still waits for a place in the cluster, as many do while it grows, takes a cached worker instead.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Patch the controller. The object passed in is a wrapper that loses attributes set on it, so patch what it wraps."""
        controller = getattr(tune_controller, "_tune_controller", tune_controller)
        if "_maybe_reuse_cached_actor" not in vars(controller):
            controller._actor_cache.increase_max(trial.placement_group_factory, by=MANY)
            controller._maybe_reuse_cached_actor = types.MethodType(
                _unless_it_has_one(controller._maybe_reuse_cached_actor), controller
            )
        super().on_trial_add(tune_controller, trial)


def _unless_it_has_one(original: Callable[[Any], bool]) -> Callable[[Any, Any], bool]:
    """`TuneController._maybe_reuse_cached_actor`, which does nothing if the trial has a worker, be it booting or just up.

    A worker that was asked for and has not been given a place yet is none.
    """

    def reuse(controller: Any, trial: Any) -> bool:
        worker = controller._trial_to_actor.get(trial)
        has_one = worker is not None and controller._actor_manager.is_actor_started(worker)
        return not has_one and bool(original(trial))

    return reuse
