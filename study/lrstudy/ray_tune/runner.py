"""Running a study's trials with Ray Tune on this machine."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lrstudy.admission import Admission
from lrstudy.protocol import Trial
from lrstudy.ray_tune.slots import Slots
from lrstudy.workload import Workload

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # five files per trial, twice the driver's CPU time
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches us as KeyboardInterrupt
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # admission reads results itself
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # we resume from our own journal
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a box even when silent
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def run(
    admission: Admission,
    workload: Workload,
    folder: Path,
    slots: int,
    first: Trial | None,
    board: Slots,
    refresh: Callable[[], None],
) -> None:
    """Run everything that admission hands out, beginning with `first` (None: only costs are left to
    measure), on `slots` workers.

    `board` notes who sits on which slot; `refresh` is called several times a second.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    import ray
    from ray import tune

    from lrstudy.ray_tune.adapter import AdmissionSearcher, KeepingWorkers, Refresh
    from lrstudy.ray_tune.trainable import TuneTrial

    with _ray(ray, workload, slots), Interrupts() as interrupts, _scratch() as scratch:

        def turn() -> None:
            interrupts.check()
            refresh()

        gpu = workload.share if workload.device == "cuda" else 0
        tuner = tune.Tuner(
            tune.with_resources(TuneTrial, {"cpu": workload.threads, "gpu": gpu}),
            tune_config=tune.TuneConfig(
                search_alg=AdmissionSearcher(admission, workload, str(folder), first, board),
                scheduler=KeepingWorkers(slots),
                num_samples=-1,
                max_concurrent_trials=slots,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[Refresh(turn)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        tuner.fit()


@contextmanager
def _ray(ray: Any, workload: Workload, slots: int) -> Iterator[None]:
    """A Ray of our own on this machine, shut down at the end; its logs stay in its own folder."""
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the death of a worker is our business, and handled
    gpus: Mapping[str, Any] = {} if workload.device == "cuda" else {"num_gpus": 0}
    ray._private.worker.print_to_stdstream = _say_nothing
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(
        address="local",
        num_cpus=max(slots * workload.threads, 1),
        include_dashboard=False,
        logging_level=logging.CRITICAL,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        **gpus,
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts one in its place that prints a stack and exits with 15
    try:
        yield
    finally:
        ray.shutdown()


class Interrupts:
    """Remembers that the process was interrupted or terminated, within the context and in the main thread.

    Python raises KeyboardInterrupt wherever the interpreter is; in a destructor or a callback of native code, of which Ray
    has many, it is printed and forgotten, and the study would go on.
    """

    def __init__(self) -> None:
        self._received = False
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if callable(before) and threading.current_thread() is threading.main_thread():
                self._before[number] = before
                signal.signal(number, self._note)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came and whatever it raised was lost."""
        if self._received:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = True
        self._before[number](number, frame)


def _say_nothing(*arguments: Any, **more: Any) -> None:
    """In place of what Ray prints about workers that died: the display says so in five words, not in a page."""


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for what Tune insists on writing; nothing in it is needed again."""
    path = Path(tempfile.mkdtemp(prefix="lrstudy-tune-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
