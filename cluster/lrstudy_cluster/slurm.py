"""The target `slurm`: a batch job that holds a Ray cluster on its nodes and runs the study there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lrstudy.errors import ClusterError, Fault, user_path
from lrstudy.storage.place import is_url
from lrstudy_cluster import slurm_site
from lrstudy_cluster.target import Launch, Profile, Submission, Target
from lrstudy_cluster.templates import fill

NOTICE_S = 60
"""How long before the time limit the job's script is told; SLURM may do so up to a minute earlier."""
_HOLD_S = 20
"""How long Ray stays up on a node that is taken away. Between TERM and KILL lie 30 s by default (KillWait)."""
_OBJECT_STORE_BYTES = 100 * 2**20
"""Data and states do not go through Ray. Its own default is 30% of the node's memory, whatever the job's share is."""
_MAX_TEMP = 43 - len("/lrs-4294967295-99/r")
"""Ray's sockets lie 64 characters below its folder, and the path of a socket has at most 107."""

_Count = Annotated[int, Field(ge=0, description="a whole number of at least 0")]
_Positive = Annotated[int, Field(ge=1, description="a whole number of at least 1")]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,:@+-]+$", description="a name without spaces")]
_TIME = r"^(\d+-)?\d+(:\d\d){0,2}$"


class SlurmProfile(Profile):
    """What a batch job asks for, and what a site needs on its nodes."""

    cpus: Annotated[int, Field(ge=1, description="CPU cores per node, a whole number of at least 1")]
    nodes: Annotated[int, Field(ge=1, description="how many nodes, at least 1")] = 1
    gpus: Annotated[int, Field(ge=0, description="GPUs per node, a whole number; 0 for a study on CPUs")] = 1
    gpu_type: Annotated[_Name, Field(description="the type of GPU as the site names it, such as a100")] | None = None
    memory: (
        Annotated[str, Field(pattern=r"^\d+[KMGT]?$", description="memory per node, such as 64G; 0 for all of it")]
        | None
    ) = None
    time: (
        Annotated[str, Field(pattern=_TIME, description="the time limit, such as 4:00:00 or 2-00:00:00")]
        | Annotated[int, Field(ge=5, description="a number of minutes of at least 5")]
        | None
    ) = None
    partition: Annotated[_Name, Field(description="a partition, or several with commas")] | None = None
    account: Annotated[_Name, Field(description="the account that pays")] | None = None
    qos: Annotated[_Name, Field(description="the quality of service")] | None = None
    constraint: (
        Annotated[str, Field(pattern=r"^[^\s#]+$", description="features of nodes, such as a100|h100, no spaces")]
        | None
    ) = None
    exclusive: Annotated[bool, Field(description="whether the job has its nodes to itself")] = False
    sbatch: Annotated[
        list[Annotated[str, Field(pattern=r"^--?[a-zA-Z][^\n]*$", description="an option of sbatch")]],
        Field(default_factory=list, description="further options of sbatch, such as --mail-type=FAIL"),
    ]
    setup: Annotated[
        list[str],
        Field(default_factory=list, description="lines of shell that make lrstudy available, such as modules to load"),
    ]
    container: Annotated[str, Field(description="an Apptainer image in which lrstudy and Ray run")] | None = None
    temp: Annotated[str, Field(pattern=r"^/\S*[^\s/]$", description="a folder of each node's own, absolute")] = "/tmp"
    interface: Annotated[_Name, Field(description="the network that nodes talk over, such as ib0")] | None = None
    wait_s: Annotated[int, Field(ge=1, description="seconds to wait for all nodes before going on with fewer")] = 300
    mps: Annotated[bool, Field(description="whether to start NVIDIA's MPS daemon, for trials that share a GPU")] = False


def _profile(launch: Launch) -> SlurmProfile:
    assert isinstance(launch.profile, SlurmProfile)
    return launch.profile


_OURS = {
    "ntasks-per-node": "",
    "requeue": "",
    "no-requeue": "",
    "signal": "",
    "open-mode": "",
    "output": "",
    "chdir": "",
    "nodes": "nodes",
    "cpus-per-task": "cpus",
    "gres": "gpus",
    "mem": "memory",
    "time": "time",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "exclusive": "exclusive",
}
"""The options of sbatch that the template sets, and the key of the profile that each has, if any."""


def _check(launch: Launch) -> list[Fault]:
    asked, resources = _profile(launch), launch.study.resources
    faults = []
    if resources.gpu and not asked.gpus:
        share = "a share of a GPU" if resources.gpu == "auto" else f"{resources.gpu:g} GPU"
        problem = f"the study asks for {share} per trial, and the job has none"
        faults.append(Fault("profile.gpus", problem, advice="Set it to the GPUs per node, or resources.gpu to 0."))
    if asked.gpus and resources.gpu == 0:
        problem = f"the job asks for {asked.gpus} per node, and the study for none"
        faults.append(Fault("profile.gpus", problem, advice="Set it to 0, or leave resources.gpu out."))
    if resources.cpu > asked.cpus:
        problem = f"the study asks for {resources.cpu} cores per trial, and a node of the job has {asked.cpus}"
        faults.append(Fault("profile.cpus", problem))
    if asked.gpu_type and not asked.gpus:
        faults.append(Fault("profile.gpu_type", "there is no GPU to be of a type: gpus is 0"))
    if asked.mps and not asked.gpus:
        faults.append(Fault("profile.mps", "there is no GPU to share: gpus is 0"))
    if len(asked.temp) > _MAX_TEMP:
        expected = f"at most {_MAX_TEMP} characters, as Ray's sockets lie below it"
        faults.append(Fault("profile.temp", expected=expected, got=f"{asked.temp} with {len(asked.temp)}"))
    return faults + [fault for line in asked.sbatch if (fault := _taken(line))]


def _taken(line: str) -> Fault | None:
    """The fault of an option of sbatch that the template sets itself; short forms such as ``-t`` are refused as well."""
    name = re.split(r"[=\s]", line.lstrip("-"), maxsplit=1)[0]
    if not line.startswith("--"):
        return Fault("profile.sbatch", expected="the long form of an option, such as --mail-type=FAIL", got=line)
    if name not in _OURS:
        return None
    advice = f"Use the profile's {_OURS[name]}." if _OURS[name] else ""
    return Fault("profile.sbatch", f"--{name} is set by the template", advice=advice)


def _render(launch: Launch) -> dict[str, str]:
    asked = _profile(launch)
    values = {
        **asked.model_dump(),
        "options": asked.model_dump(include={"partition", "account", "qos", "constraint", "time"}),
        "name": launch.study.name,
        "study": str(launch.path),
        "overrides": list(launch.overrides),
        "programs": Path(sys.executable).parent,
        "binds": _binds(launch),
        "notice_s": NOTICE_S,
        "hold_s": _HOLD_S,
        "object_store_bytes": _OBJECT_STORE_BYTES,
    }
    return {name: fill("slurm", name, values) for name in ("job.sh", "node.sh", "setup.sh")}


def _binds(launch: Launch) -> list[str]:
    """The folders that a container must see under their own names."""
    folders = [str(launch.path.parent), _profile(launch).temp]
    if (storage := storage_folder(launch)) is not None:
        folders.append(str(storage))
    return sorted(set(folders))


def storage_folder(launch: Launch) -> Path | None:
    """The folder of the study's storage; None if that is no folder."""
    path = launch.study.storage.path
    return None if is_url(path) else (launch.path.parent / user_path(path, "storage.path")).resolve()


def _ask(launch: Launch) -> list[Fault]:
    asked = _profile(launch)
    folders = {"study file": launch.path.parent}
    if (storage := storage_folder(launch)) is not None:
        folders["storage.path"] = storage
    faults = slurm_site.node_local(folders, asked.temp)
    if asked.container is not None and "://" not in asked.container and not Path(asked.container).exists():
        faults.append(Fault("profile.container", f"there is no image {asked.container}"))
    request = slurm_site.Request(
        asked.partition, asked.nodes, asked.gpus, asked.cpus, asked.time, asked.account, asked.qos
    )
    faults += slurm_site.refused(request)
    return faults or slurm_site.refused_script(_render(launch)["job.sh"])


def _submit(launch: Launch, folder: Path) -> Submission:
    answer = slurm_site.call("sbatch", "--parsable", f"--chdir={folder}", str(folder / "job.sh"))
    job, _, cluster = answer.strip().partition(";")
    where = f" -M {cluster}" if cluster else ""
    if not job.isdecimal():
        raise ClusterError(f"sbatch did not name a job; it said {answer.strip()!r}.")
    log = folder / f"{job}.log"
    return Submission(f"job {job}", f"tail -F {log}   (and squeue{where} -j {job})", f"scancel{where} {job}")


TARGETS = {
    "slurm": Target("slurm", "a batch job of SLURM, on one or more nodes", SlurmProfile, _check, _render, _ask, _submit)
}
