"""The target `onprem`: given hosts, reached over ssh, by `ray up`."""

from __future__ import annotations

import getpass
import shlex
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lrstudy.errors import Fault
from lrstudy_cluster import ray_up, travelling
from lrstudy_cluster.ray_up import RayUpProfile
from lrstudy_cluster.target import Launch, Submission, Target
from lrstudy_cluster.templates import fill

Host = Annotated[str, Field(pattern=r"^\d{1,3}(\.\d{1,3}){3}$", description="an IPv4 address")]


class OnpremProfile(RayUpProfile):
    """What a launch asks of given hosts."""

    hosts: Annotated[
        list[Host], Field(min_length=1, description="a list of IPv4 addresses, the head first; all of them run trials")
    ]
    ssh_user: Annotated[str, Field(min_length=1, default_factory=getpass.getuser, description="the user of ssh there")]
    shared_folder: Annotated[
        str | None, Field(pattern=r"^/", description="a folder that all hosts share, such as /mnt/nfs, if not a bucket")
    ] = None
    slots: Annotated[
        int | None, Field(ge=1, description="how many trials may run at once; by default as many as the hosts take")
    ] = None


def _check(launch: Launch) -> list[Fault]:
    profile = _profile(launch)
    how = "For a folder that all hosts share: --set shared_folder=FOLDER."
    found = travelling.faults(launch, profile.shared_folder, how) + ray_up.here_faults(profile)
    if len(set(profile.hosts)) < len(profile.hosts):
        found.append(Fault("profile.hosts", expected="each host once", got=", ".join(profile.hosts)))
    return found or ray_up.faults(str(_render(launch)["cluster.yaml"]))


def _render(launch: Launch) -> dict[str, str | bytes]:
    profile = _profile(launch)
    head, *_ = profile.hosts
    values = {"head_ip": head, "head_works": True, "watches_spot": False, "is_local": True}
    known = {**profile.model_dump(), "folder": ray_up.folder(launch), "ssh_key": ray_up.key(profile)}
    return {**ray_up.files(launch, "onprem", profile.slots, [], values), "down.sh": fill("onprem", "down.sh", known)}


def _submit(launch: Launch, folder: Path) -> Submission:
    ray_up.up(folder)
    stop = f"bash {shlex.quote(str(folder / 'down.sh'))}"
    return Submission(f"cluster {ray_up.name(launch)}", ray_up.follow(launch, folder), stop)


def _profile(launch: Launch) -> OnpremProfile:
    assert isinstance(launch.profile, OnpremProfile)
    return launch.profile


TARGETS = {
    "onprem": Target("onprem", "given hosts over ssh, by ray up", OnpremProfile, _check, _render, lambda _: [], _submit)
}
