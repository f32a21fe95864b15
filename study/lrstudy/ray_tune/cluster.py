"""A Ray cluster that somebody has started: its nodes as they come and go, and the kind of device that trials stay on."""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrstudy.config.means import ResourcesConfig
from lrstudy.errors import ClusterError, Fault, InputError
from lrstudy.ray_tune.connection import RayConnection, join
from lrstudy.ray_tune.reach import reach
from lrstudy.ray_tune.slots import Node
from lrstudy.settings import canonical_json
from lrstudy.training import packing
from lrstudy.training.packing import Probe
from lrstudy.workload.devices import Resources

_LOST_AFTER_S = 15.0
"""A cluster whose control process has not answered for so long is lost. Ray itself ends this process after 60 s."""
_ASK_TIMEOUT_S = 2.0
_MEASURE_TIMEOUT_S = 300.0
_GROW_TIMEOUT_S = 1800.0
"""How long a growing cluster may take to bring the first node with a GPU."""
_TYPE, _NODE_ID = "ray.io/accelerator-type", "ray.io/node-id"
"""Labels that Ray gives every node."""


@dataclass(frozen=True)
class _Found:
    """A living node: what Ray says of it."""

    node_id: str
    host: str
    resources: Mapping[str, float]
    accelerator: str

    def fits(self, resources: Resources) -> int:
        """How many trials run on it at once."""
        by_cpu = int(self.resources.get("CPU", 0.0)) // resources.threads
        if resources.device == "cpu":
            return by_cpu
        return min(by_cpu, int(self.resources.get("GPU", 0.0)) * int(1 / resources.device_share + 1e-9))


class Cluster(RayConnection):
    """An existing Ray cluster. Leaving it disconnects; its processes are somebody else's.

    Args:
        address: ``auto`` for the cluster that this host is a node of, or HOST:PORT.
        limit: The most trials at once. On a cluster that grows by itself, those that it shall grow to.
        without_token: The user accepts that the cluster asks for no token.
    """

    def __init__(self, address: str, limit: int | None = None, *, without_token: bool = False) -> None:
        super().__init__(limit)
        self._address, self._without_token = address, without_token
        self._found: tuple[_Found, ...] = ()
        self._answered = 0.0
        self._resources: Resources | None = None
        self._labels: dict[str, str] = {}

    # What trials run on

    def resources(self, config: ResourcesConfig) -> Resources:
        """What one trial occupies: a GPU, or what the study says, if the cluster has any; else CPU cores.

        Raises InputError if the study asks for a GPU and no node has one, or none of the kind that it names.
        """
        self.wait()
        has_gpu = any(node.resources.get("GPU") for node in self._found)
        asked = Resources.from_gpu(config, has_gpu or (config.gpu == "auto" and self.limit is not None))
        gpu = asked.device == "cuda"
        if gpu and not has_gpu and self.limit is None:
            raise InputError(_no_gpu(self._address, self._found))
        kinds = sorted({node.accelerator for node in self._found if node.accelerator})
        if config.accelerator and self.limit is None and config.accelerator not in kinds:
            place, got = "resources.accelerator", ", ".join(kinds) or "none whose kind Ray knows"
            raise InputError(
                Fault(place, expected=f"GPUs of the kind {config.accelerator}", got=got, valid=tuple(kinds))
            )
        if gpu and config.accelerator:
            self._labels = {_TYPE: config.accelerator}
        self._resources = asked
        if not self.limit and not any(node.fits(asked) for node in self._found):
            raise InputError(_too_small(asked, self._found))
        return asked

    def num_slots(self, resources: Resources) -> int:
        """How many trials the nodes of the chosen kind run at once, or as many as they may become."""
        return self.limit or max(1, sum(node.num_slots for node in self.nodes))

    def numerics(self, resources: Resources, cache: Path, earlier: Mapping[str, Any] | None) -> dict[str, object]:
        """The numerics of the kind of device that all trials of the study run on; from now on `nodes` are those with it.

        That is the kind that the study names; else that of its earlier runs, as long as there are such devices; else the
        one with room for most trials. Raises ClusterError if a device cannot be had or measured.
        """
        if resources.device == "cuda":
            return self._numerics_of_gpus(resources, earlier)
        return self._numerics_of_cpus(resources, earlier)

    def _numerics_of_gpus(self, resources: Resources, earlier: Mapping[str, Any] | None) -> dict[str, object]:
        """Measure one GPU of each kind that Ray tells apart, until one suits."""
        room: dict[str, int] = {}
        for node in self._found:
            if node.fits(resources):
                room[node.accelerator] = room.get(node.accelerator, 0) + node.fits(resources)
        chosen = self._labels.get(_TYPE)
        kinds = [chosen] if chosen else sorted(room, key=lambda kind: (-room[kind], kind)) or [""]
        measured: dict[str, dict[str, object]] = {}
        for kind in kinds:
            measured[kind] = self._measure(resources, {_TYPE: kind} if kind else {})
            if earlier is None or _alike(measured[kind], earlier):
                break
        kind = next((kind for kind in measured if earlier and _alike(measured[kind], earlier)), kinds[0])
        name = kind or self._name_of(str(measured[kind]["device_model"]))
        self._labels = {_TYPE: name} if name else {}
        return measured[kind]

    def _name_of(self, device_model: str) -> str:
        """What Ray calls the kind of a GPU that has just been measured, on a node that may have come for that."""
        self._look()
        kinds = {node.accelerator for node in self._found if node.accelerator.lower() in device_model.lower()}
        return max(kinds, key=len, default="")

    def _numerics_of_cpus(self, resources: Resources, earlier: Mapping[str, Any] | None) -> dict[str, object]:
        """Measure every node, as Ray tells no kinds of CPU apart."""
        kinds: dict[bytes, list[_Found]] = {}
        measured: dict[bytes, dict[str, object]] = {}
        fit = [node for node in self._found if node.fits(resources)]
        asked = [self._ask(resources, {_NODE_ID: node.node_id}) for node in fit]
        for node, task in zip(fit, asked, strict=True):
            numerics = self._answer(task, resources)
            kinds.setdefault(canonical_json(numerics), []).append(node)
            measured[canonical_json(numerics)] = numerics
        if not kinds:
            return self._measure(resources, {})
        same = [kind for kind in kinds if earlier and _alike(measured[kind], earlier)]
        kind = max(same or kinds, key=lambda kind: sum(node.fits(resources) for node in kinds[kind]))
        if len(kinds) > 1:
            self._labels = {_NODE_ID: f"in({','.join(node.node_id for node in kinds[kind])})"}
        return measured[kind]

    def cores_per_gpu(self) -> int:
        """How many CPU cores the nodes of the chosen kind have per GPU, at the least."""
        rich = [node.resources for node in self._found if node.resources.get("GPU") and self._is_chosen(node)]
        return min((int(has.get("CPU", 0.0) // has["GPU"]) for has in rich), default=1)

    def measure_gpu(self, probe: Probe) -> dict[str, int]:
        """What one trial takes of a GPU of the chosen kind, measured by a worker that has a whole one."""
        import ray

        resources = probe.workload.resources
        task: Any = ray.remote(max_calls=1, max_retries=3)(packing.measure)
        asked = task.options(num_cpus=resources.threads, num_gpus=1, label_selector=self._labels)
        return self._answer(asked.remote(probe), resources)

    def fit(self, resources: Resources) -> None:
        """Let slots have these resources."""
        self._resources = resources

    def _measure(self, resources: Resources, labels: Mapping[str, str]) -> dict[str, object]:
        """The numerics of a process with these resources on a node with these labels. Raises ClusterError."""
        return self._answer(self._ask(resources, labels), resources)

    def _ask(self, resources: Resources, labels: Mapping[str, str]) -> Any:
        """Begin to measure; returns what `_answer` waits for."""
        import ray

        task: Any = ray.remote(max_calls=1, max_retries=3)(_numerics)  # a process of its own: torch takes memory
        gpus = resources.device_share if resources.device == "cuda" else 0
        asked = task.options(num_cpus=resources.threads, num_gpus=gpus, label_selector=dict(labels))
        return asked.remote(resources.device, resources.threads)

    def _answer(self, asked: Any, resources: Resources) -> dict[str, Any]:
        import ray

        is_growing = self.limit is not None and resources.device == "cuda"
        gpus = f"{resources.device_share:g} GPU and " if resources.device == "cuda" else ""
        what = f"{gpus}{resources.threads} CPU"
        try:
            measured: dict[str, Any] = ray.get(asked, timeout=_GROW_TIMEOUT_S if is_growing else _MEASURE_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(asked, force=True)
            raise ClusterError(
                f"No node of the cluster has given {what} to a first task: all may be taken by other jobs, or no node came. "
                "`ray status` says what waits. Nothing was spent; the same command tries again."
            ) from None
        except ray.exceptions.RayError as error:
            reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            raise ClusterError(f"A first task with {what} failed on the cluster: {reason}.") from error
        return measured

    @property
    def nodes(self) -> list[Node]:
        """The living nodes of the chosen kind with room for a trial."""
        assert self._resources is not None, "resources come first"
        return [
            Node(node.node_id, node.host, fits)
            for node in self._found
            if (fits := node.fits(self._resources)) and self._is_chosen(node)
        ]

    def _is_chosen(self, node: _Found) -> bool:
        if _TYPE in self._labels:
            return node.accelerator == self._labels[_TYPE]
        return _NODE_ID not in self._labels or node.node_id in self._labels[_NODE_ID]

    def bundle(self, gpus: float, cpus: int) -> tuple[dict[str, float], dict[str, str]]:
        """What a worker asks Ray for, and the labels of the kind of node that it runs on."""
        return {"CPU": cpus, "GPU": gpus}, self._labels

    # The connection

    def begin(self) -> None:
        """Reach the cluster and connect in the background, unless that was done before. Raises InputError."""
        if not self._thread:
            self._address = reach(self._address, without_token=self._without_token)
        super().begin()

    def _connect(self) -> None:
        join(self._address)
        self._answered = time.monotonic()
        if reason := self._look():
            raise ClusterError(reason)

    def _look(self) -> str:
        """Whether the cluster still answers, and this host is still part of it; notes which nodes it has."""
        import ray

        worker: Any = ray._private.worker.global_worker
        try:
            infos = worker.gcs_client.get_all_node_info(timeout=_ASK_TIMEOUT_S)
        except Exception:
            silent_s = time.monotonic() - self._answered
            if silent_s < _LOST_AFTER_S:
                return ""
            return (
                f"The Ray cluster at {self._address} has not answered for {silent_s:.0f} s: its head is lost. {_GO_ON}"
            )
        self._answered = time.monotonic()
        living = {node_id.hex(): info for node_id, info in infos.items() if info.state == 0}
        self._found = tuple(
            _Found(node_id, info.node_manager_hostname, dict(info.resources_total), dict(info.labels).get(_TYPE, ""))
            for node_id, info in sorted(living.items())
        )
        if worker.current_node_id.hex() not in living:
            return f"This host is no longer a node of the Ray cluster at {self._address}. {_GO_ON}"
        return ""

    def _disconnect(self) -> None:
        import ray

        if self.loss:
            atexit.unregister(ray.shutdown)  # it would wait for what is lost
        else:
            ray.shutdown()

    def _leave(self) -> None:
        print(f"lrstudy: {self.loss}", file=sys.stderr, flush=True)
        os._exit(1)


_GO_ON = "Everything trained so far is recorded; the same command goes on from there."


def _numerics(device: str, threads: int) -> dict[str, object]:
    """Measure the numerics of this worker."""
    from lrstudy.workload import numerics

    return numerics.measure(device, threads)


def _alike(measured: Mapping[str, object], earlier: Mapping[str, Any]) -> bool:
    """Whether a device computes as the numerics of an earlier run say, which hold the study's choices as well."""
    return all(earlier.get(name) == json.loads(json.dumps(value)) for name, value in measured.items())


def _no_gpu(address: str, found: Sequence[_Found]) -> Fault:
    advice = (
        "resources.gpu: 0 trains on CPU cores; on a cluster that grows when it is asked to, --slots says how many trials it "
        "shall grow to. A node without GPUs that should have some: see `lrstudy doctor --address`."
    )
    got = f"{len(found)} node{'s' * (len(found) != 1)} without any"
    return Fault("resources.gpu", expected=f"GPUs in the Ray cluster at {address}", got=got, advice=advice)


def _too_small(asked: Resources, found: Sequence[_Found]) -> Fault:
    largest = [
        f"{node.host}: {node.resources.get('CPU', 0):g} CPU, {node.resources.get('GPU', 0):g} GPU" for node in found
    ]
    what = f"cpu: {asked.threads}" + (f", gpu: {asked.device_share:g}" if asked.device == "cuda" else "")
    return Fault("resources", expected=f"a node with room for one trial ({what})", got="; ".join(largest) or "no node")
