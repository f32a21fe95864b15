"""What the targets of `ray up` share: their files, Ray's own check of a cluster's file, and the way up."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from ruamel.yaml import YAML

from lrstudy import child_process
from lrstudy.errors import ClusterError, Fault
from lrstudy_cluster import travelling, uploads
from lrstudy_cluster.target import Launch, Profile
from lrstudy_cluster.templates import fill

_UP_TIMEOUT_S = 3600.0
_VALIDATE = """
import sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
try:
    validate_config(prepare_config(yaml.safe_load(sys.stdin)))
except Exception as error:
    sys.exit(f"{getattr(error, 'message', error)}")
"""
"""Run in a process of its own, since launching imports no Ray."""


class RayUpProfile(Profile):
    """What both kinds of clusters that `ray up` starts are asked for."""

    ssh_user: Annotated[str, Field(min_length=1, description="the user of ssh on every node")] = "ubuntu"
    ssh_key: Annotated[str | None, Field(description="the private key of ssh, by default ssh's own choice")] = None
    port: Annotated[int, Field(ge=1024, le=65535, description="a port of the head for Ray, from 1024")] = 6379
    dashboard_port: Annotated[int, Field(ge=1024, le=65535, description="one for its jobs, on 127.0.0.1 alone")] = 8265
    uploads: Annotated[dict[str, str], Field(default_factory=dict, description=uploads.DESCRIPTION)]
    install: Annotated[
        list[str], Field(default_factory=list, description="lines of shell that install lrstudy on a node")
    ]
    setup: Annotated[
        list[str], Field(default_factory=list, description="lines of shell that put lrstudy on the PATH of a node")
    ]


def name(launch: Launch) -> str:
    """The cluster's name: every study has a cluster of its own."""
    return f"lrstudy-{launch.study.name}"


def folder(launch: Launch) -> str:
    """The folder of a study on every node."""
    return f"~/lrstudy/{launch.study.name}"


def files(
    launch: Launch, target: str, slots: int | None, overrides: list[str], values: Mapping[str, Any]
) -> dict[str, str | bytes]:
    """The files of a launch: cluster.yaml, the scripts, and the study with its code.

    `values` are those of the target's own templates, beside its profile's.
    """
    profile = launch.profile
    assert isinstance(profile, RayUpProfile)
    known = {
        **profile.model_dump(),
        "uploads": uploads.resolved(profile.uploads),
        "ssh_key": key(profile),
        "name": name(launch),
        "identity": name(launch),
        "folder": folder(launch),
        "bin": str(Path(sys.executable).parent),
        **values,
    }
    study = travelling.packed(launch, slots, profile.setup, overrides)
    return {
        "cluster.yaml": fill(target, "cluster.yaml", known),
        "node.sh": fill("shared", "node.sh", known),
        "up.sh": fill("shared", "up.sh", known),
        **{f"study/{path}": content for path, content in study.items()},
    }


def key(profile: RayUpProfile) -> str | None:
    """The absolute path of the private key that the profile names."""
    return profile.ssh_key and str(Path(profile.ssh_key).expanduser().absolute())


def here_faults(profile: RayUpProfile) -> list[Fault]:
    """Files of the profile that are not here."""
    found = uploads.faults(profile.uploads)
    if profile.ssh_key and not Path(profile.ssh_key).expanduser().is_file():
        found.append(Fault("profile.ssh_key", f"there is no file {profile.ssh_key}"))
    return found


def faults(text: str) -> list[Fault]:
    """What Ray finds wrong in a cluster's file, and what it does not look at: a node type above the cluster's limit."""
    answer = child_process.run_python(["-c", _VALIDATE], stdin=text.encode())
    if answer.returncode:
        lines = answer.stderr.decode(errors="replace").strip().splitlines()
        return [Fault("cluster.yaml", f"Ray does not take it: {lines[0] if lines else 'it says nothing'}")]
    cluster = YAML(typ="safe", pure=True).load(text)
    most = cluster["max_workers"]
    return [
        Fault(f"cluster.yaml: {kind}.max_workers", expected=f"at most that of the cluster, {most}", got=str(one))
        for kind, node in cluster.get("available_node_types", {}).items()
        if (one := node.get("max_workers", 0)) > most
    ]


def up(out: Path) -> None:
    """Start the cluster whose files lie in a folder, and hand it the study. Raises ClusterError."""
    log = out / "up.log"
    answer = child_process.run(["bash", str(out / "up.sh")], timeout_s=_UP_TIMEOUT_S)
    log.write_bytes(answer.stdout + answer.stderr)
    if answer.returncode:
        said = (answer.stdout + answer.stderr).decode(errors="replace").strip().splitlines()
        raise ClusterError(f"up.sh failed: {said[-1] if said else 'it says nothing'} (all of it: {log})")


def follow(launch: Launch, out: Path) -> str:
    """The command that follows the driver."""
    ray = shlex.quote(str(Path(sys.executable).with_name("ray")))
    return f"{ray} exec {shlex.quote(str(out / 'cluster.yaml'))} 'bash {folder(launch)}/node.sh follow'"
