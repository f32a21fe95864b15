"""A study, from its file to its tables."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lrstudy import run
from lrstudy.config import StudyFile
from lrstudy.errors import Fault, InputError, user_path
from lrstudy.planning import plan, study_lock
from lrstudy.planning.arm_checks import check_against_data
from lrstudy.planning.plan import Plan
from lrstudy.policies.spaces import search_spaces
from lrstudy.ray_tune.cluster import Cluster
from lrstudy.ray_tune.connection import RayConnection
from lrstudy.ray_tune.local_ray import LocalRay
from lrstudy.run import Display, Summary
from lrstudy.training.rehearsal import rehearse
from lrstudy.workload.devices import Resources
from lrstudy.workload.machine import Machine, ThisMachine
from lrstudy.workload.workload import resolve


@dataclass(frozen=True)
class Study:
    """A study file that has been checked.

    Attributes:
        file: The checked study file, overrides included.
        text: Its text, without overrides.
        base: The folder that its relative paths start from.
        overrides: The overrides, as ``key=value`` texts.
        begun: When the user began to wait for the study (monotonic clock).
    """

    file: StudyFile
    text: str
    base: Path
    overrides: tuple[str, ...] = ()
    begun: float = field(default_factory=time.monotonic)

    @staticmethod
    def from_yaml(
        path: str | Path | None = None,
        overrides: Sequence[str] = (),
        name: str | None = None,
        begun: float | None = None,
    ) -> Study:
        """Read and check a study file.

        Args:
            path: The study file; None for the embedded quickstart, whose relative paths start from the current folder.
            overrides: ``a.b=VALUE`` texts that replace values of the file.
            name: Another name for the study.
            begun: When the user began to wait for the study (monotonic clock); by default now.

        Raises:
            InputError: The file cannot be read, or is at fault; every fault is reported.
        """
        source = Path(path) if path is not None else search_spaces() / "studies" / "quickstart.yaml"
        if source.suffix == ".py":
            raise InputError(Fault("study file", f"{source} is Python; what is in it is named as {source}:NAME"))
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise InputError(Fault("study file", f"cannot read {source}: {reason}")) from None
        base = source.resolve().parent if path is not None else Path.cwd()
        named = [*overrides, *([f"name={json.dumps(name)}"] if name else [])]
        begun = time.monotonic() if begun is None else begun
        return Study(plan.read(text, named, base), text, base, tuple(named), begun)

    @staticmethod
    def load(folder: str | Path) -> Tables:
        """The tables of a study that has run. Raises InputError if there is none in `folder`."""
        if not (Path(folder) / "study.lock.json").is_file():
            advice = "A study's folder has its name, below storage.path: runs/NAME." if Path(folder).is_file() else ""
            expected = "the folder of a study (with study.lock.json in it); there is none here"
            raise InputError(Fault(str(folder), expected=expected, advice=advice))
        return Tables(Path(folder))

    @property
    def storage(self) -> Path:
        """The folder of the memo and of all studies."""
        return (self.base / user_path(self.file.storage.path, "storage.path")).resolve()

    @property
    def data_cache(self) -> Path:
        """The folder of decoded data, shared by all studies of the storage."""
        return self.storage / "memo" / "data"

    @property
    def folder(self) -> Path:
        """The study's own folder."""
        return self.storage / self.file.name

    def plan(
        self, before_decoding: Callable[[], None] | None = None, machine: Machine | None = None
    ) -> tuple[Plan, tuple[str, ...]]:
        """Resolve the study against its data and against earlier runs.

        Decodes the data unless that has been done before, and calls `before_decoding` first. `machine` is what trials
        will run on, by default this machine. Returns the plan and notes for the user. Raises InputError, and ClusterError
        if a cluster does not answer.
        """
        machine = machine or ThisMachine()
        lock = study_lock.read(self.folder)
        _require_writable(self.storage)
        workload = resolve(self.file, self.base, self.storage, before_decoding, machine, lock.get("numerics"))
        cohort = lock.get("cohort", plan.default_cohort(self.file))
        outstanding = lock.get(
            "outstanding", plan.default_outstanding(self.file, machine.num_slots(workload.resources))
        )
        seed = lock.get("search_seed", self.file.search.seed)
        fresh = plan.make_plan(self.file, workload, cohort, outstanding, seed, self.base)
        check_against_data(fresh)
        if not lock:
            rehearse(workload)
        return study_lock.reconcile(fresh, lock, self.folder)

    def run(
        self,
        display: Display | None = None,
        slots: int | None = None,
        is_decided: Callable[[Path], bool] | None = None,
        address: str | None = None,
    ) -> Summary:
        """Run the study to its end. Running it again recalls what is recorded and goes on.

        Args:
            display: Shows the progress, if given.
            slots: How many trials run at once; by default as many as fit. On a cluster that grows by itself, how many it
                shall grow to.
            is_decided: Says of the study's folder, between two planned looks, whether its tables decide all comparisons,
                as `lrstudy_reports.is_decided` does; without it there are all looks.
            address: The Ray cluster to run on, ``auto`` or HOST:PORT; by default this machine.

        Raises:
            InputError: The user's mistakes.
            StorageError: The storage fails.
            ClusterError: Ray fails.
            KeyboardInterrupt: The run is interrupted.

        In each case everything recorded stays, and the tables show it.
        """
        if address is not None:
            with Cluster(address, slots) as cluster:
                return self._run_on(cluster, cluster, display, is_decided)
        resources = Resources.of(self.file.resources)
        with LocalRay(resources, slots or resources.num_slots) as local_ray:
            return self._run_on(local_ray, ThisMachine(), display, is_decided)

    def _run_on(
        self,
        ray: RayConnection,
        machine: Machine,
        display: Display | None,
        is_decided: Callable[[Path], bool] | None,
    ) -> Summary:
        resolved, notes = self.plan(before_decoding=ray.begin, machine=machine)
        _require_writable(self.folder)
        options = run.RunOptions(self.text, self.overrides, self.folder, self.storage, self.begun, ray, is_decided)
        return run.run(resolved, options, notes, display)


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
        """One row per span of time on a slot."""
        return pq.read_table(self.folder / "ledger.parquet")

    def lock(self) -> dict[str, Any]:
        """The contents of study.lock.json."""
        return study_lock.read(self.folder)


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise InputError(
            Fault(
                "storage.path",
                f"cannot write in {folder}: {error.strerror}",
                advice="Expected a folder that you may write to.",
            )
        ) from None
