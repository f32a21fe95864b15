"""Nodes that a function can be run on, and what each of them answered; whoever reaches them is known elsewhere."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        node_id: The cluster's name for it; empty for a machine without a cluster.
        host: Its host name.
        address: Its network address; empty for a machine without a cluster.
        gpus: How many GPUs the cluster has to give there.
        cpus: How many CPU cores the cluster has to give there.
        is_head: Whether the cluster's control process runs there.
    """

    node_id: str
    host: str
    address: str = ""
    gpus: float = 0.0
    cpus: float = 0.0
    is_head: bool = False

    @property
    def name(self) -> str:
        """How a person recognises it: host and address, as two nodes of one host differ by their address alone."""
        return f"{self.host} ({self.address})" if self.address else self.host


@dataclass(frozen=True)
class Answer:
    """What one node answered.

    Attributes:
        node: The node.
        value: What the function returned; None if `error` says why there is nothing.
        error: Why there is no value, for the user; empty if there is one.
        asked_at: When the node was asked (this host's wall clock, seconds).
        answered_at: When the answer had arrived (this host's wall clock, seconds).
        is_silent: Whether the node was given up, as it had not answered in time.
    """

    node: Node
    value: Any = None
    error: str = ""
    asked_at: float = 0.0
    answered_at: float = 0.0
    is_silent: bool = False


class EveryNode(Protocol):
    """Runs a function on every node."""

    def __call__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        gpus: Callable[[Node], float] = ...,
        timeout_s: float = ...,
        only: Sequence[Node] | None = ...,
    ) -> list[Answer]:
        """One answer per node, in the order of the nodes; raises nothing that a node raises.

        Args:
            function: A function at the top of a module. It is named, not sent, so that a node without it can say so.
            arguments: Its arguments, plain values.
            gpus: How many of its GPUs a node is to hand to the function; by default none.
            timeout_s: Seconds after which a node that has not answered is given up.
            only: The nodes to ask; by default all.
        """


def no_gpus(node: Node) -> float:
    """Hand no GPU to the function."""
    return 0.0


def all_gpus(node: Node) -> float:
    """Hand all of the node's GPUs to the function."""
    return node.gpus


@dataclass(frozen=True)
class ThisMachine:
    """An `EveryNode` of this machine alone: runs the function here, in this process.

    Attributes:
        gpus: How many GPUs this process may use.
    """

    gpus: float = 0.0

    def __call__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        gpus: Callable[[Node], float] = no_gpus,
        timeout_s: float = 0.0,
        only: Sequence[Node] | None = None,
    ) -> list[Answer]:
        """One answer: that of this machine, however long it takes."""
        node, asked_at = Node("", platform.node(), gpus=self.gpus), time.time()
        try:
            return [Answer(node, function(*arguments), "", asked_at, time.time())]
        except Exception as error:
            return [Answer(node, None, f"{type(error).__name__}: {error}", asked_at, time.time())]
