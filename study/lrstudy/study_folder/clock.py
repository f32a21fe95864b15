"""Which monotonic clock a process reads: times of two processes compare only if it is the same one."""

from __future__ import annotations

import os
from pathlib import Path


def boot_id() -> str:
    """Which boot of which machine this is; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def identity() -> str:
    """The monotonic clock of this process: the boot, and the time namespace, which may shift the clock."""
    try:
        return f"{boot_id()}/{os.readlink('/proc/self/ns/time')}"
    except OSError:
        return boot_id()
