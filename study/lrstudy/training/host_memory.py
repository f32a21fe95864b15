"""Memory of the host: what tensors free stays with the process, for the tensors of the next update."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed() -> None:
    """Let glibc keep what this process frees, up to the most it ever held; elsewhere nothing happens.

    By default glibc returns large blocks to the system as they are freed, which then gives every page of the next ones
    anew, zeroed: a fault for each 4 KB. How often depends on where a small block happens to lie, so that the same epoch
    took 2.2 s or 3.2 s. See benchmarks/freed_memory.py.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
