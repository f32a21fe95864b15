"""Running a study's trials with Ray Tune on this machine."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lrstudy.ray_tune.local_ray import LocalRay
from lrstudy.ray_tune.slots import Slots
from lrstudy.running.admission import Admission
from lrstudy.running.protocol import Trial
from lrstudy.workload.workload import Workload


def run(
    admission: Admission,
    workload: Workload,
    folder: Path,
    local_ray: LocalRay,
    first: Trial | None,
    board: Slots,
    refresh: Callable[[], None],
) -> None:
    """Run everything that admission hands out, beginning with `first` (None: only costs are left to
    measure), on as many workers as Ray has slots.

    `board` notes who sits on which slot; `refresh` is called several times a second.
    """
    local_ray.begin()
    from ray import tune

    from lrstudy.ray_tune.adapter import AdmissionSearcher, KeepingWorkers, Refresh
    from lrstudy.ray_tune.trainable import TuneTrial

    # Ray is stopped here, before the run notes its end: until then devices count as allocated.
    with local_ray, Interrupts() as interrupts, _scratch() as scratch:

        def turn() -> None:
            interrupts.check()
            refresh()

        gpu = workload.device_share if workload.device == "cuda" else 0
        tuner = tune.Tuner(
            tune.with_resources(TuneTrial, {"cpu": workload.threads, "gpu": gpu}),
            tune_config=tune.TuneConfig(
                search_alg=AdmissionSearcher(admission, workload, str(folder), first, board),
                scheduler=KeepingWorkers(local_ray.slots),
                num_samples=-1,
                max_concurrent_trials=local_ray.slots,
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
        local_ray.wait()
        tuner.fit()


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


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for what Tune insists on writing; nothing in it is needed again."""
    path = Path(tempfile.mkdtemp(prefix="lrstudy-tune-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
