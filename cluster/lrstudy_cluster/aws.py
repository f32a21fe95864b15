"""The target `aws`: a head on demand and spot workers with GPUs, by `ray up`."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lrstudy import child_process
from lrstudy.errors import ClusterError, Fault
from lrstudy_cluster import fleet, ray_up, travelling
from lrstudy_cluster.fleet import Fleet
from lrstudy_cluster.ray_up import RayUpProfile
from lrstudy_cluster.target import Launch, Submission, Target
from lrstudy_cluster.templates import fill

_SHAPE = """
import json, sys, yaml
import botocore.loaders, botocore.model, botocore.validate
types = yaml.safe_load(sys.stdin)["available_node_types"]
service = botocore.loaders.Loader().load_service_model("ec2", "service-2")
shape = botocore.model.ServiceModel(service).operation_model("RunInstances").input_shape
found = {}
for kind, node in types.items():
    request = {"MinCount": 1, "MaxCount": 1, **node["node_config"]}
    report = botocore.validate.ParamValidator().validate(request, shape)
    if report.has_errors():
        found[kind] = report.generate_report()
print(json.dumps(found))
"""
"""Ray passes `node_config` on to AWS unread: a misspelt key is noticed only when the first worker is wanted."""
_IDENTITY = "import boto3; boto3.client('sts', region_name={region!r}).get_caller_identity()"


class AwsProfile(RayUpProfile):
    """What a launch asks of AWS."""

    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="a region, such as eu-central-1")]
    ami: Annotated[str, Field(pattern=r"^ami-[0-9a-f]{8,17}$", description="an image with NVIDIA's driver, as ami-...")]
    instance_type: Annotated[
        str, Field(pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$", description="the workers' type, such as g5.2xlarge")
    ]
    gpus: Annotated[int, Field(ge=0, description="how many GPUs that type has")] = 1
    cpus: Annotated[int, Field(ge=1, description="how many virtual cores that type has")] = 8
    zones: Annotated[
        list[str], Field(default_factory=list, description="a list of availability zones; more of them, more spot")
    ]
    head_instance: Annotated[str, Field(pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$", description="the head's type")] = (
        "m6i.large"
    )
    head_role: Annotated[
        str | None,
        Field(description="the head's IAM instance profile; by default Ray makes one that may start workers"),
    ] = None
    worker_role: Annotated[
        str | None, Field(description="the workers' IAM instance profile, by which they reach the bucket")
    ] = None
    spot: Annotated[bool, Field(description="whether workers are spot instances")] = True
    workers_min: Annotated[int, Field(ge=0, description="how many workers there always are")] = 0
    workers_max: Annotated[int, Field(ge=1, description="how many workers there may be")] = 4
    idle_timeout_minutes: Annotated[int, Field(ge=1, description="minutes until an idle worker is given back")] = 3
    disk_gb: Annotated[int, Field(ge=8, description="the workers' disk in GB")] = 150
    root_device: Annotated[str, Field(pattern=r"^/dev/\w+$", description="the image's root device")] = "/dev/sda1"
    shared_folder: Annotated[
        str | None, Field(pattern=r"^/", description="a folder that `install` mounts on every node, if not a bucket")
    ] = None


def _check(launch: Launch) -> list[Fault]:
    profile = _profile(launch)
    how = "For a folder that `install` mounts on every node, such as EFS: --set shared_folder=FOLDER."
    found = travelling.faults(launch, profile.shared_folder, how) + ray_up.here_faults(profile)
    found += fleet.faults(_fleet(profile), launch.study)
    if launch.study.storage.path.startswith("s3://") and profile.worker_role is None:
        expected = "an IAM instance profile that may read and write the bucket, since keys do not travel"
        found.append(Fault("profile.worker_role", expected=expected))
    if profile.workers_min > profile.workers_max:
        expected = f"at most workers_max ({profile.workers_max})"
        found.append(Fault("profile.workers_min", expected=expected, got=str(profile.workers_min)))
    if found:
        return found
    text = str(_render(launch)["cluster.yaml"])
    return ray_up.faults(text) or _shape_faults(text)


def _render(launch: Launch) -> dict[str, str | bytes]:
    profile = _profile(launch)
    values = {"head_ip": None, "head_works": False, "watches_spot": profile.spot, "is_local": False}
    slots = fleet.num_slots(_fleet(profile), launch.study)
    files = ray_up.files(launch, "aws", slots, fleet.overrides(_fleet(profile), launch.study), values)
    return files | ({"spot.sh": fill("aws", "spot.sh", {})} if profile.spot else {})


def _ask(launch: Launch) -> list[Fault]:
    """Whether there are credentials that AWS takes, and the library that `ray up` needs for them."""
    if importlib.util.find_spec("boto3") is None:
        return [Fault("aws", "`ray up` needs boto3 for AWS, and it is not installed here", advice="pip install boto3")]
    answer = child_process.run_python(["-c", _IDENTITY.format(region=_profile(launch).region)], timeout_s=60)
    if answer.returncode:
        said = answer.stderr.decode(errors="replace").strip().splitlines()[-1]
        return [
            Fault("aws", f"there are no credentials that AWS takes: {said}", advice="Try aws sts get-caller-identity")
        ]
    return []


def _submit(launch: Launch, folder: Path) -> Submission:
    ray_up.up(folder)
    ray, file = shlex.quote(str(Path(sys.executable).with_name("ray"))), shlex.quote(str(folder / "cluster.yaml"))
    return Submission(f"cluster {ray_up.name(launch)}", ray_up.follow(launch, folder), f"{ray} down --yes {file}")


def _shape_faults(text: str) -> list[Fault]:
    """What AWS would not take of the instances asked for; nothing where botocore is not installed."""
    if importlib.util.find_spec("botocore") is None:
        return []
    answer = child_process.run_python(["-c", _SHAPE], stdin=text.encode())
    if answer.returncode:
        raise ClusterError(f"botocore cannot check cluster.yaml: {answer.stderr.decode(errors='replace').strip()}")
    found = json.loads(answer.stdout)
    return [
        Fault(f"cluster.yaml: {kind}.node_config", f"AWS does not take it: {' '.join(report.split())}")
        for kind, report in found.items()
    ]


def _profile(launch: Launch) -> AwsProfile:
    assert isinstance(launch.profile, AwsProfile)
    return launch.profile


def _fleet(profile: AwsProfile) -> Fleet:
    return Fleet(profile.workers_max, profile.gpus, profile.cpus)


TARGETS = {"aws": Target("aws", "AWS with spot workers, by ray up", AwsProfile, _check, _render, _ask, _submit)}
