"""A Ray cluster on this machine alone, started in the background while there is other work to do."""

from __future__ import annotations

import atexit
import logging
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any, Self

import psutil

from lrstudy.ray_tune import cluster_token
from lrstudy.ray_tune.connection import RayConnection, job_config
from lrstudy.ray_tune.slots import Node
from lrstudy.workload.devices import Resources

_VITAL = {"raylet": "its node manager, the raylet,", "gcs_server": "its control process, the gcs_server,"}


class LocalRay(RayConnection):
    """A Ray cluster of this machine for at most `num_slots` trials at once, each with these resources; leaving it stops Ray.

    Entering the context also makes the token without which this Ray, whose ports are open to the network, answers nobody.
    """

    def __init__(self, resources: Resources, num_slots: int) -> None:
        super().__init__(limit=num_slots)
        self._resources, self._num_slots = resources, num_slots
        self._nodes = [Node("", platform.node(), num_slots)]
        self._node: Any = None
        self._token: ExitStack | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        if self._token is None:  # a run enters what its study has entered already
            self._token = ExitStack()
            self._token.enter_context(cluster_token.fresh())
        return self

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self._forget_token()

    @property
    def nodes(self) -> list[Node]:
        """This machine."""
        return self._nodes

    @property
    def has_other_hosts(self) -> bool:
        """No: it is this machine alone."""
        return False

    def fit(self, resources: Resources) -> None:
        """Let slots have these resources: fewer trials at once, if they take more than those that Ray was started for."""
        num_slots = self._num_slots
        if resources != self._resources:
            num_slots = min(num_slots, resources.num_slots)
        self.limit = num_slots
        self._nodes = [Node("", platform.node(), num_slots)]

    def bundle(self, gpus: float, cpus: int) -> tuple[dict[str, float], dict[str, str]]:
        """What a worker asks Ray for; this machine has no labels."""
        return {"CPU": cpus, "GPU": gpus}, {}

    def _connect(self) -> None:
        import ray

        gpus: Mapping[str, Any] = {} if self._resources.device == "cuda" else {"num_gpus": 0}
        ray.init(
            address="local",
            num_cpus=self._nodes[0].num_slots * self._resources.threads,
            include_dashboard=False,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            object_store_memory=100 * 2**20,
            job_config=job_config(),
            **gpus,
        )
        self._node = ray._private.worker._global_node

    def _look(self) -> str:
        """Whether one of the two processes has died without which Ray does nothing."""
        dead = {kind: process.poll() for kind, process in self._node.dead_processes()}
        names = [f"{name} ended with {dead[kind]}" for kind, name in _VITAL.items() if kind in dead]
        if not names:
            return ""
        return (
            f"Ray has died on this machine ({' and '.join(names)}): killed by somebody, or by the system for want of memory. "
            "Everything trained so far is recorded; the same command goes on from there."
        )

    def _disconnect(self) -> None:
        import ray

        if self.loss and any(kind == "gcs_server" for kind, _ in self._node.dead_processes()):
            self._abandon()
        else:
            ray.shutdown()

    def _abandon(self) -> None:
        """End what is left of a Ray without gcs_server. `ray.shutdown` would wait for that, a minute, and abort this process."""
        import ray

        atexit.unregister(ray.shutdown)
        agents: list[psutil.Process] = []
        for _, process in self._node.live_processes():
            with suppress(psutil.NoSuchProcess):
                agents += psutil.Process(process.pid).children(recursive=True)
        self._node.kill_all_processes(check_alive=False, allow_graceful=False)
        for agent in agents:
            with suppress(psutil.NoSuchProcess):
                agent.kill()

    def _leave(self) -> None:
        """End this process. All is recorded, as always.

        With a dead gcs_server Ray would end it too, after a minute and without a word of ours.
        """
        self._forget_token()
        self._abandon()
        print(f"lrstudy: {self.loss}", file=sys.stderr, flush=True)
        os._exit(1)

    def _forget_token(self) -> None:
        if self._token is not None:
            self._token.close()
