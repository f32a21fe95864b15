"""What one trial occupies of a machine, and how many trials fit; all without importing torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lrstudy.config.means import ResourcesConfig
from lrstudy.data.container import num_cores


@dataclass(frozen=True)
class Resources:
    """What one trial occupies.

    Attributes:
        device: ``cuda`` or ``cpu``.
        threads: Number of CPU cores that compute for the trial.
        device_share: Number of devices that the trial occupies: GPUs, or CPU cores where there is none.
    """

    device: str
    threads: int
    device_share: float

    @staticmethod
    def of(config: ResourcesConfig) -> Resources:
        """The resources of one trial on this machine, from the `resources` section of a study file.

        With ``gpu: auto`` that is a whole GPU, until one trial has been measured.
        """
        return Resources.from_gpu(config, has_gpu=num_gpus() > 0)

    @staticmethod
    def from_gpu(config: ResourcesConfig, has_gpu: bool) -> Resources:
        """The resources of one trial where there are GPUs, or where there are none."""
        gpu = config.gpu if isinstance(config.gpu, float) else float(has_gpu)
        return Resources("cuda" if gpu else "cpu", config.cpu, gpu or float(config.cpu))

    @property
    def num_slots(self) -> int:
        """How many trials this machine can run at once, or the container if it has a quota of cores; at least 1."""
        cores = num_cores() // self.threads
        if self.device == "cuda":
            return max(1, min(num_gpus() * int(1 / self.device_share + 1e-9), cores))
        return max(1, cores)


def num_gpus() -> int:
    """How many NVIDIA GPUs this process may use: those of the machine, less what CUDA_VISIBLE_DEVICES hides."""
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    return min(present, len([number for number in visible.split(",") if number.strip() not in ("", "-1")]))
