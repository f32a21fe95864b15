"""The target `job`: a Ray cluster that is there already, through its Jobs API."""

from __future__ import annotations

import json
import shlex
import sys
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from pydantic import Field

from lrstudy import child_process
from lrstudy.errors import ClusterError, Fault, faults_of, user_path
from lrstudy_cluster import token, travelling
from lrstudy_cluster.target import Launch, Profile, Submission, Target
from lrstudy_cluster.templates import fill

_MOST_BYTES = 100 * 2**20
"""Ray refuses a larger upload, after it has been sent."""
_TIMEOUT_S = 20.0
_UPLOAD_TIMEOUT_S = 600.0
_FINISHED = ("STOPPED", "SUCCEEDED", "FAILED")


class JobProfile(Profile):
    """What a launch asks of a Ray cluster that is there already."""

    address: Annotated[
        str,
        Field(
            pattern=r"^https?://[^\s/]+$", description="its dashboard, such as http://127.0.0.1:8265 through a tunnel"
        ),
    ] = "http://127.0.0.1:8265"
    token_file: Annotated[str, Field(min_length=1, description="a file with its token")] = "~/.ray/auth_token"
    shared_folder: Annotated[
        str | None, Field(pattern=r"^/", description="a folder that all its nodes share, if not a bucket")
    ] = None
    slots: Annotated[
        int | None, Field(ge=1, description="how many trials may run at once; by default as many as its nodes take now")
    ] = None
    setup: Annotated[
        list[str], Field(default_factory=list, description="lines of shell that the driver runs first, on its head")
    ]


def _check(launch: Launch) -> list[Fault]:
    profile = _profile(launch)
    how = "For a folder that all nodes share: --set shared_folder=FOLDER."
    found = travelling.faults(launch, profile.shared_folder, how)
    address = urlsplit(profile.address)
    if address.scheme == "http" and address.hostname not in ("127.0.0.1", "localhost", "::1"):
        expected = "https://, or http:// to this machine: the token would cross the network in clear text"
        advice = f"Make a tunnel: ssh -N -L 8265:127.0.0.1:8265 {address.hostname}"
        found.append(Fault("profile.address", expected=expected, got=profile.address, advice=advice))
    found += faults_of(lambda: token.read(_token_file(profile), "profile.token_file"))
    if not found and (size := sum(map(len, _files(launch).values()))) > _MOST_BYTES:
        problem = f"with its code and workload.files it takes {size / 2**20:.0f} MiB, and Ray uploads at most 100"
        advice = "Put large files where the nodes have them, such as into their image."
        found.append(Fault("study", problem, advice=advice))
    return found


def _render(launch: Launch) -> dict[str, str | bytes]:
    profile = _profile(launch)
    values = {
        "ray": _ray(),
        "address": profile.address,
        "token_file": str(_token_file(profile)),
        "identity": _identity(launch),
    }
    files = {f"study/{path}": content for path, content in _files(launch).items()}
    return {"submit.sh": fill("job", "submit.sh", values), **files}


def _ask(launch: Launch) -> list[Fault]:
    """Whether the cluster asks for a token, takes ours, has our version of Ray, and does not run the study yet."""
    profile = _profile(launch)
    if _request(profile, "/api/jobs/", with_token=False) is not None:
        problem = f"{profile.address} takes jobs from anybody who reaches it"
        advice = "Start the cluster's Ray with RAY_AUTH_MODE=token on every node."
        return [Fault("profile.address", problem, advice=advice)]
    if _request(profile, "/api/jobs/") is None:
        return [Fault("profile.token_file", f"{profile.address} does not take the token in {profile.token_file}")]
    theirs, ours = str((_request(profile, "/api/version") or {}).get("ray_version")), version("ray")
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        return [Fault("profile.address", expected=f"a cluster with Ray {ours}, as here", got=theirs)]
    if (state := _state(launch)) in (None, *_FINISHED):
        return []
    advice = "Follow or stop it, or launch this one with another name (name=NAME)."
    return [Fault("study", f"the cluster has a job {_identity(launch)} already ({state})", advice=advice)]


def _submit(launch: Launch, folder: Path) -> Submission:
    profile, identity = _profile(launch), _identity(launch)
    if _state(launch) in _FINISHED:  # its name is needed; what it recorded lies in the storage
        _request(profile, f"/api/jobs/{quote(identity)}", method="DELETE")
    answer = child_process.run(["bash", str(folder / "submit.sh")], timeout_s=_UPLOAD_TIMEOUT_S)
    if answer.returncode:
        said = (answer.stderr or answer.stdout).decode(errors="replace").strip().splitlines()
        raise ClusterError(f"ray job submit failed: {said[-1] if said else 'it says nothing'}")
    ray = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={shlex.quote(str(_token_file(profile)))} {shlex.quote(_ray())} job"
    where = f"--address {shlex.quote(profile.address)}"
    return Submission(f"job {identity}", f"{ray} logs {where} --follow {identity}", f"{ray} stop {where} {identity}")


def _profile(launch: Launch) -> JobProfile:
    assert isinstance(launch.profile, JobProfile)
    return launch.profile


def _identity(launch: Launch) -> str:
    """The job's name there: a study has one, so that it cannot run twice at a time."""
    return f"lrstudy-{launch.study.name}"


def _files(launch: Launch) -> dict[str, bytes]:
    profile = _profile(launch)
    return travelling.packed(launch, profile.slots, profile.setup)


def _token_file(profile: JobProfile) -> Path:
    return user_path(profile.token_file, "profile.token_file").absolute()


def _ray() -> str:
    """Ray's command, of the environment that this runs in."""
    return str(Path(sys.executable).with_name("ray"))


def _state(launch: Launch) -> str | None:
    """How far the study's job is; None if there is none."""
    found = _request(_profile(launch), f"/api/jobs/{quote(_identity(launch))}")
    return found.get("status") if found else None


def _request(profile: JobProfile, path: str, method: str = "GET", with_token: bool = True) -> dict[str, Any] | None:
    """What the cluster answers; None if it refuses the token, {} if there is nothing at `path`. Raises ClusterError."""
    request = urllib.request.Request(f"{profile.address}{path}", method=method)
    if with_token:
        secret = token.read(_token_file(profile), "profile.token_file")
        request.add_unredirected_header("Authorization", f"Bearer {secret}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            found = json.load(answer)
            return found if isinstance(found, dict) else {"found": found}
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return None
        if error.code == 404:
            return {}
        raise ClusterError(f"{profile.address} answers {error.code} to {path}.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ClusterError(f"there is no Ray cluster that answers at {profile.address}: {reason}") from error


TARGETS = {"job": Target("job", "a Ray cluster that is there already", JobProfile, _check, _render, _ask, _submit)}
