"""What the process may use of its machine: all of it, or as much as the container's limits allow. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
"""Where the system shows the limits: one folder for all of them in version 2 of cgroups, one for each kind in version 1."""
OWN_GROUP = Path("/proc/self/cgroup")
"""Where a process outside of a container, such as one in a batch job, finds the group of version 2 that limits it."""


def memory_bytes() -> int:
    """How much memory this process may use, in bytes: that of the machine, or the container's limit if it is lower."""
    limits = [psutil.virtual_memory().total]
    names = [*_of_all_groups("memory.max"), "memory/memory.limit_in_bytes"]
    limits += [limit for name in names for limit in _numbers(name)[:1]]
    return min(limits)


def num_cores() -> int:
    """How many cores this process may use, at least 1: those it may run on, or the container's quota if it is lower.

    Of a quota such as 2.5 cores two count: with a third thread, all three would be stopped again and again.
    """
    cores = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]  # none on macOS
    cores += [quota // period for quota, period in _quotas()]
    return max(1, min(cores))


def _quotas() -> Iterator[list[int]]:
    """The container's quotas: so many microseconds of computing in a period of so many; those without limit are left out."""
    quota, period = _numbers("cpu/cpu.cfs_quota_us"), _numbers("cpu/cpu.cfs_period_us")
    groups = [_numbers(name) for name in _of_all_groups("cpu.max")]
    yield from (found for found in (*groups, quota + period) if len(found) == 2)


def _of_all_groups(name: str) -> Iterator[str]:
    """A file of limits of this process's group and of all groups around it, in version 2 of cgroups."""
    try:
        lines = OWN_GROUP.read_text().splitlines()
    except OSError:
        lines = []
    group = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")
    parts = [part for part in group.split("/") if part and part != ".."]
    for depth in range(len(parts), -1, -1):
        yield "/".join([*parts[:depth], name])


def _numbers(name: str) -> list[int]:
    """The whole numbers above zero in a file of limits; none where there is no such file, or no limit (`max`, -1)."""
    try:
        words = (CGROUP / name).read_text().split()
    except OSError:
        return []
    return [int(word) for word in words] if all(word.isdigit() for word in words) else []
