"""One run of a study: recall what is recorded, train the rest, and leave journal, tables and lock in order."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from lrstudy import user_code
from lrstudy.config import StudyFile
from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from lrstudy.planning import study_lock
from lrstudy.planning.plan import Plan
from lrstudy.ray_tune.connection import RayConnection
from lrstudy.running import history, retention
from lrstudy.running.admission import Admission
from lrstudy.running.tables import TableWriter
from lrstudy.running.trials import Trial
from lrstudy.storage.place import Storage
from lrstudy.study_folder.journal import Journal
from lrstudy.study_folder.locks import Lock, is_held, lock_of
from lrstudy.study_folder.mirror import Mirror
from lrstudy.study_folder.replace_file import replacing

TABLES_EVERY_S = 5.0
_LIMITS_EVERY_S = 1.0
_PACKAGES = ("lrstudy", "torch", "torchvision", "ray", "hyperopt", "smac", "optuna", "numpy", "pandas", "pyarrow")


class Display(Protocol):
    """Something that shows a run's progress."""

    def start(self, admission: Admission, slots: int) -> None:
        """Training begins on `slots` slots."""

    def refresh(self) -> None:
        """Called several times a second."""

    def stop(self) -> None:
        """Training has ended."""


@dataclass(frozen=True)
class Summary:
    """How a run ended.

    Attributes:
        folder: The study's folder.
        statuses: How many trials there are of each status.
        asked: How many epochs the trials asked for.
        distinct: How many of these are distinct trainings.
        trained: How many distinct epochs this run trained itself.
        recalled: How many of the epochs asked for were recalled instead.
        stopped: Why the run ended early, or "".
        is_complete: Whether every trial of the study has ended.
        notes: What the user should know, a sentence each.
    """

    folder: Path
    statuses: Mapping[str, int]
    asked: int
    distinct: int
    trained: int
    recalled: int
    stopped: str
    is_complete: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunOptions:
    """What a run needs to know in addition to the plan.

    Attributes:
        text: The text of the study file.
        overrides: The ``key=value`` texts of the command line.
        folder: The study's folder; of a study in a bucket, its working copy on this node.
        storage: Where the memo and all studies lie.
        begun: When the user began to wait for the run (monotonic clock); devices count as allocated from then on.
        ray: The Ray to run on.
        is_decided: Whether the tables in the study's folder decide all comparisons, asked between two planned looks;
            without it there are all looks.
        base: The folder that relative paths of the study file start from.
    """

    text: str
    overrides: Sequence[str]
    folder: Path
    storage: Storage
    begun: float
    ray: RayConnection
    is_decided: Callable[[Path], bool] | None = None
    base: Path | None = None

    @cached_property
    def mirror(self) -> Mirror:
        """Brings the study's folder from a bucket, and publishes it there."""
        return Mirror(self.storage, self.folder.name, is_drivers=True)


def run(plan: Plan, options: RunOptions, notes: tuple[str, ...], display: Display | None = None) -> Summary:
    """Run a study to its end.

    Args:
        plan: The plan of the study.
        options: What else the run needs to know.
        notes: Notes on the plan, which become part of the summary.
        display: Shows the progress, if given.

    Returns:
        How the run ended.

    Raises:
        InputError: Another driver is running the study, or a range test finds no rate.
        StorageError: The storage failed.
        KeyboardInterrupt: The user interrupted the run.

    Whatever is raised, everything recorded stays, and tables and lock show it as far as the storage allows.
    """
    lock, mirror = lock_of(options.storage, options.folder.name), options.mirror
    lock.acquire(run=0)
    try:
        mirror.bring()  # once more, now that nobody else writes
        # Study.plan has read the lock too, but before this driver held the study: another may have completed it since.
        if not study_lock.read(options.folder).get("complete"):
            options.ray.begin()  # now, as Ray can start while searchers are imported, which takes seconds as well
        journal = _open_journal(options, lock)
        plan, kept = history.with_what_was_begun(plan, journal)
        memo = Memo(options.storage.memo)
        admission = Admission(plan, memo, journal)
        tables = TableWriter(admission, options.folder, mirror.bring_predictions)
        admission.protocol.is_decided = partial(_is_decided, admission, options, tables)
        _keep_sources(plan, options.folder)
        _describe(admission, options, is_complete=False)
        try:
            first = _within_limits(admission, admission.next())
            if first is not None or admission.waits_for_rates or admission.unpriced():
                _train(admission, options, first, lock, tables, display)
        finally:
            _close(admission, options, tables, lock)
        memo.compact()
        is_running = partial(_is_held, options.storage)
        cleared = retention.clear(admission, options.folder, is_running, mirror.bring_tables)
        return _summary(admission, options.folder, (*notes, *kept, *cleared))
    finally:
        mirror.stop()
        lock.release()


def _is_held(storage: Storage, folder: Path) -> bool:
    return is_held(storage, folder.name)


def _within_limits(admission: Admission, first: Trial | None) -> Trial | None:
    """The trial that was admitted first, unless earlier runs have reached a limit: then it waits for another run."""
    if first is None and not admission.waits_for_rates:
        return None
    _Limits(admission.plan.study, admission.journal).enforce(admission)
    if first is not None and admission.stopped:
        admission.returned(first.trial_id)
        return None
    return first


def _open_journal(options: RunOptions, lock: Lock) -> Journal:
    """Open the journal and begin a new run in it; if the last run was killed, note when."""
    journal = Journal(options.folder / "journal", options.mirror.wrote)
    unfinished = _unfinished_run(journal)
    options.mirror.begin(journal.run + 1)
    journal.open_run(host=platform.node(), pid=os.getpid(), started_at=time.time(), overrides=list(options.overrides))
    if unfinished is not None:
        journal.write("killed", of=unfinished, at=_last_sign_of_life(journal, unfinished, lock.previous))
    return journal


def _train(
    admission: Admission,
    options: RunOptions,
    first: Trial | None,
    lock: Lock,
    tables: TableWriter,
    display: Display | None,
) -> None:
    """Run the trials that are not recorded, beginning with `first`; then measure the costs that are not known."""
    from lrstudy.ray_tune import runner
    from lrstudy.ray_tune.slots import Slots

    workload = admission.plan.workload
    slots = Slots(admission.journal, workload.device, workload.device_share, options.ray.limit)
    slots.sync(options.ray.nodes, options.begun)
    upkeep = _Upkeep(admission, options, lock, tables, display)
    if display:
        display.start(admission, slots.wanted)
    try:
        runner.run(admission, workload, options.mirror.location, options.ray, first, slots, upkeep.refresh)
    finally:
        if display:
            display.stop()
        slots.close(upkeep.refreshed_at)  # if it was interrupted: what workers had not reported by then is lost
    if admission.failure:
        raise StorageError(admission.failure)
    if admission.refusal:
        raise admission.refusal


def _close(admission: Admission, options: RunOptions, tables: TableWriter, lock: Lock) -> None:
    """Write the end of the run into journal, tables and lock; the last two are another driver's if it took over."""
    admission.close()
    if admission.journal.has_slots:
        admission.journal.write("end", at=time.monotonic())
    if not lock.is_taken_over:
        tables.write(time.monotonic())
        tables.write_calibration()
        _describe(admission, options, admission.is_done)
        options.mirror.end()
    admission.journal.close()


def _keep_sources(plan: Plan, folder: Path) -> None:
    """Copy the source of users' policies into the study's folder."""
    try:
        for arm in plan.arms.values():
            for policy in arm.policies if arm.name not in plan.retired else ():
                if user_code.is_reference(policy):
                    user_code.keep(policy, folder / study_lock.SOURCES)
    except OSError as error:
        raise StorageError(f"storage.path: cannot write in {folder}: {error.strerror}.") from error


def _is_decided(admission: Admission, options: RunOptions, tables: TableWriter) -> bool:
    """Whether the look that has just ended decides all comparisons; tables and lock show it first."""
    if options.is_decided is None:
        return False
    tables.write(time.monotonic())
    _describe(admission, options, is_complete=False)
    return options.is_decided(options.folder)


def _describe(admission: Admission, options: RunOptions, is_complete: bool) -> None:
    """Write study.yaml and study.lock.json."""
    versions = {name: version(name) for name in _PACKAGES}
    protocol = admission.protocol
    try:
        lock = study_lock.render(
            admission.plan,
            options.overrides,
            is_complete,
            versions,
            history.deviations(admission.journal),
            {"num_seeds": protocol.num_seeds, "planned_trials": protocol.num_planned},
            options.base,
        )
        for name, text in (("study.yaml", options.text), ("study.lock.json", lock)):
            with replacing(options.folder / name) as fresh:
                fresh.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"storage.path: cannot write in {options.folder}: {error.strerror}.") from error


class _Upkeep:
    """What the driver does while trials run: show progress, enforce limits, keep its lock and refresh the tables."""

    def __init__(
        self, admission: Admission, options: RunOptions, lock: Lock, tables: TableWriter, display: Display | None
    ) -> None:
        self._admission, self._lock, self._tables, self._display = admission, lock, tables, display
        self._options, self._described = options, 0
        self._limits = _Limits(admission.plan.study, admission.journal)
        self.refreshed_at = time.monotonic()
        self._tables_due, self._limits_due = _Every(TABLES_EVERY_S), _Every(_LIMITS_EVERY_S)

    def refresh(self) -> None:
        """Do what is due; called several times a second."""
        self.refreshed_at = time.monotonic()
        if self._display:
            self._display.refresh()
        if self._limits_due.is_due():
            self._limits.enforce(self._admission)
        try:
            self._lock.beat()
            self._options.mirror.check()
            if self._tables_due.is_due():
                self._tables.refresh(time.monotonic())
                self._describe_anew()
        except StorageError as error:
            self._admission.fail(str(error))

    def _describe_anew(self) -> None:
        """Write the lock again once the journal has another freeze or look: it says what is planned, and what deviates."""
        noted = sum(1 for kind in ("frozen", "look") for _ in self._admission.journal.of_kind(kind))
        if noted != self._described:
            _describe(self._admission, self._options, is_complete=False)
            self._described = noted


class _Every:
    """A timer that is due once per period."""

    def __init__(self, period_s: float) -> None:
        self._period_s, self._last = period_s, time.monotonic()

    def is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._period_s:
            return False
        self._last = now
        return True


class _Limits:
    """Stops the admission of trials once all runs of the study together reach a limit; running trials finish."""

    def __init__(self, study: StudyFile, journal: Journal) -> None:
        self._limits, self._journal = study.limits, journal

    def enforce(self, admission: Admission) -> None:
        wall_s, gpu_hours = self._limits.wall_s, self._limits.gpu_hours
        if wall_s is None and gpu_hours is None:
            return
        taken = list(_taken(self._journal))
        begun = {run: min(start for of, start, *_ in taken if of == run) for run, *_ in taken}
        ended = {run: max(end for of, _, end, _ in taken if of == run) for run, *_ in taken}
        if wall_s is not None and sum(ended[run] - begun[run] for run in begun) >= wall_s:
            admission.stop(f"limits.wall ({self._limits.wall}) is reached, all runs of the study together")
        if gpu_hours is not None and sum((end - start) * share for _, start, end, share in taken) >= gpu_hours * 3600:
            admission.stop(f"limits.gpu_hours ({gpu_hours:g}) is reached")


def _taken(journal: Journal) -> Iterator[tuple[int, float, float, float]]:
    """Of every slot of every run: the run, from when until when it was taken (until now, if it still is), and its share.

    A run that was killed lasted until its last sign of life.
    """
    ends = {line["run"]: line["at"] for line in journal.of_kind("end")}
    ends |= {line["of"]: line["at"] for line in journal.of_kind("killed")}
    left = {(line["run"], slot): line["at"] for line in journal.of_kind("left") for slot in line["slots"]}
    for line in journal.of_kind("slots"):
        run, first = line["run"], line.get("first", 0)
        end = ends.get(run, time.monotonic())
        for slot in range(first, first + line["count"]):
            yield run, line["start"], left.get((run, slot), end), line["share"]


def _summary(admission: Admission, folder: Path, notes: tuple[str, ...]) -> Summary:
    trials = [trial for trial in admission.trials.values() if trial.status != "waiting"]
    statuses: dict[str, int] = {}
    for trial in trials:
        statuses[trial.status] = statuses.get(trial.status, 0) + 1
    records = [record for trial in trials for record in trial.records]
    now = (admission.journal.study_id, admission.journal.run)
    trained = {r.lineage for r in records if (r.origin.get("study"), r.origin.get("run")) == now}
    distinct = {record.lineage for record in records}
    return Summary(
        folder, statuses, len(records), len(distinct), len(trained), len(records) - len(trained),
        admission.stopped, admission.is_done, (*notes, *admission.notes),
    )  # fmt: skip


def _unfinished_run(journal: Journal) -> int | None:
    """The number of the last run that allocated devices and did not record its end, or None."""
    started = {line["run"] for line in journal.of_kind("slots")}
    ended = {line["run"] for line in journal.of_kind("end")} | {line["of"] for line in journal.of_kind("killed")}
    return max(started - ended, default=None)


def _last_sign_of_life(journal: Journal, run: int, holder: Mapping[str, Any] | None) -> float:
    """When a killed run was last known to be alive, on its own clock: its last heartbeat or measured span."""
    lines = [line for line in journal.of_kind("spans") if line["run"] == run]
    ends = [start + duration for line in lines if "clock" not in line for start, duration, *_ in line["spans"]]
    ends += [line["heard_at"] for line in lines if "clock" in line]  # its spans are on another clock
    starts = [line["start"] for line in journal.of_kind("slots") if line["run"] == run]
    heartbeat = [holder["heartbeat"]] if holder and "heartbeat" in holder else []
    return float(max([*starts, *ends, *heartbeat]))
