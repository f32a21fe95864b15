"""All checks in order: those that cost little before every run on a cluster, and all of them for `lrstudy doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lrstudy.doctor import clocks, findings, gpus, room, shared_storage, slow_files, versions
from lrstudy.doctor.findings import Finding
from lrstudy.doctor.nodes import Answer, EveryNode, Node, all_gpus

_GPU_S, _FILES_S = 120.0, 600.0


@dataclass(frozen=True)
class Needs:
    """What a study needs of the nodes.

    Attributes:
        storage: Its storage, a folder that exists here or a URL; None if there is no study.
        gpu: Whether its trials train on GPUs.
    """

    storage: str | None = None
    gpu: bool = False


def preflight(everywhere: EveryNode, needs: Needs) -> None:
    """Raise InputError, with every fault, unless all nodes have the same versions and see the shared storage.

    Takes about two seconds. GPUs are left alone: other jobs may have them, and a run measures one itself.
    """
    findings.require(_quick(everywhere, needs)[0])


def _quick(everywhere: EveryNode, needs: Needs) -> tuple[list[Finding], list[Node]]:
    """What `preflight` checks, and the nodes that answered."""
    first = everywhere(versions.measure)
    found, usable = versions.judge(first, versions.measure()), _usable(first)
    if usable and needs.storage is not None:
        found += shared_storage.check(everywhere, needs.storage, usable)
    return found, usable


def thorough(everywhere: EveryNode, needs: Needs) -> list[Finding]:
    """Everything; takes as long as importing torch twice on the slowest node, and some seconds."""
    answered = _usable(everywhere(clocks.measure))  # starts the workers
    rounds = [everywhere(clocks.measure, only=answered) for _ in range(clocks.ROUNDS)] if answered else []
    found, usable = _quick(everywhere, needs)
    if not answered:
        return found
    found += gpus.judge(everywhere(gpus.measure, gpus=all_gpus, timeout_s=_GPU_S, only=usable), needs.gpu)
    found += room.judge(everywhere(room.measure, only=answered))
    found += slow_files.judge_environment(everywhere(slow_files.measure_environment, timeout_s=_FILES_S, only=answered))
    if needs.storage is not None and Path(needs.storage).is_dir() | ("://" in needs.storage):
        speeds = everywhere(slow_files.measure_storage, needs.storage, timeout_s=_FILES_S, only=answered)
        found += slow_files.judge_storage(speeds)
    rounds.append(everywhere(clocks.measure, only=answered))
    return _by_node(found + clocks.judge(rounds))


def _usable(answers: Sequence[Answer]) -> list[Node]:
    """The nodes that answered."""
    return [answer.node for answer in answers if not answer.error]


def _by_node(found: Sequence[Finding]) -> list[Finding]:
    """The findings of one node after the other, in the order in which the nodes came first."""
    nodes = list(dict.fromkeys(finding.node for finding in found))
    return sorted(found, key=lambda finding: nodes.index(finding.node))
