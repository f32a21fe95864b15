"""The target `kuberay`: a RayJob on Kubernetes, whose workers come and go; with a schedule, a RayCronJob."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from lrstudy.errors import Fault
from lrstudy_cluster import fleet, kubectl, kuberay_rules, travelling
from lrstudy_cluster.fleet import Fleet
from lrstudy_cluster.target import Launch, Profile, Submission, Target
from lrstudy_cluster.templates import fill

_FOLDER = "/opt/lrstudy-study"
"""Where the study file and its code are mounted."""
_MOST_BYTES = 900 * 1024
"""Of all that is sent. A ConfigMap may have 1 MiB, names and labels included."""
_WEEK_S = 7 * 24 * 3600
_GRACE_S = 3600
"""How long after the study's own limit the cluster may live: until it is up, and until the report is written."""

_SPOT: Mapping[str, tuple[dict[str, str], list[dict[str, str]]]] = {
    "none": ({}, []),
    "gke": (
        {"cloud.google.com/gke-spot": "true"},
        [{"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}],
    ),
    "eks": ({"eks.amazonaws.com/capacityType": "SPOT"}, []),
    "karpenter": ({"karpenter.sh/capacity-type": "spot"}, []),
    "aks": (
        {"kubernetes.azure.com/scalesetpriority": "spot"},
        [
            {
                "key": "kubernetes.azure.com/scalesetpriority",
                "operator": "Equal",
                "value": "spot",
                "effect": "NoSchedule",
            }
        ],
    ),
}
"""The label and the taint of spot nodes, by who runs the cluster."""


class KubeRayProfile(Profile):
    """What a launch asks of a Kubernetes cluster."""

    image: Annotated[
        str, Field(min_length=1, description="the container image with lrstudy, as built by the Dockerfile")
    ]
    context: Annotated[str | None, Field(description="the context of kubectl, if not the current one")] = None
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", description="a namespace")] = (
        "default"
    )
    job_name: Annotated[
        str | None, Field(description="the RayJob's name; by default the study's, in small letters")
    ] = None
    volume: Annotated[
        str | None, Field(description="a PersistentVolumeClaim that many nodes may write, if not a bucket")
    ] = None
    shared_folder: Annotated[
        str, Field(pattern=r"^/[^\s:]+$", description="where that volume is mounted, an absolute path")
    ] = "/mnt/lrstudy"
    service_account: Annotated[
        str | None, Field(description="a service account that may use the bucket; never give keys")
    ] = None
    gpus: Annotated[int, Field(ge=0, description="GPUs of a worker; 0 for none")] = 1
    cpus: Annotated[int, Field(ge=1, description="CPU cores of a worker")] = 8
    memory_gb: Annotated[int, Field(ge=1, description="memory of a worker in GiB")] = 32
    shm_gb: Annotated[int, Field(ge=1, description="how much of a worker's memory may be shared memory, in GiB")] = 8
    workers_min: Annotated[int, Field(ge=0, description="how many workers there always are")] = 0
    workers_max: Annotated[int, Field(ge=1, description="how many workers there may be")] = 4
    head_cpus: Annotated[int, Field(ge=1, description="CPU cores of the head")] = 2
    head_memory_gb: Annotated[int, Field(ge=4, description="memory of the head in GiB, at least 4")] = 8
    spot: Annotated[
        Literal["none", "gke", "eks", "karpenter", "aks"],
        Field(description="whose spot nodes the workers go to: none, gke, eks, karpenter or aks"),
    ] = "none"
    node_selector: Annotated[
        dict[str, str], Field(default_factory=dict, description="a map of labels that workers' nodes must have")
    ]
    head_node_selector: Annotated[
        dict[str, str], Field(default_factory=dict, description="a map of labels that the head's node must have")
    ]
    tolerations: Annotated[
        list[dict[str, str]], Field(default_factory=list, description="a list of taints that workers tolerate")
    ]
    retries: Annotated[int, Field(ge=0, description="how often a cluster that failed is made anew")] = 2
    start_deadline_s: Annotated[int, Field(ge=1, description="seconds until the driver must run")] = 1800
    deadline_hours: Annotated[
        float | None,
        Field(gt=0, description="hours until the cluster is deleted; by default limits.wall and one hour, or a week"),
    ] = None
    idle_timeout_s: Annotated[int, Field(ge=1, description="seconds until an idle worker is given back")] = 120
    keep_s: Annotated[int, Field(ge=0, description="seconds that a finished cluster is kept, to look at it")] = 300
    schedule: Annotated[
        str | None,
        Field(description="when to run again and again, as in '0 3 * * 1'; needs the operator's gate RayCronJob"),
    ] = None
    time_zone: Annotated[str | None, Field(min_length=1, description="the time zone of the schedule")] = None
    setup: Annotated[list[str], Field(default_factory=list, description="lines of shell that the driver runs first")]


def _check(launch: Launch) -> list[Fault]:
    profile = _profile(launch)
    how = "For a volume: --set volume=CLAIM, a claim with ReadWriteMany."
    found = travelling.faults(launch, profile.shared_folder if profile.volume else None, how)
    found += fleet.faults(_fleet(profile), launch.study)
    if profile.workers_min > profile.workers_max:
        expected = f"at most workers_max ({profile.workers_max})"
        found.append(Fault("profile.workers_min", expected=expected, got=str(profile.workers_min)))
    if profile.shm_gb > profile.memory_gb:
        expected = f"at most memory_gb ({profile.memory_gb}), of which it is a part"
        found.append(Fault("profile.shm_gb", expected=expected, got=str(profile.shm_gb)))
    if profile.time_zone and not profile.schedule:
        found.append(Fault("profile.time_zone", "it is that of a schedule, and there is none"))
    if found:
        return found
    text = _render(launch)["rayjob.yaml"]
    if (size := len(text.encode())) > _MOST_BYTES:
        problem = (
            f"with its code and workload.files it takes {size // 1024} KiB, and a ConfigMap has room for "
            f"{_MOST_BYTES // 1024}"
        )
        return [Fault("study", problem, advice="Put large files into the image.")]
    return kuberay_rules.faults(text)


def _render(launch: Launch) -> dict[str, str]:
    profile = _profile(launch)
    labels, taints = _SPOT[profile.spot]
    if profile.gpus:
        taints = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, *taints]
    files = _files(launch)
    keys = {path: _key(number, path) for number, path in enumerate(files)}
    values = {
        **profile.model_dump(),
        "name": _name(launch),
        "study_folder": _FOLDER,
        "keys": keys,
        "configmap": _configmap(files, keys),
        "ray_version": version("ray"),
        "node_selector": {**labels, **profile.node_selector},
        "tolerations": [*taints, *profile.tolerations],
        "deadline_s": _deadline_s(launch),
    }
    return {"rayjob.yaml": fill("kuberay", "rayjob.yaml", values)}


def _ask(launch: Launch) -> list[Fault]:
    profile = _profile(launch)
    site = kubectl.Site(profile.context, profile.namespace)
    kind = "raycronjobs" if profile.schedule else "rayjobs"
    found = site.missing_kind(kind)
    if not found and profile.volume:
        found = site.volume_faults(profile.volume)
    if not found and not profile.schedule:
        found = site.running_faults(_name(launch))
    if not found:
        site.try_out(_render(launch)["rayjob.yaml"])
    return found


def _submit(launch: Launch, folder: Path) -> Submission:
    profile, name, file = _profile(launch), _name(launch), folder / "rayjob.yaml"
    site = kubectl.Site(profile.context, profile.namespace)
    if not profile.schedule:
        site.delete_finished(name)
    site.apply(file)
    kubectl_here = site.shown
    if profile.schedule:
        follow = f"{kubectl_here} get rayjobs --watch"
        return Submission(f"RayCronJob {name}", follow, f"{kubectl_here} delete -f {file}")
    return Submission(
        f"RayJob {name}",
        f"{kubectl_here} logs --follow --selector=job-name={name}",
        f"{kubectl_here} delete -f {file}",
    )


def _profile(launch: Launch) -> KubeRayProfile:
    assert isinstance(launch.profile, KubeRayProfile)
    return launch.profile


def _fleet(profile: KubeRayProfile) -> Fleet:
    return Fleet(profile.workers_max, profile.gpus, profile.cpus)


def _name(launch: Launch) -> str:
    """The name of the RayJob. Kubernetes allows neither capitals nor '_' nor '.'."""
    return _profile(launch).job_name or launch.study.name.lower().replace("_", "-").replace(".", "-")


def _files(launch: Launch) -> dict[str, bytes]:
    profile = _profile(launch)
    slots = fleet.num_slots(_fleet(profile), launch.study)
    # What a schedule starts is a study of its own each time; all of them share one memo.
    suffix = "-$(date +%Y-%m-%d)" if profile.schedule else ""
    return travelling.packed(launch, slots, profile.setup, fleet.overrides(_fleet(profile), launch.study), suffix)


def _configmap(files: Mapping[str, bytes], keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The fields of the ConfigMap that holds files: texts as they are, anything else in base64."""
    data, binary = {}, {}
    for path, content in files.items():
        try:
            data[keys[path]] = content.decode()
        except UnicodeDecodeError:
            binary[keys[path]] = base64.b64encode(content).decode()
    return {"data": data, **({"binaryData": binary} if binary else {})}


def _key(number: int, path: str) -> str:
    """The key of a file, in the letters that a ConfigMap's keys may have."""
    return f"{number:03}-{re.sub('[^-A-Za-z0-9._]', '-', PurePosixPath(path).name)}"


def _deadline_s(launch: Launch) -> int:
    """How long the cluster may live, from its making; a retry counts anew."""
    if hours := _profile(launch).deadline_hours:
        return max(1, round(hours * 3600))
    wall_s = launch.study.limits.wall_s
    return _WEEK_S if wall_s is None else round(wall_s) + _GRACE_S


TARGETS = {
    "kuberay": Target(
        "kuberay", "Kubernetes with KubeRay, workers on demand", KubeRayProfile, _check, _render, _ask, _submit
    )
}
