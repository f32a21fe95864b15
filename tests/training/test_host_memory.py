"""What tensors free stays with the process: no page of it is asked for twice."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from lrstudy.training import host_memory

if sys.argv[1] == "kept":
    host_memory.keep_freed()


def epoch():
    for _ in range(20):
        torch.ones(2**22) * 2


epoch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
epoch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Page faults of an epoch. The threshold that glibc begins with is fixed: it moves, so that at times luck would do."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_large_tensors_are_allocated_from_what_was_freed():
    pages = 20 * 2**24 // 2**16  # of the largest size that a kernel commonly has
    assert faults("returned") >= pages, "else this test could not fail"
    assert faults("kept") < pages // 8
