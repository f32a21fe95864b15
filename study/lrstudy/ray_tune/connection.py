"""Being connected to Ray: in the background while there is other work to do, and watched until the end."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from lrstudy.errors import ClusterError, Fault, InputError
from lrstudy.ray_tune.reach import OPTION, reread_environment
from lrstudy.ray_tune.slots import Node
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


class RayConnection(ABC):
    """A connection to Ray; a context manager.

    Entering the context sets Tune's environment variables. That must happen before any thread is started: a program
    started by another thread meanwhile would read freed memory. `begin` connects in the background, `wait` waits until
    that is done, and leaving the context disconnects. A thread of its own does both and lives until then, since the system
    ends Ray's processes together with the thread that started them. When started from a thread, Ray also does not handle
    SIGTERM, for which it would print a stack and exit with 15.

    Attributes:
        limit: The most slots that a run takes; None: all that there are.
        loss: What has been lost of Ray, for the user; empty as long as it lives.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.loss = ""
        self._thread: threading.Thread | None = None
        self._settled, self._leaving = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._watched: int | None = None
        self._interrupting = threading.Lock()
        self._is_kept = False

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within it runs leave the connection open, for those that follow; on leaving it is closed."""
        self._is_kept = True
        try:
            yield
        finally:
            self._is_kept = False
            self.__exit__()

    @contextmanager
    def for_a_run(self) -> Iterator[None]:
        """The connection for one run, which closes it at its end unless it is kept for others."""
        self.__enter__()
        try:
            yield
        except BaseException:
            self.__exit__()
            raise
        if not self._is_kept:
            self.__exit__()

    def __enter__(self) -> Self:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        return self

    def __exit__(self, *raised: object) -> None:
        self._leaving.set()
        if self._thread:
            self._thread.join()

    def begin(self) -> None:
        """Connect in the background, unless that was done before."""
        if self._thread:
            return
        silence_ray()  # in this thread: two that import modules with circular imports may see half of them
        reread_environment()
        self._thread = threading.Thread(target=self._live, name="ray", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until Ray is there, beginning now if that was not done. Raises whatever connecting raised."""
        self.begin()
        self._settled.wait()
        if self._error:
            raise self._error

    @property
    @abstractmethod
    def nodes(self) -> list[Node]:
        """The nodes that workers run on, as they are now; may be asked several times a second."""

    @property
    def has_other_hosts(self) -> bool:
        """Whether workers may run on other hosts than this one."""
        return True

    @abstractmethod
    def fit(self, resources: Resources) -> None:
        """Let slots have these resources; called before the first trial is handed out."""

    @abstractmethod
    def bundle(self, gpus: float, cpus: int) -> tuple[dict[str, float], dict[str, str]]:
        """What a worker asks Ray for, and the labels that its node must have."""

    @abstractmethod
    def _connect(self) -> None:
        """Connect to Ray, or start it. May raise anything."""

    @abstractmethod
    def _look(self) -> str:
        """Called every second: what has been lost of Ray without which it does nothing; else empty."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Leave Ray, whatever is left of it."""

    @abstractmethod
    def _leave(self) -> None:
        """End this process, whose main thread waits in Ray's own code, which no exception reaches."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, this thread is interrupted if Ray is lost, which Tune waits for for ever.

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
        try:
            self._connect()
        except BaseException as error:
            self._error = error
        self._settled.set()
        lost_at = 0.0
        while not self._leaving.wait(_WATCH_EVERY_S):
            if not self._error and not self.loss and (loss := self._look()):
                self.loss, lost_at = loss, time.monotonic()
            if self.loss:
                self._interrupt_watched()
                if self._watched is not None and time.monotonic() - lost_at > _PATIENCE_S:
                    self._leave()
        self._disconnect()

    def _interrupt_watched(self) -> None:
        """Interrupt the thread that waits for Ray; again and again, as Tune waits anew while it cleans up."""
        with self._interrupting:
            if self._watched is not None:
                _interrupt(self._watched, KeyboardInterrupt)


def _interrupt(thread: int, exception: type[BaseException] | None) -> None:
    """Let an exception be raised in another thread at its next instruction; None takes one back that is still to come.

    Unlike a signal this reaches any thread, and also a process that was started in the background, where SIGINT is ignored.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception and ctypes.py_object(exception))


def join(address: str) -> None:
    """Connect this process to the Ray cluster at HOST:PORT, which `reach` has reached; no Ray is ever started.

    Raises InputError if Ray or Python have other versions here than in the cluster, and ClusterError if Ray refuses for
    another reason.
    """
    import ray

    silence_ray()
    try:
        ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False, job_config=job_config())
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise _refused(address, error) from None


def _refused(address: str, error: Exception) -> Exception:
    """What to raise of a cluster that answers, but that Ray does not connect to."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        advice = "Install the versions of the cluster here, or start its nodes from this environment."
        return InputError(
            Fault(OPTION, f"the Ray cluster at {address} is of another version. {text[:400]}", advice=advice)
        )
    return ClusterError(f"{OPTION}: Ray cannot connect to the cluster at {address}: {text[:400]}")


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
