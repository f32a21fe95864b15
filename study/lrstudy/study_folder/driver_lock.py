"""One driver per study: a lock file with host, process and heartbeat, taken over when its holder is dead."""

from __future__ import annotations

import json
import math
import os
import platform
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from lrstudy.errors import Fault, InputError, StorageError
from lrstudy.study_folder.clock import boot_id
from lrstudy.study_folder.replace_file import replacing

HEARTBEAT_S = 2.0
STALE_S = 60.0
"""A driver on another host counts as dead after this long without a heartbeat."""
TORN_S = 1.0
"""A lock file that stays unreadable for this long was torn by a crash; until then it may be being written."""

_TEXTS = ("token", "host", "boot_id")
_NUMBERS = ("pid", "process_started_at", "boot", "heartbeat", "heartbeat_at")
_MOST_CHARACTERS, _MOST = 300, 1e15


class DriverLock:
    """Holds `<study>/driver.lock` from `acquire` to `release`. `previous` is what a dead holder left, if any."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "driver.lock"
        self._beaten = 0.0
        self._token = ""
        self.previous: dict[str, Any] | None = None

    def acquire(self, run: int) -> None:
        """Take the lock. Raises InputError if a living driver holds it, StorageError if it cannot be written."""
        self._run, self._token = run, uuid.uuid4().hex
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            while not self._create():
                self._clear_dead()
        except OSError as error:
            raise StorageError(f"storage.path: cannot write {self._path}: {error.strerror}.") from error
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """Renew the heartbeat if it is due; cheap enough to be called several times a second.

        Raises StorageError if another driver has taken the study over because the heartbeat had become stale.
        """
        now = time.monotonic()
        if now - self._beaten < HEARTBEAT_S:
            return
        self._beaten = now
        with suppress(OSError):  # a full disk is reported by whatever has to be recorded
            if not self._path.exists():
                self._create()
            if self._is_ours():
                with replacing(self._path, has_one_writer=True) as fresh:
                    fresh.write_bytes(self._content())
                return
        if (holder := self._other()) is not None:
            raise StorageError(
                f"{self._path.parent.name}: another driver (process {holder['pid']} on {holder['host']}) has taken this "
                f"study over, because this one was not heard of for {STALE_S:.0f} s. This run stops; what was recorded is "
                "safe, and the other driver goes on."
            )

    @property
    def is_taken_over(self) -> bool:
        """Whether another driver has taken the study over."""
        return self._other() is not None

    def release(self) -> None:
        """Release the lock, if this driver still holds it."""
        with suppress(OSError):
            if self._is_ours():
                self._path.unlink()

    def _create(self) -> bool:
        """Create the lock file. Returns False if the lock is taken."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, self._content())
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)
        return True

    def _is_ours(self) -> bool:
        holder = _read(self._path)
        return holder is not None and holder.get("token") == self._token

    def _other(self) -> dict[str, Any] | None:
        """The driver that holds the study in place of this one; None if there is none."""
        holder = _read(self._path)
        return holder if holder and holder["token"] != self._token else None

    def _clear_dead(self) -> None:
        """Remove the lock of a dead holder. Raises InputError if the holder is alive."""
        torn_at = time.monotonic() + TORN_S
        while (holder := _read(self._path)) == {} and time.monotonic() < torn_at:
            time.sleep(0.01)  # being written by another driver, or torn by a crash
        if holder is None:
            return
        if holder and _is_alive(holder):
            raise InputError(
                Fault(
                    self._path.parent.name,
                    f"another driver is running this study (process {holder['pid']} on {holder['host']}, last heard "
                    f"of {time.time() - holder['heartbeat_at']:.0f} s ago)",
                    advice="Expected one driver per study: wait for it, stop it, or give this run a name of its own with "
                    "--as NAME.",
                )
            )
        aside = self._path.with_name(f".driver.lock.{os.getpid()}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return  # another driver was faster
        if _read(aside) == holder:
            self.previous = holder
        else:  # another driver was faster and holds the lock now: put it back
            with suppress(FileExistsError):
                os.link(aside, self._path)
        aside.unlink()

    def _content(self) -> bytes:
        return content(self._token, self._run)


def is_held(folder: Path) -> bool:
    """Whether a living driver runs the study in `folder`, as far as its lock tells; a lock that is torn may be one's."""
    holder = _read(folder / "driver.lock")
    return holder is not None and (not holder or _is_alive(holder))


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a lock file: None if there is none, an empty map if it is torn."""
    try:
        return parsed(path.read_bytes())
    except FileNotFoundError:
        return None


def content(token: str, run: int) -> bytes:
    """What a lock says of this process, which holds it now."""
    facts = {
        "token": token,
        "run": run,
        "host": platform.node(),
        "pid": os.getpid(),
        "pid_namespace": _pid_namespace(),
        "boot": psutil.boot_time(),
        "process_started_at": psutil.Process().create_time(),
        "boot_id": boot_id(),
        "heartbeat": time.monotonic(),
        "heartbeat_at": time.time(),
    }
    return json.dumps(facts).encode()


def parsed(data: bytes) -> dict[str, Any]:
    """The content of a lock; an empty map if it is torn, or nothing that a driver has written."""
    try:
        holder = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(holder, dict) or not all(_is_text(holder.get(key)) for key in _TEXTS):
        return {}
    return holder if all(_is_number(holder.get(key)) for key in _NUMBERS) and isinstance(holder["pid"], int) else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_CHARACTERS and (value.isprintable() or not value)


def _is_number(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value < _MOST and math.isfinite(value)  # type: ignore[operator, arg-type]


def is_near(holder: dict[str, Any]) -> bool:
    """Whether a holder's process would be seen from here: same host, same boot, same namespace of process numbers.

    Hosts of containers may share their names, but not the identity of the boot and of the namespace as well.
    """
    here = (platform.node(), boot_id(), _pid_namespace())
    return here == (holder["host"], holder["boot_id"], holder.get("pid_namespace"))


def _is_alive(holder: dict[str, Any]) -> bool:
    if holder["host"] != platform.node():
        return bool(time.time() - holder["heartbeat_at"] < STALE_S)
    return is_process_alive(holder)


def is_process_alive(holder: dict[str, Any]) -> bool:
    """Whether the process of a holder on this host is alive."""
    try:
        process = psutil.Process(holder["pid"])
        return _is_same(process, holder) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, OverflowError, ValueError):
        return False


def _is_same(process: psutil.Process, holder: dict[str, Any]) -> bool:
    """Whether a process is the holder, and not a later one with the same PID.

    Start times are compared as seconds since boot: setting the system clock shifts both times alike.
    """
    after_boot = process.create_time() - psutil.boot_time()
    is_same_start = abs(after_boot - (holder["process_started_at"] - holder["boot"])) < 1.0
    return bool(is_same_start and holder["boot_id"] == boot_id())


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
