"""Shares of a GPU: how much memory each trial may use, and the largest number of trials that fit. Without torch."""

from __future__ import annotations

CONTEXT_BYTES = 800 * 2**20
"""Reserved for the CUDA context of every process, which takes some hundreds of megabytes; a margin, not a measurement."""
MOST_PER_GPU = 8
_MARGIN = 1.1
"""Trials may take a tenth more than the one that was measured: other cuDNN algorithms, fragments."""


def allowed_bytes(total_bytes: int, device_share: float) -> int:
    """How much of a GPU's memory torch may allocate in a trial's process."""
    return max(0, int(total_bytes * device_share) - CONTEXT_BYTES)


def trials_per_gpu(total_bytes: int, tensors_bytes: int, cores: int, threads: int) -> int:
    """How many trials may share a GPU; at least 1, even if the one that was measured does not leave the margin.

    Args:
        total_bytes: The GPU's memory.
        tensors_bytes: What torch reserved in the trial that was measured.
        cores: How many CPU cores there are per GPU.
        threads: How many of them a trial occupies.
    """
    fitting = [
        number
        for number in range(1, MOST_PER_GPU + 1)
        if allowed_bytes(total_bytes, 1 / number) >= tensors_bytes * _MARGIN and number * threads <= cores
    ]
    return max(fitting, default=1)
