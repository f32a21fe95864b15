"""A study, from its file to its tables."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lrstudy import arms as arms_module
from lrstudy import config, study_lock
from lrstudy.admission import Admission
from lrstudy.config import StudyFile
from lrstudy.driver_lock import DriverLock
from lrstudy.faults import InputError
from lrstudy.journal import Journal
from lrstudy.memo import Memo, StorageError
from lrstudy.plan import Plan, default_cohort, default_outstanding, make_plan
from lrstudy.policies.spaces import search_spaces
from lrstudy.views import write_tables
from lrstudy.workload import resolve

TABLES_EVERY_S = 5.0
_PACKAGES = ("lrstudy", "torch", "torchvision", "ray", "hyperopt", "smac", "numpy", "pandas", "pyarrow")


class Display(Protocol):
    """Something that shows a run's progress."""

    def start(self, admission: Admission, slots: int) -> None: ...
    def refresh(self) -> None: ...
    def stop(self) -> None: ...


class Silent:
    """No display."""

    def start(self, admission: Admission, slots: int) -> None:
        """Show nothing."""

    def refresh(self) -> None:
        """Show nothing."""

    def stop(self) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Summary:
    """How a run ended. `trained` and `recalled` count epochs of this run; `stopped` says why it ended early."""

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
class Study:
    """A study file, checked, with the folder that its relative paths start from.

    `begun` (monotonic) is when somebody began to wait for it: devices count as allocated from then on.
    """

    file: StudyFile
    text: str
    base: Path
    overrides: tuple[str, ...] = ()
    begun: float = field(default_factory=time.monotonic)

    @staticmethod
    def from_yaml(path: str | Path | None = None, overrides: Sequence[str] = (), name: str | None = None) -> Study:
        """Read a study file, or the embedded quickstart if `path` is None. Raises InputError with every fault."""
        source = Path(path) if path is not None else search_spaces() / "studies" / "quickstart.yaml"
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise InputError(f"study file: cannot read {source}: {reason}.") from None
        base = source.resolve().parent if path is not None else Path.cwd()
        named = [*overrides, *([f"name={json.dumps(name)}"] if name else [])]
        return Study(config.load(text, named), text, base, tuple(named))

    @staticmethod
    def load(folder: str | Path) -> Tables:
        """The tables of a study that has run. Raises InputError if there is none in `folder`."""
        return Tables(_study_folder(Path(folder)))

    @property
    def storage(self) -> Path:
        """Where memo and studies lie."""
        return (self.base / Path(self.file.storage.path).expanduser()).resolve()

    @property
    def folder(self) -> Path:
        """The study's own folder."""
        return self.storage / self.file.name

    def plan(self) -> tuple[Plan, tuple[str, ...]]:
        """Resolve the study against its data and against what ran before; also notes for the user."""
        lock = study_lock.read(self.folder)
        arms_module.resolve(self.file)  # faults of the file before anything is decoded
        workload = resolve(self.file, self.base, self.storage)
        from lrstudy.ray_tune.runner import count_slots

        slots = count_slots(workload.device, workload.share, workload.threads)
        cohort = lock.get("cohort", default_cohort(self.file))
        outstanding = lock.get("outstanding", default_outstanding(self.file, slots))
        plan = make_plan(self.file, workload, cohort, outstanding)
        return study_lock.reconcile(plan, lock, self.folder)

    def run(self, display: Display | None = None, slots: int | None = None) -> Summary:
        """Run the study to its end; running it again recalls what is recorded and goes on.

        Raises InputError for the user's mistakes, StorageError when the storage fails, KeyboardInterrupt
        when interrupted; in each case everything recorded stays, and the tables show it.
        """
        plan, notes = self.plan()
        _make_folder(self.folder)
        lock = DriverLock(self.folder)
        lock.acquire(run=0)
        try:
            return self._run(plan, notes, lock, display or Silent(), slots)
        finally:
            lock.release()

    def _run(
        self, plan: Plan, notes: tuple[str, ...], lock: DriverLock, display: Display, slots: int | None
    ) -> Summary:
        journal = Journal(self.folder / "journal")
        unfinished = _unfinished_run(journal)
        journal.open_run(host=platform.node(), pid=os.getpid(), started_at=time.time(), overrides=list(self.overrides))
        if unfinished is not None:
            journal.write("killed", of=unfinished, at=_last_sign_of_life(journal, unfinished, lock.previous))
        memo = Memo(self.storage / "memo")
        admission = Admission(plan, memo, journal)
        self._describe(plan, is_complete=False)
        try:
            first = admission.next()
            if first is not None:
                self._train(admission, plan, first, lock, display, slots)
        finally:
            admission.close()
            if journal.has_slots:
                journal.write("end", at=time.monotonic())
            is_complete = admission.is_done
            write_tables(admission, self.folder, time.monotonic())
            self._describe(plan, is_complete)
            journal.close()
        memo.compact()
        if self.file.storage.keep_gb is not None:
            memo.evict(_needed_states(admission), int(self.file.storage.keep_gb * 1e9))
        return _summary(self.folder, admission, notes)

    def _train(
        self,
        admission: Admission,
        plan: Plan,
        first: Any,
        lock: DriverLock,
        display: Display,
        slots: int | None,
    ) -> None:
        """Bring up Ray and run what is not recorded."""
        from lrstudy.ray_tune import runner
        from lrstudy.ray_tune.slots import Slots

        workload, journal = plan.workload, admission.journal
        count = slots or runner.count_slots(workload.device, workload.share, workload.threads)
        journal.write(
            "slots",
            count=count,
            start=self.begun,
            share=workload.share,
            device=workload.device,
            host=platform.node(),
        )
        board = Slots(count, journal)
        limits = _Limits(self.file, journal, workload.share)
        tables = _Every(TABLES_EVERY_S)

        def refresh() -> None:
            lock.beat()
            display.refresh()
            limits.enforce(admission)
            if tables.is_due():
                write_tables(admission, self.folder, time.monotonic())

        display.start(admission, count)
        try:
            runner.run(admission, workload, self.folder, count, first, board.observe, refresh)
        finally:
            display.stop()
        if admission.failure:
            raise StorageError(admission.failure)

    def _describe(self, plan: Plan, is_complete: bool) -> None:
        """Write study.yaml and study.lock.json."""
        versions = {name: version(name) for name in _PACKAGES}
        try:
            _replace_text(self.folder / "study.yaml", self.text)
            _replace_text(
                self.folder / "study.lock.json",
                study_lock.render(plan, self.overrides, is_complete, versions),
            )
        except OSError as error:
            raise StorageError(f"storage.path: cannot write in {self.folder}: {error.strerror}.") from error


@dataclass(frozen=True)
class Tables:
    """The tables of a study that has run, as Arrow tables (`.to_pandas()` gives frames)."""

    folder: Path

    def trials(self) -> pa.Table:
        """One row per trial."""
        return pq.read_table(self.folder / "trials.parquet")

    def epochs(self) -> pa.Table:
        """One row per (trial, epoch)."""
        return pq.read_table(self.folder / "epochs.parquet")

    def ledger(self) -> pa.Table:
        """One row per span of a slot."""
        return pq.read_table(self.folder / "ledger.parquet")

    def lock(self) -> dict[str, Any]:
        """What study.lock.json says."""
        return study_lock.read(self.folder)


class _Every:
    """True once every so many seconds."""

    def __init__(self, period_s: float) -> None:
        self._period_s, self._last = period_s, time.monotonic()

    def is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._period_s:
            return False
        self._last = now
        return True


class _Limits:
    """Stops handing out trials once a limit is reached; running trials finish."""

    def __init__(self, study: StudyFile, journal: Journal, share: float) -> None:
        self._limits, self._journal, self._share = study.limits, journal, share
        self._started = time.monotonic()
        self._check = _Every(1.0)

    def enforce(self, admission: Admission) -> None:
        if not self._check.is_due():
            return
        wall, hours = self._limits.wall_s, self._limits.gpu_hours
        if wall is not None and time.monotonic() - self._started > wall:
            admission.stop(f"limits.wall ({self._limits.wall}) is reached")
        if hours is not None:
            spent = sum(
                line["count"] * line["share"] * (self._end(line["run"]) - line["start"])
                for line in self._journal.of_kind("slots")
            )
            if spent > hours * 3600:
                admission.stop(f"limits.gpu_hours ({hours:g}) is reached")

    def _end(self, run: int) -> float:
        ends = [line["at"] for line in self._journal.of_kind("end") if line["run"] == run]
        ends += [line["at"] for line in self._journal.of_kind("killed") if line["of"] == run]
        return ends[0] if ends else time.monotonic()


def _needed_states(admission: Admission) -> set[str]:
    """States that retention keeps: ancestors of unfinished trials and ends of confirmed ones."""
    kept: set[str] = set()
    for trial in admission.trials.values():
        states = [record.state for record in trial.records if record.state]
        if trial.status in ("waiting", "interrupted", "failed"):
            kept.update(states)
        elif trial.phase == "confirm" and states:
            kept.add(states[-1])
    return kept


def _summary(folder: Path, admission: Admission, notes: tuple[str, ...]) -> Summary:
    trials = [trial for trial in admission.trials.values() if trial.status != "waiting"]
    statuses: dict[str, int] = {}
    for trial in trials:
        statuses[trial.status] = statuses.get(trial.status, 0) + 1
    now = (admission.journal.study_id, admission.journal.run)
    trained = {
        record.lineage
        for trial in trials
        for record in trial.records
        if (record.origin.get("study"), record.origin.get("run")) == now
    }
    asked = sum(len(trial.records) for trial in trials)
    distinct = len({record.lineage for trial in trials for record in trial.records})
    return Summary(
        folder,
        statuses,
        asked,
        distinct,
        len(trained),
        asked - len(trained),
        admission.stopped,
        admission.is_done,
        notes,
    )


def _study_folder(folder: Path) -> Path:
    if not (folder / "study.lock.json").is_file():
        raise InputError(f"{folder}: expected the folder of a study (with study.lock.json in it); there is none here.")
    return folder


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"storage.path: cannot write in {folder}: {error.strerror}. Expected a folder that you may write to."
        ) from None


def _replace_text(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def _unfinished_run(journal: Journal) -> int | None:
    """The number of the last run if it allocated devices and never said its end."""
    started = {line["run"] for line in journal.of_kind("slots")}
    ended = {line["run"] for line in journal.of_kind("end")} | {line["of"] for line in journal.of_kind("killed")}
    return max(started - ended, default=None)


def _last_sign_of_life(journal: Journal, run: int, holder: Mapping[str, Any] | None) -> float:
    """When a killed run was last known to live, on its own clock: a heartbeat, or the last measured span."""
    ends = [
        start + duration
        for line in journal.of_kind("spans")
        if line["run"] == run
        for start, duration, *_ in line["spans"]
    ]
    starts = [line["start"] for line in journal.of_kind("slots") if line["run"] == run]
    heartbeat = [holder["heartbeat"]] if holder and "heartbeat" in holder else []
    return float(max([*starts, *ends, *heartbeat]))
