"""The limits of a container, as the system shows them in files."""

from __future__ import annotations

import os

import pytest

from lrstudy.data import container
from lrstudy.workload.devices import Resources


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """A function that writes a file of limits; the machine itself has 8 cores."""
    monkeypatch.setattr(container, "CGROUP", tmp_path)
    monkeypatch.setattr(container, "OWN_GROUP", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")

    return write


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_memory_of_a_container_counts_as_the_machines(limits, name):
    whole = container.memory_bytes()
    assert whole > 2**20
    limits(name, "max")
    assert container.memory_bytes() == whole
    limits(name, "1048576")
    assert container.memory_bytes() == 2**20


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)],
)
def test_the_quota_of_cores_counts_in_version_2_of_cgroups(limits, quota, cores):
    """A container with a quota of two cores on a machine of 64 ran 64 trials, each at a thirtieth of its speed."""
    limits("cpu.max", quota)
    assert container.num_cores() == cores
    assert Resources("cpu", 1, 1.0).num_slots == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("300000", 3), ("20000", 1)])
def test_the_quota_of_cores_counts_in_version_1_of_cgroups(limits, quota, cores):
    limits("cpu/cpu.cfs_quota_us", quota)
    limits("cpu/cpu.cfs_period_us", "100000")
    assert container.num_cores() == cores
    assert Resources("cpu", 2, 2.0).num_slots == max(1, cores // 2)


def test_without_limits_the_cores_that_the_process_may_run_on_count(limits, monkeypatch):
    assert container.num_cores() == 8
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS has none
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert container.num_cores() == 6


def test_the_limits_of_a_batch_job_count_outside_of_a_container(limits, tmp_path, monkeypatch):
    """A job's limits lie in a group of its own, and in those around it, where no container makes one of them the root."""
    own = tmp_path / "own"
    own.write_text("0::/system.slice/job_7/step_0\n")
    monkeypatch.setattr(container, "OWN_GROUP", own)
    (tmp_path / "system.slice" / "job_7").mkdir(parents=True)
    limits("system.slice/job_7/step_0/cpu.max", "max 100000")
    limits("system.slice/job_7/cpu.max", "300000 100000")
    limits("system.slice/job_7/memory.max", "1048576")
    assert container.num_cores() == 3
    assert container.memory_bytes() == 2**20
