"""Runs a function on every living node of the Ray cluster that this process is connected to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lrstudy.doctor.nodes import Answer, Node, no_gpus
from lrstudy.ray_tune.connection import join
from lrstudy.ray_tune.reach import reach

TIMEOUT_S = 60.0
"""How long a node may take by default; the first function on a node waits for a worker process to start."""
_HEAD = "node:__internal_head__"


@contextmanager
def connected(address: str, *, without_token: bool = False) -> Iterator[str]:
    """Within it, this process is connected to a Ray cluster, whose address it yields; no Ray is ever started.

    Args:
        address: As for `reach`.
        without_token: As for `reach`.

    Raises:
        InputError: As `reach` does, and if Ray or Python have other versions here than in the cluster.
        ClusterError: Ray refuses for another reason.
    """
    import ray

    found = reach(address, without_token=without_token)
    join(found)
    try:
        yield found
    finally:
        ray.shutdown()


def living_nodes() -> list[Node]:
    """The living nodes of the cluster that this process is connected to: the head first, then by host and address."""
    import ray

    nodes = [
        Node(
            node_id=info["NodeID"],
            host=info["NodeManagerHostname"],
            address=info["NodeManagerAddress"],
            gpus=info["Resources"].get("GPU", 0.0),
            cpus=info["Resources"].get("CPU", 0.0),
            is_head=_HEAD in info["Resources"],
        )
        for info in ray.nodes()  # type: ignore[no-untyped-call]
        if info["Alive"]
    ]
    return sorted(nodes, key=lambda node: (not node.is_head, node.host, node.address))


def every_node(
    function: Callable[..., Any],
    *arguments: Any,
    gpus: Callable[[Node], float] = no_gpus,
    timeout_s: float = TIMEOUT_S,
    only: Sequence[Node] | None = None,
) -> list[Answer]:
    """An `EveryNode` of the cluster that this process is connected to: one task per node, all at once.

    A task takes no CPU core, so it also runs beside trials. A node that is asked for GPUs waits until they are free; if
    they are not within `timeout_s`, or if the node is lost or cannot import the function, its answer says so.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = living_nodes() if only is None else list(only)
    task = ray.remote(num_cpus=0, max_retries=0)(_by_value())
    place = f"{function.__module__}:{function.__qualname__}"
    asked: dict[Any, tuple[Node, float]] = {}
    for node in nodes:
        pinned = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        reference = task.options(scheduling_strategy=pinned, num_gpus=gpus(node)).remote(place, arguments)
        asked[reference] = node, time.time()
    answers, deadline = {}, time.monotonic() + timeout_s
    waiting = list(asked)
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        node, asked_at = asked[ready[0]]
        answers[node] = _answer(node, ready[0], asked_at)
    for reference in waiting:
        ray.cancel(reference, force=True)
        node, asked_at = asked[reference]
        answers[node] = Answer(node, error=_silence(node, gpus(node), timeout_s), asked_at=asked_at, is_silent=True)
    return [answers[node] for node in nodes]


def _answer(node: Node, reference: Any, asked_at: float) -> Answer:
    """What a task that has ended gave."""
    import ray

    answered_at = time.time()
    try:
        value, error = ray.get(reference)
    except ray.exceptions.RayError as raised:
        first = next((line.strip() for line in str(raised).splitlines() if line.strip()), "")
        return Answer(node, None, f"its task failed ({type(raised).__name__}: {first[:200]})", asked_at, answered_at)
    return Answer(node, value, error, asked_at, answered_at)


def _silence(node: Node, gpus: float, timeout_s: float) -> str:
    """What to say of a node that has not answered in time."""
    why = "it is lost, or cannot start worker processes"
    if gpus:
        taken = "its GPU is" if gpus <= 1 else f"its {gpus:g} GPUs are"
        why = f"{taken} taken by somebody else's work, or {why}"
    return f"no answer within {timeout_s:.0f} s: {why}"


def _by_value() -> Callable[..., Any]:
    """A function that is sent as a whole, since a node may lack the module of any other; it returns a value and an error."""

    def call(place: str, arguments: tuple[Any, ...]) -> tuple[Any, str]:
        import importlib

        module, _, name = place.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            return None, f"lrstudy cannot be used there ({error}): it is not installed, or is another version"
        try:
            return function(*arguments), ""
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"

    return call
