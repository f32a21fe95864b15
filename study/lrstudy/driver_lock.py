"""One driver per study: a lock file with host, process and heartbeat, taken over when its holder is dead."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil

from lrstudy.faults import InputError

HEARTBEAT_S = 2.0
STALE_S = 60.0
"""A driver on another host counts as dead after so long without a heartbeat."""


class DriverLock:
    """Holds `<study>/driver.lock` from `acquire` to `release`. `previous` is what a dead holder left, if any."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "driver.lock"
        self._beaten = 0.0
        self.previous: dict[str, Any] | None = None

    def acquire(self, run: int) -> None:
        """Take the lock. Raises InputError if a living driver holds it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                with self._path.open("x", encoding="utf-8") as file:
                    json.dump(self._facts(run), file)
                self._run = run
                return
            except FileExistsError:
                self._clear_dead()

    def beat(self) -> None:
        """Say that the driver is alive; cheap enough to be called all the time."""
        now = time.monotonic()
        if now - self._beaten < HEARTBEAT_S:
            return
        self._beaten = now
        fresh = self._path.with_suffix(".fresh")
        try:
            fresh.write_text(json.dumps(self._facts(self._run)), encoding="utf-8")
            fresh.replace(self._path)
        except OSError:
            pass  # a full disk: whatever has to be recorded says so

    def release(self) -> None:
        """Give the lock back."""
        self._path.unlink(missing_ok=True)

    def _clear_dead(self) -> None:
        try:
            holder = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            holder = {}  # torn by a crash while it was created
        if holder and _is_alive(holder):
            raise InputError(
                f"{self._path.parent.name}: another driver is running this study (process {holder['pid']} on "
                f"{holder['host']}, last heard of {time.time() - holder['heartbeat_at']:.0f} s ago). Expected one driver "
                "per study: wait for it, stop it, or give this run a name of its own with --as NAME."
            )
        aside = self._path.with_name(f"driver.lock.{os.getpid()}")
        try:
            self._path.rename(aside)  # of two that find a dead holder, one succeeds
        except FileNotFoundError:
            return
        aside.unlink()
        self.previous = holder

    def _facts(self, run: int) -> dict[str, Any]:
        return {
            "run": run,
            "host": platform.node(),
            "pid": os.getpid(),
            "process_started_at": psutil.Process().create_time(),
            "boot": psutil.boot_time(),
            "heartbeat": time.monotonic(),
            "heartbeat_at": time.time(),
        }


def _is_alive(holder: dict[str, Any]) -> bool:
    if holder["host"] != platform.node():
        return bool(time.time() - holder["heartbeat_at"] < STALE_S)
    try:
        process = psutil.Process(holder["pid"])
        started = process.create_time()
        is_same = abs(started - float(holder["process_started_at"])) < 1.0
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
