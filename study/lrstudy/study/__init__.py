"""A study, from its file to its tables."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lrstudy import run
from lrstudy.config import StudyFile
from lrstudy.config.text import located
from lrstudy.config.workloads import ONE_ONLY
from lrstudy.errors import Fault, InputError
from lrstudy.memo.memo import Memo
from lrstudy.planning import plan, study_lock
from lrstudy.planning.arm_checks import check_against_data
from lrstudy.planning.plan import Plan, largest_batch
from lrstudy.policies.spaces import search_spaces
from lrstudy.ray_tune.cluster import Cluster
from lrstudy.ray_tune.connection import RayConnection
from lrstudy.ray_tune.local_ray import LocalRay
from lrstudy.run import Display, Summary
from lrstudy.running.limits import NOTHING, Taken
from lrstudy.storage import probe
from lrstudy.storage.place import Storage, checked_url, is_url
from lrstudy.study_folder.mirror import Mirror
from lrstudy.training.packing import Probe, measure_in_child
from lrstudy.training.rehearsal import rehearse
from lrstudy.training.sharing import MOST_PER_GPU, trials_per_gpu
from lrstudy.workload.devices import Resources
from lrstudy.workload.machine import Machine, ThisMachine
from lrstudy.workload.weights import Weights
from lrstudy.workload.workload import initial_weights, load, resolve, weights_source


@dataclass(frozen=True)
class TrainsOn:
    """What a study is trained on: a connection to Ray, the machine to plan for, and what measures a trial's share of a GPU."""

    ray: RayConnection
    machine: Machine
    measure_gpu: Callable[[Probe], dict[str, int]]


@dataclass(frozen=True)
class Study:
    """A study file that has been checked.

    Attributes:
        file: The checked study file, overrides included.
        text: Its text, without overrides.
        base: The folder that its relative paths start from.
        overrides: The overrides, as ``key=value`` texts.
        begun: When the user began to wait for the study (monotonic clock).
        workload: Which of the file's map of workloads it is of; "" for a file without one.
    """

    file: StudyFile
    text: str
    base: Path
    overrides: tuple[str, ...] = ()
    begun: float = field(default_factory=time.monotonic)
    workload: str = ""

    @staticmethod
    def from_yaml(
        path: str | Path | None = None,
        overrides: Sequence[str] = (),
        name: str | None = None,
        begun: float | None = None,
    ) -> Study:
        """Read and check a study file of one workload.

        Args:
            path: The study file; None for the embedded quickstart, whose relative paths start from the current folder.
            overrides: ``a.b=VALUE`` texts that replace values of the file.
            name: Another name for the study.
            begun: When the user began to wait for the study (monotonic clock); by default now.

        Raises:
            InputError: The file cannot be read, or is at fault; every fault is reported. Or it has a map of workloads, which
                `each` and `lrstudy.study.several` take.
        """
        studies = Study.each(path, overrides, name, begun)
        if studies[0].workload:
            raise InputError(ONE_ONLY)
        return studies[0]

    @staticmethod
    def each(
        path: str | Path | None = None,
        overrides: Sequence[str] = (),
        name: str | None = None,
        begun: float | None = None,
    ) -> tuple[Study, ...]:
        """The study of each workload of a study file with a map of them, in its order; else the file's only study.

        Takes and raises what `from_yaml` does, faults being those of all workloads.
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
        files = plan.read_each(text, named, base)
        return tuple(Study(file, text, base, tuple(named), begun, workload) for workload, file in files.items())

    @staticmethod
    def load(folder: str | Path) -> Tables:
        """The tables of a study that has run, from its folder or the URL of its folder in a bucket.

        Raises InputError if there is none, StorageError if the bucket fails.
        """
        if is_url(folder):
            return _brought(checked_url(str(folder), "study"))
        if not (Path(folder) / "study.lock.json").is_file():
            advice = "A study's folder has its name, below storage.path: runs/NAME." if Path(folder).is_file() else ""
            expected = "the folder of a study (with study.lock.json in it); there is none here"
            raise InputError(Fault(str(folder), expected=expected, advice=advice))
        return Tables(Path(folder))

    @property
    def storage(self) -> Storage:
        """Where the memo and all studies lie."""
        return Storage.of(self.file.storage.path, self.base)

    @property
    def mirror(self) -> Mirror:
        """Brings the study's folder from a bucket, to be looked at."""
        return Mirror(self.storage, self.file.name)

    @property
    def drivers_mirror(self) -> Mirror:
        """Brings the study's folder from a bucket to be worked on, and publishes it there."""
        return Mirror(self.storage, self.file.name, is_drivers=True)

    @property
    def folder(self) -> Path:
        """The study's own folder; of a study in a bucket, this node's copy to be looked at."""
        return self.mirror.folder

    def fetch_weights(self) -> Weights:
        """Bring the weights that training begins with into the storage, downloading them if need be; the data is decoded.

        Raises InputError if they cannot be had or do not fit, StorageError if the storage fails.
        """
        config = self.file.workload
        source = weights_source(config, self.base, self.storage, may_download=True)
        data, parts = load(config.data_spec(self.base), self.storage)
        return initial_weights(source, config, self.base, self.storage, data, parts)

    def plan(
        self,
        before_decoding: Callable[[], None] | None = None,
        machine: Machine | None = None,
        measure_gpu: Callable[[Probe], dict[str, int]] | None = None,
    ) -> tuple[Plan, tuple[str, ...]]:
        """Resolve the study against its data and against earlier runs.

        Decodes the data unless that has been done before, and calls `before_decoding` first. `machine` is what trials
        will run on, by default this machine. `measure_gpu` measures what a trial takes of a GPU, for ``gpu: auto``; without
        it only earlier measurements count, else a trial is planned with a whole one. Returns the plan and notes for the
        user. Raises InputError, and ClusterError if a cluster does not answer.
        """
        machine = machine or ThisMachine()
        if self.storage.is_bucket:
            probe.check(self.storage.location)
            self.mirror.bring()
        lock = study_lock.read(self.folder)
        if not self.storage.is_bucket:
            probe.check(self.storage.location)
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
        if self.file.resources.gpu == "auto" and workload.device == "cuda":
            fresh = self._packed(fresh, machine, measure_gpu)
        return study_lock.reconcile(fresh, lock, self.drivers_mirror.folder)

    def _packed(self, fresh: Plan, machine: Machine, measure_gpu: Callable[[Probe], dict[str, int]] | None) -> Plan:
        """The plan with as many trials on a GPU as fit, by the largest batch of the cohort."""
        memo, workload = Memo(self.storage.memo), fresh.workload
        arm = next(iter(fresh.arms.values()))
        probe = Probe(workload, largest_batch(fresh), fresh.run(arm, arm.space.default()).recipe)
        measured = memo.measurement(probe.path)
        if measured is None and measure_gpu is not None:
            measured = measure_gpu(probe)
            memo.put_measurement(probe.path, measured)
        if measured is None:
            return fresh
        cores, threads = machine.cores_per_gpu(), workload.threads
        number = trials_per_gpu(measured["total_bytes"], measured["tensors_bytes"], cores, threads)
        return replace(fresh, workload=replace(workload, device_share=1 / number))

    def run(
        self,
        display: Display | None = None,
        slots: int | None = None,
        is_decided: Callable[[Path], bool] | None = None,
        address: str | None = None,
        without_token: bool = False,
    ) -> Summary:
        """Run the study to its end. Running it again recalls what is recorded and goes on.

        Args:
            display: Shows the progress, if given.
            slots: How many trials run at once; by default as many as fit. On a cluster that grows by itself, how many it
                shall grow to.
            is_decided: Says of the study's folder, between two planned looks, whether its tables decide all comparisons,
                as `lrstudy_reports.is_decided` does; without it there are all looks.
            address: The Ray cluster to run on, ``auto`` or HOST:PORT; by default this machine.
            without_token: Whether that cluster may be one that asks for no token.

        Raises:
            InputError: The user's mistakes.
            StorageError: The storage fails.
            ClusterError: Ray fails.
            KeyboardInterrupt: The run is interrupted.

        In each case everything recorded stays, and the tables show it.
        """
        with self.connected(slots, address, without_token=without_token) as trains_on:
            return self.run_planned(*self.plan_on(trains_on), trains_on, display, is_decided)

    @contextmanager
    def connected(
        self, slots: int | None = None, address: str | None = None, *, without_token: bool = False
    ) -> Iterator[TrainsOn]:
        """What the study, or those of all workloads of its file, will be trained on; arguments and errors as of `run`."""
        if address is not None:
            with Cluster(address, slots, without_token=without_token) as cluster:
                self._examine(cluster)
                yield TrainsOn(cluster, cluster, cluster.measure_gpu)
            return
        resources = Resources.of(self.file.resources)
        if self.file.resources.gpu == "auto" and resources.device == "cuda":
            resources = replace(
                resources, device_share=1 / MOST_PER_GPU
            )  # what Ray is started for, to be on the safe side
        with LocalRay(resources, slots or resources.num_slots) as local_ray:
            yield TrainsOn(local_ray, ThisMachine(), measure_in_child)

    @contextmanager
    def machine(
        self, address: str | None = None, slots: int | None = None, *, without_token: bool = False
    ) -> Iterator[Machine]:
        """What the trials would run on, to plan for: this machine, or a cluster, as in `run`. Raises as that does."""
        if address is None:
            yield ThisMachine()
            return
        with Cluster(address, slots, without_token=without_token) as cluster:
            cluster.wait()
            yield cluster

    def _examine(self, cluster: Cluster) -> None:
        """Raise InputError, with every fault, unless all nodes have the same versions and share the storage."""
        from lrstudy.doctor.examine import Needs, preflight
        from lrstudy.ray_tune.every_node import every_node

        cluster.wait()
        probe.check(self.storage.location)
        preflight(every_node, Needs(self.storage.location))

    def plan_on(self, trains_on: TrainsOn) -> tuple[Plan, tuple[str, ...]]:
        """The plan for what the study will be trained on, as `plan` gives and raises it; Ray starts while data is decoded."""
        return self.plan(trains_on.ray.begin, trains_on.machine, trains_on.measure_gpu)

    def run_planned(
        self,
        resolved: Plan,
        notes: tuple[str, ...],
        trains_on: TrainsOn,
        display: Display | None = None,
        is_decided: Callable[[Path], bool] | None = None,
        elsewhere: Taken = NOTHING,
    ) -> Summary:
        """Run the study as planned. Raises what `run` does.

        Args:
            resolved: What `plan_on` gave, with `notes`.
            notes: For the summary.
            trains_on: What to train on, as `connected` gives it.
            display: As of `run`.
            is_decided: As of `run`.
            elsewhere: What the runs of the file's other workloads have taken of its limits.
        """
        trains_on.ray.fit(resolved.workload.resources)
        folder = self.drivers_mirror.folder
        _require_writable(folder)
        overrides = located(self.overrides)  # the lock says them to whoever reads it in another folder
        options = run.RunOptions(
            self.file.name,
            self.text,
            overrides,
            folder,
            self.storage,
            self.begun,
            trains_on.ray,
            is_decided,
            self.base,
            elsewhere,
        )
        return run.run(resolved, options, notes, display)


@dataclass(frozen=True)
class Tables:
    """The tables of a study that has run, as Arrow tables (`.to_pandas()` gives frames).

    `mirror` is that of a study in a bucket, whose `folder` is a working copy.
    """

    folder: Path
    mirror: Mirror | None = None

    def trials(self) -> pa.Table:
        """One row per trial."""
        return self._table("trials")

    def epochs(self) -> pa.Table:
        """One row per (trial, epoch)."""
        return self._table("epochs")

    def ledger(self) -> pa.Table:
        """One row per span of time on a slot."""
        return self._table("ledger")

    def _table(self, name: str) -> pa.Table:
        """A table by its name. Raises InputError if its file cannot be read as one."""
        path = self.folder / f"{name}.parquet"
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(Fault(str(path), f"cannot be read as a table ({reason})")) from None

    def lock(self) -> dict[str, Any]:
        """The contents of study.lock.json."""
        return study_lock.read(self.folder)


def _brought(url: str) -> Tables:
    """The tables of the study at a URL, brought to its working copy."""
    location, _, name = url.rpartition("/")
    if not location.partition("://")[2]:
        raise InputError(Fault("study", expected="the URL of a study's folder, such as s3://bucket/runs/NAME", got=url))
    mirror = Mirror(Storage(location), name)
    mirror.bring()
    if not (mirror.folder / "study.lock.json").is_file():
        raise InputError(Fault(url, expected="the folder of a study (with study.lock.json in it); there is none here"))
    return Tables(mirror.folder, mirror)


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
