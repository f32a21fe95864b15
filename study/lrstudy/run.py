"""One run of a study: recall what is recorded, train the rest, and leave journal, tables and lock in order."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from lrstudy import user_code
from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from lrstudy.planning import study_lock
from lrstudy.planning.plan import Plan
from lrstudy.ray_tune.connection import RayConnection
from lrstudy.running import history, limits, retention
from lrstudy.running.admission import Admission
from lrstudy.running.limits import NOTHING, Limits, Taken
from lrstudy.running.tables import TableWriter
from lrstudy.running.trials import Trial
from lrstudy.storage.place import Storage
from lrstudy.study_folder import of_workloads
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
        name: The study's name; of one of several workloads also the workload's, as in ``derm/faces``.
        text: The text of the study file.
        overrides: The ``key=value`` texts of the command line.
        folder: The study's folder; of a study in a bucket, its working copy on this node.
        storage: Where the memo and all studies lie.
        begun: When the user began to wait for the run (monotonic clock); devices count as allocated from then on.
        ray: The Ray to run on.
        is_decided: Whether the tables in the study's folder decide all comparisons, asked between two planned looks;
            without it there are all looks.
        base: The folder that relative paths of the study file start from.
        elsewhere: What the runs of the file's other workloads have taken of its limits.
    """

    name: str
    text: str
    overrides: Sequence[str]
    folder: Path
    storage: Storage
    begun: float
    ray: RayConnection
    is_decided: Callable[[Path], bool] | None = None
    base: Path | None = None
    elsewhere: Taken = NOTHING

    @cached_property
    def mirror(self) -> Mirror:
        """Brings the study's folder from a bucket, and publishes it there."""
        return Mirror(self.storage, self.name, is_drivers=True)


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
    lock, mirror = lock_of(options.storage, options.name), options.mirror
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
            first = _within_limits(admission, admission.next(), options.elsewhere)
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
    return is_held(storage, of_workloads.name(folder))


def _within_limits(admission: Admission, first: Trial | None, elsewhere: Taken) -> Trial | None:
    """The trial that was admitted first, unless earlier runs have reached a limit: then it waits for another run."""
    if first is None and not admission.waits_for_rates:
        return None
    Limits(admission.plan.study, admission.journal, elsewhere).enforce(admission)
    if first is not None and admission.stopped:
        admission.returned(first.trial_id)
        return None
    return first


def _open_journal(options: RunOptions, lock: Lock) -> Journal:
    """Open the journal and begin a new run in it; if the last run was killed, note when."""
    journal = Journal(options.folder / "journal", options.mirror.wrote)
    unfinished = max(limits.unfinished_runs(journal), default=None)
    options.mirror.begin(journal.run + 1)
    journal.open_run(host=platform.node(), pid=os.getpid(), started_at=time.time(), overrides=list(options.overrides))
    if unfinished is not None:
        journal.write("killed", of=unfinished, at=limits.last_sign_of_life(journal, unfinished, lock.previous))
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
        self._limits = Limits(admission.plan.study, admission.journal, options.elsewhere)
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
