"""Memory of the host: what tensors free stays with the process, for the tensors of the next update."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_MOST_KEPT = 32 * 2**20
"""The most that glibc takes for M_MMAP_THRESHOLD. Larger tensors go back to the system; kept, they would also fit badly
into each other's places: a loop with blocks of 64 MB held nine of them."""


def keep_freed() -> None:
    """Let glibc keep the blocks of up to 32 MB that this process frees; elsewhere nothing happens.

    By default glibc returns them to the system as they are freed, which then gives every page of the next ones anew,
    zeroed: a fault for each 4 KB. How often depends on where a small block happens to lie, so that the same epoch
    took 2.2 s or 3.2 s on one core. See benchmarks/freed_memory.py.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MOST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
