"""What is asked of a Kubernetes cluster, through kubectl, which knows the user's credentials."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrstudy import child_process
from lrstudy.errors import ClusterError, Fault, InputError

_TIMEOUT_S = 120.0
_REQUEST_TIMEOUT = "--request-timeout=20s"
_LOG_LINE = re.compile(r"[EIW]\d{4} ")
_FINISHED = ("Complete", "Failed", "ValidationFailed")


@dataclass(frozen=True)
class Site:
    """A namespace of a Kubernetes cluster.

    Every question raises ClusterError if the cluster cannot be reached or refuses to answer, and InputError if there is
    no kubectl.
    """

    context: str | None
    namespace: str

    @property
    def shown(self) -> str:
        """The beginning of a kubectl command for this place, as a user types it."""
        return shlex.join(["kubectl", *(["--context", self.context] if self.context else []), "-n", self.namespace])

    def missing_kind(self, plural: str) -> list[Fault]:
        """A fault if the cluster has no `plural` (rayjobs or raycronjobs) of the version ray.io/v1."""
        found = self._get("/apis/ray.io/v1")
        kinds = [one["name"] for one in (found or {}).get("resources", [])]
        if plural in kinds:
            return []
        gate = " with the feature gate RayCronJob" if plural == "raycronjobs" else ""
        return [
            Fault(
                "kuberay",
                f"the cluster has no {plural} of ray.io/v1",
                advice=f"Install the KubeRay operator, version 1.7 or later{gate}.",
            )
        ]

    def volume_faults(self, claim: str) -> list[Fault]:
        """Faults of a PersistentVolumeClaim that all nodes are to write."""
        found = self._get(f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/{claim}")
        if found is None:
            return [Fault("profile.volume", f"there is no PersistentVolumeClaim {claim} in namespace {self.namespace}")]
        modes = found.get("spec", {}).get("accessModes", [])
        if "ReadWriteMany" not in modes:
            return [Fault("profile.volume", expected=f"{claim} with ReadWriteMany", got=", ".join(modes) or "no mode")]
        return []

    def running_faults(self, name: str) -> list[Fault]:
        """A fault if a RayJob of this name has not finished."""
        if (state := self._state(name)) in (None, *_FINISHED):
            return []
        advice = f"Follow it, or stop it with {self.shown} delete rayjob {name}."
        return [Fault("study", f"a RayJob {name} is there already ({state})", advice=advice)]

    def delete_finished(self, name: str) -> None:
        """Delete the RayJob of this name if it has finished; its place is needed."""
        if self._state(name) in _FINISHED:
            self._succeed("delete", "rayjob", name, "--wait=true")

    def try_out(self, text: str) -> None:
        """Let the cluster check resources, without making them. Raises InputError if it refuses them."""
        answer = self._run(
            "apply", "--server-side", "--field-manager=lrstudy", "--dry-run=server", "-f", "-", text=text
        )
        if answer.returncode:
            raise InputError(Fault("kuberay", f"the cluster does not take the RayJob: {_said(answer)}"))

    def apply(self, file: Path) -> None:
        """Make the resources of a file."""
        # On the server's side: the other way keeps a second copy in an annotation, which holds only 256 KiB.
        self._succeed("apply", "--server-side", "--field-manager=lrstudy", "-f", str(file))

    def _state(self, name: str) -> str | None:
        """How far a RayJob is; None if there is none."""
        found = self._get(f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs/{name}")
        return None if found is None else str(found.get("status", {}).get("jobDeploymentStatus") or "Initializing")

    def _get(self, path: str) -> Mapping[str, Any] | None:
        answer = self._run("get", "--raw", path)
        if answer.returncode == 0:
            found: Mapping[str, Any] = json.loads(answer.stdout)
            return found
        if "(NotFound)" in _said(answer):
            return None
        raise ClusterError(f"kubectl cannot ask the cluster for {path}: {_said(answer)}")

    def _succeed(self, *arguments: str) -> None:
        answer = self._run(*arguments)
        if answer.returncode:
            raise ClusterError(f"kubectl {arguments[0]} failed: {_said(answer)}")

    def _run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[bytes]:
        command = [*shlex.split(self.shown), _REQUEST_TIMEOUT, *arguments]
        try:
            return child_process.run(command, stdin=text.encode(), timeout_s=_TIMEOUT_S)
        except FileNotFoundError:
            raise InputError(Fault("kuberay", "kubectl is not installed here, or not on the PATH")) from None
        except subprocess.TimeoutExpired:
            raise ClusterError(f"kubectl {arguments[0]} has not answered for {_TIMEOUT_S:.0f} s.") from None


def _said(answer: subprocess.CompletedProcess[bytes]) -> str:
    """What kubectl said of a failure, on one line, without its log, which repeats it."""
    lines = answer.stderr.decode(errors="replace").split("\n")
    return " ".join(line.strip() for line in lines if line.strip() and not _LOG_LINE.match(line))
