"""What one trial occupies of a machine, and how many fit; found without importing torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lrstudy.config.sections import ResourcesConfig


@dataclass(frozen=True)
class Resources:
    """`device` is ``cuda`` or ``cpu``, `share` the number of devices that a trial occupies: GPUs, or CPU cores where
    there is none. `threads` is how many CPU cores compute for it."""

    device: str
    threads: int
    share: float

    @staticmethod
    def of(config: ResourcesConfig) -> Resources:
        """What a study's `resources` come to on this machine."""
        gpu = config.gpu if config.gpu is not None else float(num_gpus() > 0)
        return Resources("cuda" if gpu else "cpu", config.cpu, gpu or float(config.cpu))

    @property
    def num_slots(self) -> int:
        """How many trials this machine can run at once; at least 1."""
        cores = len(os.sched_getaffinity(0)) // self.threads
        if self.device == "cuda":
            return max(1, min(num_gpus() * int(1 / self.share + 1e-9), cores))
        return max(1, cores)


def num_gpus() -> int:
    """How many NVIDIA GPUs this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return found if visible is None else min(found, len([v for v in visible.split(",") if v.strip() not in ("", "-1")]))
