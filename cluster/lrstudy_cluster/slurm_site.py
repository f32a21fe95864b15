"""What a SLURM site says of a job before it is submitted: partitions, accounts, limits, and folders that nodes share."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrstudy import child_process
from lrstudy.errors import ClusterError, Fault, InputError, unknown

_TIMEOUT_S = 60.0
_NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")


@dataclass(frozen=True)
class Request:
    """What a job asks for, as far as a site's tables can answer it; `time` as sbatch takes it."""

    partition: str | None
    nodes: int
    gpus: int
    cpus: int
    time: str | int | None
    account: str | None
    qos: str | None


@dataclass(frozen=True)
class Partition:
    """A partition: its nodes, and the most that a node of it has.

    Attributes:
        name: Its name.
        is_default: Whether jobs that name none go there.
        is_up: Whether it takes jobs and starts them.
        limit_min: The longest time limit, in minutes; None if there is none.
        nodes: How many nodes.
        cpus: Cores of its largest node.
        gpus: GPUs of the node with the most.
    """

    name: str
    is_default: bool
    is_up: bool
    limit_min: float | None
    nodes: int
    cpus: int
    gpus: int


def call(*command: str, stdin: str | None = None) -> str:
    """What a command of SLURM prints.

    Raises:
        InputError: There is no such command here.
        ClusterError: It failed, in its own words, or did not answer.
    """
    result = _answer(command, stdin)
    if result.returncode:
        raise ClusterError(f"{command[0]} says: {_words(result)}.")
    return result.stdout.decode()


def refused(request: Request) -> list[Fault]:
    """The faults of a request that the site's own tables show: partition, nodes, cores, GPUs, time, account, qos."""
    names = request.partition.split(",") if request.partition else []
    partitions = partitions_in(call("sinfo", "-h", "-o", "%P|%a|%l|%D|%c|%G"))
    faults = [unknown("profile.partition", "partition", name, partitions) for name in names if name not in partitions]
    if not faults:
        chosen = [partitions[name] for name in names] or [each for each in partitions.values() if each.is_default]
        faults += _beyond(request, chosen)
    return faults + _unassociated(request)


def refused_script(script: str) -> list[Fault]:
    """What sbatch itself has against a script, which it does not run."""
    result = _answer(("sbatch", "--test-only"), script)
    return [Fault("sbatch", f"it refuses the job: {_words(result)}")] if result.returncode else []


def node_local(folders: Mapping[str, Path], temp: str) -> list[Fault]:
    """The faults of folders that each node has to itself.

    Args:
        folders: The folders, by what faults name them.
        temp: The profile's folder for temporary files.
    """
    advice = "Put it on a file system that all nodes of the job share, such as the home or project folder."
    return [
        Fault(where, f"{folder} lies in {local}, which every node has to itself", advice=advice)
        for where, folder in folders.items()
        if (local := next((place for place in (temp, *_NODE_LOCAL) if folder.is_relative_to(place)), None))
        and not _is_network(folder)
    ]


def partitions_in(table: str) -> dict[str, Partition]:
    """The partitions in what ``sinfo -h -o '%P|%a|%l|%D|%c|%G'`` prints, a line for each kind of node."""
    found: dict[str, Partition] = {}
    for line in table.splitlines():
        name, state, limit, nodes, cpus, gres = line.strip().split("|")
        kind = Partition(
            name.rstrip("*"),
            name.endswith("*"),
            state == "up",
            None if limit in ("infinite", "n/a") else minutes(limit),
            int(nodes),
            int(cpus.rstrip("+")),
            _gpus_in(gres),
        )
        other = found.get(kind.name, kind)
        found[kind.name] = Partition(
            kind.name,
            kind.is_default,
            kind.is_up,
            kind.limit_min,
            kind.nodes + (other.nodes if other is not kind else 0),
            max(kind.cpus, other.cpus),
            max(kind.gpus, other.gpus),
        )
    return found


def minutes(time: str | int) -> float:
    """A time limit as SLURM writes it, in minutes: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = str(time).rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minute, seconds = (*parts, 0, 0)[:3]
        return int(days) * 1440 + hours * 60 + minute + seconds / 60
    if len(parts) == 3:
        return parts[0] * 60 + parts[1] + parts[2] / 60
    return parts[0] + (parts[1] / 60 if len(parts) == 2 else 0)


def _beyond(request: Request, partitions: Sequence[Partition]) -> list[Fault]:
    """What none of the partitions has."""
    if not partitions:
        return [Fault("profile.partition", "this site has no default partition; one must be named")]
    where = ", ".join(partition.name for partition in partitions)
    if not any(partition.is_up for partition in partitions):
        return [Fault("profile.partition", f"{where} starts no jobs now (sinfo says it is not up)")]
    faults = []
    for key, asked, most in (
        ("nodes", request.nodes, max(partition.nodes for partition in partitions)),
        ("cpus", request.cpus, max(partition.cpus for partition in partitions)),
        ("gpus", request.gpus, max(partition.gpus for partition in partitions)),
    ):
        if asked > most:
            faults.append(Fault(f"profile.{key}", expected=f"at most {most}, as partition {where} has", got=str(asked)))
    limits = [partition.limit_min for partition in partitions]
    longest = None if None in limits else max(limit for limit in limits if limit is not None)
    if request.time is not None and longest is not None and minutes(request.time) > longest:
        expected = f"at most {longest:g} minutes, the limit of partition {where}"
        faults.append(
            Fault("profile.time", expected=expected, got=f"{request.time} ({minutes(request.time):g} minutes)")
        )
    return faults


def _unassociated(request: Request) -> list[Fault]:
    """Faults of an account and a qos that the user may not use, where the site keeps accounts."""
    if request.account is None and request.qos is None:
        return []
    user = getpass.getuser()
    table = _answer(("sacctmgr", "-nP", "show", "assoc", f"user={user}", "format=account,qos"), None)
    rows = [line.split("|") for line in table.stdout.decode().splitlines() if "|" in line]
    if table.returncode or not rows:
        return []  # no accounting here: sbatch has the last word
    faults = []
    accounts = sorted({row[0] for row in rows})
    if request.account is not None and request.account not in accounts:
        faults.append(unknown("profile.account", f"account of {user} called", request.account, accounts))
    qoses = sorted({name for row in rows for name in row[1].split(",") if name})
    if request.qos is not None and qoses and request.qos not in qoses:
        faults.append(unknown("profile.qos", f"qos of {user} called", request.qos, qoses))
    return faults


def _gpus_in(gres: str) -> int:
    """The GPUs in a list of resources such as ``gpu:a100:4(S:0-1),gpu:v100:2,nvme:1``."""
    return sum(
        int(count)
        for kind in _split_outside(gres)
        if kind.split(":")[0] == "gpu" and (count := kind.split("(")[0].rpartition(":")[2]).isdecimal()
    )


def _split_outside(text: str) -> Iterable[str]:
    """The parts of a list with commas, which do not separate within brackets."""
    depth, part = 0, ""
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            yield part
            part = ""
        else:
            part += letter
    yield part


def _is_network(folder: Path) -> bool:
    """Whether a folder, or the nearest one above it that exists, lies on a file system that the kernel reaches over a network."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    kinds = {mount[1]: mount[2] for mount in mounts}
    kind = next(kinds[str(path)] for path in (there, *there.parents) if str(path) in kinds)
    return kind.startswith(
        ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "fuse.", "orangefs", "panfs", "wekafs")
    )


def _answer(command: Sequence[str], stdin: str | None) -> subprocess.CompletedProcess[bytes]:
    try:
        return child_process.run(command, stdin=stdin.encode() if stdin is not None else None, timeout_s=_TIMEOUT_S)
    except FileNotFoundError:
        problem = f"there is no {command[0]} here"
        raise InputError(Fault("launch", problem, advice="Launch from a login node of the cluster.")) from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{command[0]} has not answered within {_TIMEOUT_S:.0f} s.") from None


def _words(result: subprocess.CompletedProcess[bytes]) -> str:
    """What a command complained of, on one line."""
    lines = [line.partition("error: ")[2] or line for line in result.stderr.decode(errors="replace").splitlines()]
    return "; ".join(dict.fromkeys(line.strip().rstrip(".") for line in lines if line.strip())) or "nothing"
