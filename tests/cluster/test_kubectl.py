"""What is asked of a Kubernetes cluster: the real kubectl, against a server that knows a few resources."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lrstudy.errors import ClusterError, InputError
from lrstudy_cluster import launching
from lrstudy_cluster.kubectl import Site

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
BASE = ("image=registry.example/lrstudy:1", "volume=runs", "namespace=lab")
JOBS = "/apis/ray.io/v1/namespaces/lab/rayjobs/tiny"
CLAIM = "/api/v1/namespaces/lab/persistentvolumeclaims/runs"
STATUS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}


def resources(group: str, *names: tuple[str, str]) -> dict:
    listed = [{"name": name, "kind": kind, "namespaced": True, "verbs": ["get", "patch"]} for name, kind in names]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": listed}


def openapi(group: str, kind: str) -> dict:
    """Says that a kind can be tried out and that its fields are checked, which kubectl wants to know."""
    gvk = {"group": group, "version": "v1", "kind": kind}
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldValidation")]
    paths = {"/one": {"patch": {"parameters": parameters, "responses": {}, "x-kubernetes-group-version-kind": gvk}}}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": paths}


class Server(ThreadingHTTPServer):
    """As much of a Kubernetes API server as kubectl needs to get, try out, apply and delete single resources."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        version = {"groupVersion": "ray.io/v1", "version": "v1"}
        self.objects: dict[str, dict] = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [{"name": "ray.io", "versions": [version], "preferredVersion": version}],
            },
            "/api/v1": resources("v1", ("configmaps", "ConfigMap")),
            "/apis/ray.io/v1": resources("ray.io/v1", ("rayjobs", "RayJob")),
            "/openapi/v3": {
                "paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in ("api/v1", "apis/ray.io/v1")}
            },
            "/openapi/v3/api/v1": openapi("", "ConfigMap"),
            "/openapi/v3/apis/ray.io/v1": openapi("ray.io", "RayJob"),
            CLAIM: {"kind": "PersistentVolumeClaim", "spec": {"accessModes": ["ReadWriteMany"]}},
        }
        self.refusal = ""
        self.writes: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in self.server.objects:
            self._answer(200, self.server.objects[path])
        else:
            self._answer(404, {**STATUS, "reason": "NotFound", "message": "not found", "code": 404})

    def do_PATCH(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refusal:
            self._answer(400, {**STATUS, "reason": "BadRequest", "message": self.server.refusal, "code": 400})
            return
        self.server.writes.append(f"{'try' if 'dryRun=All' in query else 'apply'} {path}")
        self._answer(200, json.loads(json.dumps(_parsed(body))))

    def do_DELETE(self) -> None:
        path = self.path.partition("?")[0]
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.writes.append(f"delete {path}")
        del self.server.objects[path]
        self._answer(200, {**STATUS, "status": "Success"})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _parsed(body: bytes) -> dict:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(body)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        _use(f"http://127.0.0.1:{running.server_port}", tmp_path, monkeypatch)
        yield running
        running.shutdown()
        thread.join()


def _use(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point kubectl at an address, with nothing of the user's."""
    file = tmp_path / "kubeconfig"
    entry = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": ""}}],
        "current-context": "here",
    }
    file.write_text(json.dumps(entry))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kube-cache"))


def submit(prepared, folder: Path) -> launching.Submission:
    launching.write(prepared, folder)
    return launching.submit(prepared, folder)


def test_a_rayjob_is_tried_out_and_then_applied(prepare, server, tmp_path):
    submission = submit(prepare("kuberay", *BASE), tmp_path / "out")
    configmap = "/api/v1/namespaces/lab/configmaps/tiny"
    assert server.writes == [f"try {configmap}", f"try {JOBS}", f"apply {configmap}", f"apply {JOBS}"]
    assert submission.identity == "RayJob tiny"
    assert submission.follow == "kubectl -n lab logs --follow --selector=job-name=tiny"
    assert submission.stop == f"kubectl -n lab delete -f {tmp_path / 'out' / 'rayjob.yaml'}"


def test_a_finished_rayjob_makes_room_for_the_next_run(prepare, server, tmp_path):
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "tiny", "namespace": "lab", "uid": "1"}}
    server.objects[JOBS] = {**job, "status": {"jobDeploymentStatus": "Complete"}}
    submit(prepare("kuberay", *BASE), tmp_path / "out")
    assert f"delete {JOBS}" in server.writes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"/apis/ray.io/v1": None},
            "the cluster has no rayjobs of ray.io/v1. Install the KubeRay operator, version 1.7",
        ),
        ({CLAIM: None}, "profile.volume: there is no PersistentVolumeClaim runs in namespace lab"),
        ({CLAIM: {"spec": {"accessModes": ["ReadWriteOnce"]}}}, "expected runs with ReadWriteMany; got ReadWriteOnce"),
        ({JOBS: {"status": {"jobDeploymentStatus": "Running"}}}, "a RayJob tiny is there already (Running). Follow it"),
    ],
)
def test_what_the_cluster_lacks_is_said_before_anything_is_made(prepare, server, tmp_path, change, says):
    server.objects = {path: found for path, found in {**server.objects, **change}.items() if found is not None}
    with pytest.raises(InputError) as caught:
        submit(prepare("kuberay", *BASE), tmp_path / "out")
    assert says in str(caught.value)
    assert server.writes == []


def test_an_older_operator_refuses_the_fields_that_it_does_not_know(prepare, server, tmp_path):
    server.refusal = 'strict decoding error: unknown field "spec.preRunningDeadlineSeconds"'
    with pytest.raises(
        InputError, match=r'does not take the RayJob: .*unknown field "spec\.preRunningDeadlineSeconds"'
    ):
        submit(prepare("kuberay", *BASE), tmp_path / "out")
    assert server.writes == []


def test_a_schedule_needs_the_operators_gate(prepare, server, tmp_path):
    with pytest.raises(InputError, match=r"has no raycronjobs of ray\.io/v1.*with the feature gate RayCronJob"):
        submit(prepare("kuberay", *BASE, "schedule='@weekly'"), tmp_path / "out")


def test_a_cluster_that_is_away_is_said_so_in_one_line(prepare, tmp_path, monkeypatch):
    _use("http://127.0.0.1:1", tmp_path, monkeypatch)
    with pytest.raises(ClusterError) as caught:
        submit(prepare("kuberay", *BASE), tmp_path / "out")
    assert (
        "kubectl cannot ask the cluster for /apis/ray.io/v1: The connection to the server 127.0.0.1:1 was refused"
        in str(caught.value)
    )
    assert "\n" not in str(caught.value)


def test_without_kubectl_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="kubectl is not installed here"):
        Site(None, "lab").missing_kind("rayjobs")
