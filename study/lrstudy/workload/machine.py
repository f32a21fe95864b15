"""What the trials of a study run on, as far as a plan must know it: this machine, or a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lrstudy.config.means import ResourcesConfig
from lrstudy.data.container import num_cores
from lrstudy.errors import Fault, InputError
from lrstudy.workload import numerics
from lrstudy.workload.devices import Resources, num_gpus


class Machine(Protocol):
    """What trials run on."""

    def resources(self, config: ResourcesConfig) -> Resources:
        """What one trial occupies. Raises InputError if there is no such thing."""

    def num_slots(self, resources: Resources) -> int:
        """How many trials run at once; at least 1."""

    def cores_per_gpu(self) -> int:
        """How many CPU cores there are per GPU."""

    def numerics(self, resources: Resources, cache: Path, earlier: Mapping[str, Any] | None) -> dict[str, object]:
        """The numerics of the devices that will train, as `numerics.measure` returns them.

        Args:
            resources: What one trial occupies.
            cache: A folder of this host that keeps what was measured.
            earlier: The numerics of the study's earlier runs, if there were any: where there are devices of several
                kinds, those that compute like this are chosen.

        Raises:
            RuntimeError: torch cannot use the device.
        """


class ThisMachine:
    """The machine that this process runs on."""

    def resources(self, config: ResourcesConfig) -> Resources:
        """What one trial occupies of it."""
        return Resources.of(config)

    def num_slots(self, resources: Resources) -> int:
        """How many trials it can run at once."""
        return resources.num_slots

    def cores_per_gpu(self) -> int:
        """How many CPU cores there are per GPU."""
        return num_cores() // max(1, num_gpus())

    def numerics(self, resources: Resources, cache: Path, earlier: Mapping[str, Any] | None) -> dict[str, object]:
        """Its numerics, measured in a child process so that torch is not imported here.

        Raises InputError if the study asks for a GPU, and torch can use none here.
        """
        try:
            return numerics.probe(resources.device, resources.threads, cache)
        except RuntimeError as error:
            if resources.device != "cuda":
                raise
            advice = "resources.gpu: 0 trains on CPU cores; --address names a Ray cluster that has GPUs."
            raise InputError(Fault("resources.gpu", str(error), advice=advice)) from error
