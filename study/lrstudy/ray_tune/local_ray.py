"""A Ray cluster on this machine alone, started in the background while there is other work to do."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psutil

from lrstudy.errors import ClusterError
from lrstudy.ray_tune import cluster_token
from lrstudy.ray_tune.reach import reread_environment
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
    "PYTHONSAFEPATH": "1",  # whatever workers start, such as torch's compilers, imports nothing from the current folder
}

_WATCH_EVERY_S = 1.0
_PATIENCE_S = 10.0
"""How long a thread may take to leave after Ray has died."""
_VITAL = {"raylet": "its node manager, the raylet,", "gcs_server": "its control process, the gcs_server,"}


class LocalRay:
    """A Ray cluster for `num_slots` trials at once, each with these resources; a context manager.

    Entering the context sets Tune's environment variables, and makes the token without which this Ray, whose ports are open
    to the network, answers nobody. That must happen before any thread is started: a program
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
        self._watched: int | None = None
        self._interrupting = threading.Lock()
        self._token: ExitStack | None = None
        self.loss = ""

    def __enter__(self) -> LocalRay:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self._token is None:  # a run enters what its study has entered already
            self._token = ExitStack()
            self._token.enter_context(cluster_token.fresh())
        return self

    def __exit__(self, *raised: object) -> None:
        self._leaving.set()
        if self._thread:
            self._thread.join()
        self._forget_token()

    def begin(self) -> None:
        """Start Ray in the background, unless that was done before."""
        if self._thread:
            return
        silence_ray()  # in this thread: two that import modules with circular imports may see half of them
        reread_environment()
        self._thread = threading.Thread(target=self._live, name="ray", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until Ray is up, starting it now if that was not done. Raises whatever starting it raised."""
        self.begin()
        self._settled.wait()
        if self._error:
            raise self._error

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, this thread is interrupted if Ray's own processes die, which Tune waits for for ever.

        Raises ClusterError then.
        """
        self._watched = threading.get_ident()
        try:
            yield
        except KeyboardInterrupt:
            if not self.loss:
                raise
        finally:
            with self._interrupting:
                _interrupt(self._watched, None)
                self._watched = None
        if self.loss:
            raise ClusterError(self.loss)

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
                job_config=job_config(),
                **gpus,
            )
        except BaseException as error:
            self._error = error
        self._settled.set()
        node: Any = ray._private.worker._global_node
        lost_at = 0.0
        while not self._leaving.wait(_WATCH_EVERY_S):
            if node is not None and not self.loss and (loss := _loss(node)):
                self.loss, lost_at = loss, time.monotonic()
            if self.loss:
                self._interrupt_watched()
                if self._watched is not None and time.monotonic() - lost_at > _PATIENCE_S:
                    self._forget_token()
                    _leave(node, self.loss)
        if self.loss and _is_dead(node, "gcs_server"):
            _abandon(node)
        else:
            ray.shutdown()

    def _forget_token(self) -> None:
        if self._token is not None:
            self._token.close()

    def _interrupt_watched(self) -> None:
        """Interrupt the thread that waits for Ray; again and again, as Tune waits anew while it cleans up."""
        with self._interrupting:
            if self._watched is not None:
                _interrupt(self._watched, KeyboardInterrupt)


def _loss(node: Any) -> str:
    """What has been lost, for the user, if one of the two processes without which Ray does nothing has died; else empty."""
    dead = {kind: process.poll() for kind, process in node.dead_processes()}
    names = [f"{name} ended with {dead[kind]}" for kind, name in _VITAL.items() if kind in dead]
    if not names:
        return ""
    return (
        f"Ray has died on this machine ({' and '.join(names)}): killed by somebody, or by the system for want of memory. "
        "Everything trained so far is recorded; the same command goes on from there."
    )


def _abandon(node: Any) -> None:
    """End what is left of a Ray without gcs_server. `ray.shutdown` would wait for that, a minute, and abort this process."""
    import ray

    atexit.unregister(ray.shutdown)
    agents: list[psutil.Process] = []
    for _, process in node.live_processes():
        with suppress(psutil.NoSuchProcess):
            agents += psutil.Process(process.pid).children(recursive=True)
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    for agent in agents:
        with suppress(psutil.NoSuchProcess):
            agent.kill()


def _leave(node: Any, loss: str) -> None:
    """End this process, whose main thread waits in Ray's own code, which no exception reaches. All is recorded, as always.

    With a dead gcs_server Ray would end it too, after a minute and without a word of ours.
    """
    _abandon(node)
    print(f"lrstudy: {loss}", file=sys.stderr, flush=True)
    os._exit(1)


def _is_dead(node: Any, kind: str) -> bool:
    return any(kind == dead for dead, _ in node.dead_processes())


def _interrupt(thread: int, exception: type[BaseException] | None) -> None:
    """Let an exception be raised in another thread at its next instruction; None takes one back that is still to come.

    Unlike a signal this reaches any thread, and also a process that was started in the background, where SIGINT is ignored.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception and ctypes.py_object(exception))


def silence_ray() -> None:
    """Let Ray print and log nothing in this process: the death of a worker is handled, and told, elsewhere. Imports Ray."""
    import ray

    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ray._private.worker.print_to_stdstream = _print_nothing


def job_config() -> Any:
    """A job whose workers import from where this process does. Ray would put the current folder first on their path."""
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = _Unchanging()
    return config


class _Unchanging(list[str]):
    """An empty list that `ray.init` cannot extend."""

    def extend(self, items: Iterable[str], /) -> None:
        """Do nothing."""


def _print_nothing(*arguments: Any, **more: Any) -> None:
    """Replaces what Ray prints, a page, about a worker that died; the display says so in five words."""
