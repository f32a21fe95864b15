"""What tensors free stays with the process: no page of it is asked for twice."""

from __future__ import annotations

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
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_large_tensors_are_allocated_from_what_was_freed():
    pages = 20 * 2**24 // 2**16  # of the largest size that a kernel commonly has
    assert faults("returned") >= pages, "else this test could not fail"
    assert faults("kept") < pages // 8
