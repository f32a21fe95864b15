"""The target `local`: this machine, all its GPUs, in the background."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lrstudy import child_process
from lrstudy.errors import ClusterError, Fault
from lrstudy_cluster.target import Launch, Profile, Submission, Target
from lrstudy_cluster.templates import fill


class LocalProfile(Profile):
    """What a launch on this machine asks for."""

    setup: Annotated[
        list[str], Field(default_factory=list, description="lines of shell that run first, such as modules to load")
    ]
    mps: Annotated[bool, Field(description="whether to start NVIDIA's MPS daemon, for trials that share a GPU")] = False


def _check(launch: Launch) -> list[Fault]:
    return []


def _render(launch: Launch) -> dict[str, str]:
    assert isinstance(launch.profile, LocalProfile)
    values = {
        "lrstudy": Path(sys.executable).with_name("lrstudy"),
        "study": str(launch.path),
        "overrides": list(launch.overrides),
        "setup": launch.profile.setup,
        "mps": launch.profile.mps,
    }
    return {"run.sh": fill("local", "run.sh", values)}


def _submit(launch: Launch, folder: Path) -> Submission:
    """Start the script in a session of its own, so that it outlives the terminal."""
    script, log = folder / "run.sh", folder / "run.log"
    try:
        process = child_process.start_detached(["bash", str(script)], log)
    except OSError as error:
        raise ClusterError(f"{script} cannot be started: {error.strerror}.") from error
    return Submission(f"process {process}", f"tail -f {log}", f"kill -TERM -- -{process}")


TARGETS = {
    "local": Target("local", "this machine, in the background", LocalProfile, _check, _render, lambda _: [], _submit)
}
