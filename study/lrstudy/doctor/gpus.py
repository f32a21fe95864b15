"""Whether a node can compute on the GPUs that it is said to have, and has those that it could have."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from lrstudy import child_process
from lrstudy.doctor.findings import Finding
from lrstudy.doctor.nodes import Answer

CHECK = "GPUs"
_TIMEOUT_S = 120.0
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_NO_GRES = (
    "SLURM sets CUDA_VISIBLE_DEVICES=NoDevFiles for a step that asks for no GPU, and Ray then counts none: ask for them in "
    "sbatch and in srun (--gres=gpu:N or --gpus-per-node=N)."
)


def measure() -> dict[str, Any]:
    """GPUs of the machine, those that torch can compute on here, the driver, and what hides GPUs from this process.

    A cluster's worker processes are told which GPUs they may use; what their parent, the node, was told is seen too.
    """
    found: dict[str, Any] = {"present": len(list(Path("/dev").glob("nvidia[0-9]*"))), "driver": _driver()}
    found["visible"], found["visible_to_parent"] = os.environ.get(_VISIBLE), None
    with suppress(psutil.Error):
        found["visible_to_parent"] = psutil.Process(os.getppid()).environ().get(_VISIBLE)
    if not found["present"] and not found["visible"]:
        return {**found, "gpus": [], "problem": ""}
    done = child_process.run_python(["-m", "lrstudy.doctor.gpu_report"], timeout_s=_TIMEOUT_S)
    if done.returncode:
        last = [f"it ended with {done.returncode}", *done.stderr.decode(errors="replace").strip().splitlines()][-1]
        return {**found, "gpus": [], "problem": f"torch cannot use them: {last[:200]}"}
    return {**found, **json.loads(done.stdout)}


def judge(answers: Sequence[Answer], is_needed: bool) -> list[Finding]:
    """One finding per node, and one for all if the study asks for GPUs and no node has any."""
    findings = [_judge(answer) for answer in answers]
    if is_needed and not any(answer.node.gpus for answer in answers):
        advice = "Ask the cluster for GPU nodes, start its nodes with --num-gpus, or set resources.gpu=0 to train on CPU cores."
        findings.append(
            Finding("", CHECK, "fail", "the study asks for GPUs (resources.gpu), and no node has one", advice)
        )
    return findings


def _judge(answer: Answer) -> Finding:
    node, given = answer.node.name, answer.node.gpus
    if answer.error:
        advice = "Whether torch can use them is not known; trials will wait until they are free."
        return Finding(node, CHECK, "warn" if answer.is_silent else "fail", answer.error, "" if not given else advice)
    seen: dict[str, Any] = answer.value
    if not given:
        return _without(node, seen)
    usable = [gpu for gpu in seen["gpus"] if gpu["works"]]
    if len(usable) < given:
        why = seen["problem"] or f"torch can use {len(usable)} of them"
        advice = "Install a torch that fits the driver, or start the node without GPUs (--num-gpus=0)."
        return Finding(
            node,
            CHECK,
            "fail",
            f"the node gives {given:g} GPU{'s' * (given != 1)}, but {why} (driver: {seen['driver']})",
            advice,
        )
    return Finding(node, CHECK, "ok", f"{', '.join(map(_shown, usable))}; driver {seen['driver']}")


def _without(node: str, seen: dict[str, Any]) -> Finding:
    """The finding of a node that gives no GPU."""
    if "NoDevFiles" in (seen["visible"], seen["visible_to_parent"]):
        return Finding(node, CHECK, "warn", "none is given to the node: CUDA_VISIBLE_DEVICES is NoDevFiles", _NO_GRES)
    if seen["present"]:
        hidden = seen["visible_to_parent"]
        why = (
            f"CUDA_VISIBLE_DEVICES is {hidden!r}"
            if hidden is not None
            else "it was started with --num-gpus=0, or did not see them"
        )
        advice = "If trials are to use them, start the node with its GPUs visible."
        return Finding(
            node, CHECK, "warn", f"the machine has {seen['present']}, of which the node gives none: {why}", advice
        )
    return Finding(node, CHECK, "ok", "none")


def _shown(gpu: dict[str, Any]) -> str:
    return f"{gpu['name']} ({gpu['memory_bytes'] / 2**30:.0f} GiB, {gpu['free_bytes'] / 2**30:.0f} free)"


def _driver() -> str:
    """The version of NVIDIA's kernel driver."""
    with suppress(OSError):
        if match := re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", Path("/proc/driver/nvidia/version").read_text()):
            return match[1]
    return "none"
