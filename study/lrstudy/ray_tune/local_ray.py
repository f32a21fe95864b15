"""A Ray cluster on this machine alone, started in the background while there is other work to do."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

from lrstudy.workload.devices import Resources

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # five files per trial, twice the driver's CPU time
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # so that Ctrl-C raises KeyboardInterrupt
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # admission reads results itself
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # a study resumes from its own journal
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a box even when silent
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class LocalRay:
    """A Ray cluster for `num_slots` trials at once, each with these resources; a context manager.

    Entering the context sets Tune's environment variables. That must happen before any thread is started: a program
    started by another thread meanwhile would read freed memory. `begin` starts Ray in the background, `wait` waits until
    it is up, and leaving the context stops it if it was started. Ray is started by a thread that lives until then, since
    the system ends Ray's processes together with the thread that started them. When started from a thread, Ray also does
    not handle SIGTERM, for which it would print a stack and exit with 15.
    """

    def __init__(self, resources: Resources, num_slots: int) -> None:
        self.num_slots, self._resources = num_slots, resources
        self._thread: threading.Thread | None = None
        self._settled, self._leaving = threading.Event(), threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> LocalRay:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        return self

    def __exit__(self, *raised: object) -> None:
        self._leaving.set()
        if self._thread:
            self._thread.join()

    def begin(self) -> None:
        """Start Ray in the background, unless that was done before."""
        if self._thread:
            return
        import ray  # in this thread: two that import modules with circular imports may see half of them

        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the death of a worker is handled elsewhere
        ray._private.worker.print_to_stdstream = _print_nothing
        self._thread = threading.Thread(target=self._live, name="ray", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until Ray is up, starting it now if that was not done. Raises whatever starting it raised."""
        self.begin()
        self._settled.wait()
        if self._error:
            raise self._error

    def _live(self) -> None:
        import ray

        gpus: Mapping[str, Any] = {} if self._resources.device == "cuda" else {"num_gpus": 0}
        try:
            ray.init(
                address="local",
                num_cpus=self.num_slots * self._resources.threads,
                include_dashboard=False,
                logging_level=logging.CRITICAL,
                log_to_driver=False,
                object_store_memory=100 * 2**20,
                **gpus,
            )
        except BaseException as error:
            self._error = error
        self._settled.set()
        self._leaving.wait()
        ray.shutdown()


def _print_nothing(*arguments: Any, **more: Any) -> None:
    """Replaces what Ray prints, a page, about a worker that died; the display says so in five words."""
