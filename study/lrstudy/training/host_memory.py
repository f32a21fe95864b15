"""Host memory: the process keeps what tensors free, for the tensors of the next update."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_MAX_KEPT_BYTES = 32 * 2**20
"""The largest M_MMAP_THRESHOLD that glibc accepts. Larger tensors are returned to the system. Kept, they would also fit
badly into the gaps that others leave: a loop with blocks of 64 MB held nine of them."""


def keep_freed() -> None:
    """Let glibc keep the blocks of up to 32 MB that this process frees; with another C library, do nothing.

    By default glibc returns them to the system as they are freed. The system then maps and zeroes every page of the next
    blocks again, with a page fault for each 4 KB. How often this happens depends on where a small block happens to lie, so
    that the same epoch took 2.2 s or 3.2 s on one core. See benchmarks/freed_memory.py.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAX_KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
