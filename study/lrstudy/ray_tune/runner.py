"""Running a study's trials with Ray Tune."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lrstudy.ray_tune.connection import RayConnection
from lrstudy.ray_tune.slots import Slots
from lrstudy.running import shipping
from lrstudy.running.admission import Admission
from lrstudy.running.trials import Trial
from lrstudy.workload.workload import Workload


def run(
    admission: Admission,
    workload: Workload,
    folder: str,
    connection: RayConnection,
    first: Trial | None,
    slots: Slots,
    refresh: Callable[[], None],
) -> None:
    """Run all trials that admission admits, on as many workers as there are slots.

    Args:
        admission: Decides which trial may run next, and is told how trials go on.
        workload: What the trials train.
        folder: Where the study lies for workers: a path or a URL.
        connection: To Ray, begun or not; left on return.
        first: The trial that was admitted first; None if only costs are left to measure.
        slots: Notes in the journal which worker occupies which slot.
        refresh: Called several times a second.

    Raises:
        ClusterError: If Ray is lost.
        KeyboardInterrupt: If the process is interrupted or terminated.
    """
    connection.begin()
    from ray import tune

    from lrstudy.ray_tune.adapter import MANY, AdmissionSearcher, Events, KeepingWorkers
    from lrstudy.ray_tune.trainable import TuneTrial

    # Leaving the context leaves Ray before the run notes its end, as devices count as allocated until then. Ray that is kept
    # for another workload has no workers by then, and that one's devices count from the same moment.
    with connection.for_a_run(), Interrupts() as interrupts, _scratch() as scratch:

        def on_step() -> None:
            interrupts.check()
            slots.sync(connection.nodes, time.monotonic())
            refresh()

        gpus = workload.device_share if workload.device == "cuda" else 0
        bundle, labels = connection.bundle(gpus, workload.threads)
        shipment = shipping.pack(admission.plan, admission.memo) if connection.has_other_hosts else None
        searcher = AdmissionSearcher(admission, workload, folder, first, slots, shipment)
        tuner = tune.Tuner(
            tune.with_resources(TuneTrial, tune.PlacementGroupFactory([bundle], bundle_label_selector=[labels])),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=KeepingWorkers(),  # type: ignore[no-untyped-call]
                num_samples=-1,
                max_concurrent_trials=MANY,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[Events(on_step, searcher.on_worker)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        connection.wait()
        with connection.watched():
            tuner.fit()


class Interrupts:
    """Within this context, remembers whether the process was interrupted or terminated; for the main thread only.

    Python raises KeyboardInterrupt wherever the interpreter happens to be. In a destructor or in a callback of native code,
    of which Ray has many, the exception is printed and dropped, and the study would go on.
    """

    def __init__(self) -> None:
        self._is_received = False
        self._previous: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler) and threading.current_thread() is threading.main_thread():
                self._previous[number] = handler
                signal.signal(number, self._note)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal was received, and the exception of its handler lost."""
        if self._is_received:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        signal.alarm(0)  # Ray's own handler, which comes first, has the process aborted 3 s after a SIGTERM
        self._is_received = True
        self._previous[number](number, frame)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder for the files that Tune insists on writing; none of them is read again."""
    path = Path(tempfile.mkdtemp(prefix="lrstudy-tune-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
