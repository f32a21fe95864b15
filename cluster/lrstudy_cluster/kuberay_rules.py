"""What the KubeRay operator asks of a RayJob beyond its schema; a resource that breaks a rule is accepted, then fails."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML

from lrstudy.errors import Fault

_LONGEST = {"RayJob": 47, "RayCronJob": 36}
"""The operator appends to names, and what it makes must have at most 63 letters."""
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_OLDEST_WITH_TOKENS = (2, 52)
_FIELD = r"[\dA-Za-z*/,?-]+"
_SCHEDULE = re.compile(rf"@(yearly|annually|monthly|weekly|daily|midnight|hourly)|@every \S+|{_FIELD}( +{_FIELD}){{4}}")


def faults(text: str) -> list[Fault]:
    """The rules that the RayJobs and RayCronJobs of a YAML file break."""
    documents = [found for found in YAML(typ="safe", pure=True).load_all(text) if found]
    return [fault for found in documents if found["kind"] in _LONGEST for fault in _of_document(found)]


def _of_document(document: Mapping[str, Any]) -> Iterator[Fault]:
    kind, name, spec = document["kind"], document["metadata"]["name"], document["spec"]
    if len(name) > _LONGEST[kind] or not _NAME.fullmatch(name):
        yield Fault(
            "profile.job_name",
            expected=f"for a {kind} at most {_LONGEST[kind]} small letters, digits and '-', beginning with a letter",
            got=f"{name} ({len(name)} characters)",
            advice="Give another with --set job_name=NAME.",
        )
    if kind == "RayCronJob":
        schedule = spec["schedule"]
        if not _SCHEDULE.fullmatch(schedule):
            expected = "five fields as of cron, such as '0 3 * * 1', or @weekly; a time zone goes into time_zone"
            yield Fault("profile.schedule", expected=expected, got=repr(schedule))
        spec = spec["jobTemplate"]
    yield from _of_job(spec)


def _of_job(spec: Mapping[str, Any]) -> Iterator[Fault]:
    if spec.get("backoffLimit") and ("clusterSelector" in spec or spec.get("submissionMode") == "InteractiveMode"):
        yield Fault("spec.backoffLimit", "it excludes clusterSelector and InteractiveMode")
    if not isinstance(spec.get("runtimeEnvYAML", ""), str):
        yield Fault("spec.runtimeEnvYAML", expected="YAML in a text")
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if field in spec and spec[field] <= 0:
            yield Fault(f"spec.{field}", expected="a whole number above 0", got=str(spec[field]))
    cluster = spec["rayClusterSpec"]
    yield from _of_token(cluster)
    groups = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
    for group in groups:
        yield from _of_group(group, is_v2=cluster.get("autoscalerOptions", {}).get("version") == "v2")


def _of_token(cluster: Mapping[str, Any]) -> Iterator[Fault]:
    authentication = cluster.get("authOptions", {})
    if authentication.get("mode") != "token":
        yield Fault("authOptions.mode", expected="token: without it anybody in the network may run code")
    if "enableK8sTokenAuth" in authentication:
        yield Fault("authOptions.enableK8sTokenAuth", "a RayJob does not support it")
    version = re.match(r"(\d+)\.(\d+)\.", cluster.get("rayVersion", ""))
    if not version or (int(version[1]), int(version[2])) < _OLDEST_WITH_TOKENS:
        yield Fault("rayVersion", expected="2.52.0 or later, which has tokens", got=repr(cluster.get("rayVersion")))


def _of_group(group: Mapping[str, Any], is_v2: bool) -> Iterator[Fault]:
    where = group.get("groupName", "head")
    if not all(isinstance(value, str) for value in group.get("rayStartParams", {}).values()):
        yield Fault(f"{where}.rayStartParams", expected="texts: put numbers in quotes")
    if is_v2 and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
        yield Fault(f"{where}.restartPolicy", expected="Never, for the autoscaler v2")
    if not 0 <= group.get("minReplicas", 0) <= group.get("maxReplicas", 0):
        yield Fault(f"{where}.minReplicas", expected="at least 0 and at most maxReplicas")
