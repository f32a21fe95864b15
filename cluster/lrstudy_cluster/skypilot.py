"""The target `skypilot`: a managed job on spot instances of any cloud that SkyPilot knows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lrstudy import child_process
from lrstudy.errors import ClusterError, Fault
from lrstudy_cluster import fleet, travelling, uploads
from lrstudy_cluster.fleet import Fleet
from lrstudy_cluster.target import Launch, Profile, Submission, Target
from lrstudy_cluster.templates import fill

_TIMEOUT_S = 1800.0


class SkyPilotProfile(Profile):
    """What a launch asks of SkyPilot."""

    accelerators: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9-]+(:[1-9]\d*)?$",
            description="the GPUs of a node, such as A100:1 or L4:4; none for CPUs",
        ),
    ] = None
    num_nodes: Annotated[int, Field(ge=1, description="how many nodes, all taken at once")] = 1
    cpus: Annotated[int, Field(ge=1, description="CPU cores of a node, at least")] = 8
    memory_gb: Annotated[int, Field(ge=4, description="memory of a node in GB, at least 4")] = 32
    disk_gb: Annotated[int, Field(ge=30, description="disk of a node in GB, at least 30")] = 150
    infra: Annotated[
        str | None,
        Field(min_length=1, description="where, such as aws, gcp/us-central1 or k8s; by default the cheapest"),
    ] = None
    image: Annotated[
        str | None, Field(min_length=1, description="a container image with lrstudy, if not `install`")
    ] = None
    spot: Annotated[bool, Field(description="whether the nodes are spot instances")] = True
    max_hourly_cost: Annotated[float | None, Field(gt=0, description="the most dollars per hour of the job")] = None
    retries: Annotated[int, Field(ge=0, description="how often a driver that ended with an error is started anew")] = 2
    uploads: Annotated[dict[str, str], Field(default_factory=dict, description=uploads.DESCRIPTION)]
    install: Annotated[
        list[str], Field(default_factory=list, description="lines of shell that install lrstudy on a node")
    ]
    setup: Annotated[
        list[str], Field(default_factory=list, description="lines of shell that put lrstudy on the PATH of a node")
    ]


def _check(launch: Launch) -> list[Fault]:
    profile = _profile(launch)
    found = travelling.faults(launch, None, "Nodes come and go, and share no folder.")
    found += fleet.faults(_fleet(profile), launch.study) + uploads.faults(profile.uploads)
    if not profile.image and not profile.install:
        problem = "nothing installs lrstudy on the nodes"
        found.append(Fault("profile.install", problem, advice="Give lines of shell, or an image that has it"))
    return found


def _render(launch: Launch) -> dict[str, str | bytes]:
    profile = _profile(launch)
    values = {**profile.model_dump(), "name": _name(launch), "uploads": uploads.resolved(profile.uploads)}
    slots = fleet.num_slots(_fleet(profile), launch.study)
    study = travelling.packed(launch, slots, profile.setup, fleet.overrides(_fleet(profile), launch.study))
    return {
        "job.yaml": fill("skypilot", "job.yaml", values),
        "launch.sh": fill("skypilot", "launch.sh", values),
        "study/node.sh": fill("skypilot", "node.sh", values),
        **{f"study/{path}": content for path, content in study.items()},
    }


def _ask(launch: Launch) -> list[Fault]:
    if shutil.which("sky") is None:
        advice = "Install it in an environment of its own: pip install 'skypilot[aws]'"
        return [Fault("skypilot", "SkyPilot's command sky is not on the PATH", advice=advice)]
    return []


def _submit(launch: Launch, folder: Path) -> Submission:
    answer = child_process.run(["bash", str(folder / "launch.sh")], timeout_s=_TIMEOUT_S)
    if answer.returncode:
        said = (answer.stdout + answer.stderr).decode(errors="replace").strip().splitlines()
        raise ClusterError(f"sky jobs launch failed: {said[-1] if said else 'it says nothing'}")
    name = _name(launch)
    return Submission(f"managed job {name}", f"sky jobs logs -n {name}", f"sky jobs cancel -n {name}")


def _profile(launch: Launch) -> SkyPilotProfile:
    assert isinstance(launch.profile, SkyPilotProfile)
    return launch.profile


def _name(launch: Launch) -> str:
    return f"lrstudy-{launch.study.name}"


def _fleet(profile: SkyPilotProfile) -> Fleet:
    gpus = int((profile.accelerators or ":0").partition(":")[2] or 1)
    return Fleet(profile.num_nodes, gpus, profile.cpus)


TARGETS = {
    "skypilot": Target(
        "skypilot", "spot instances of any cloud, by SkyPilot", SkyPilotProfile, _check, _render, _ask, _submit
    )
}
