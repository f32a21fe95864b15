"""Who reaches a real cluster and who does not: the right token, a wrong one, none; and what is said to whom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from lrstudy.errors import InputError
from lrstudy.ray_tune import cluster_token, reach
from ray_nodes import RAY, RayNodes, free_port

pytestmark = pytest.mark.slow

TOKENS = ("right", "wrong", "none")


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    """A user without a token; what a test lets Ray read in this process is forgotten at its end."""
    for name in (cluster_token.MODE, cluster_token.TOKEN, cluster_token.PATH, "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    monkeypatch.undo()
    reach.reread_environment()


@pytest.fixture(scope="module")
def open_nodes():
    """A cluster of one node that asks nobody for a token."""
    nodes = RayNodes(has_token=False)
    try:
        nodes.start_head(has_dashboard=False)
        yield nodes
    finally:
        nodes.close()


@pytest.fixture
def held(tmp_path, monkeypatch, ray_nodes):
    """Lets the user hold a token: the right one, a wrong one or none; returns the variables that say so."""

    def hold(which: str) -> dict[str, str]:
        text = {"right": ray_nodes.token.read_text(), "wrong": "0" * 64}.get(which)
        if text:
            cluster_token.write(tmp_path / which, text)
        monkeypatch.setenv(cluster_token.PATH, str(tmp_path / which) if text else "")
        return {cluster_token.MODE: "token", cluster_token.PATH: os.environ[cluster_token.PATH]}

    return hold


def test_the_right_token_reaches_the_cluster_and_ray_is_told_to_use_it(ray_nodes, held):
    held("right")
    assert reach.reach(ray_nodes.address) == ray_nodes.address
    assert os.environ[cluster_token.MODE] == "token"


def test_auto_is_the_address_that_the_environment_names(ray_nodes, held, monkeypatch):
    held("right")
    monkeypatch.setenv("RAY_ADDRESS", ray_nodes.address)
    assert reach.reach("auto") == ray_nodes.address


def test_a_wrong_token_is_refused_with_the_file_that_it_came_from(ray_nodes, held, tmp_path):
    held("wrong")
    with pytest.raises(InputError, match=f"{ray_nodes.address} refuses the token from {tmp_path}/wrong") as raised:
        reach.reach(ray_nodes.address)
    assert "0" * 64 not in str(raised.value)


def test_without_a_token_the_user_is_told_how_to_have_one(ray_nodes, held):
    held("none")
    with pytest.raises(InputError, match="there is no token"):
        reach.reach(ray_nodes.address)


def test_a_token_that_others_can_read_is_not_used(ray_nodes, held, tmp_path):
    held("right")
    (tmp_path / "right").chmod(0o644)
    with pytest.raises(InputError, match="may be read by others"):
        reach.reach(ray_nodes.address)


def test_an_open_cluster_is_refused_unless_the_user_accepts_it(open_nodes, ray_nodes, held):
    held("right")
    with pytest.raises(InputError, match="runs without a token: whoever reaches its ports can run code as its owner"):
        reach.reach(open_nodes.address)
    assert reach.reach(open_nodes.address, without_token=True) == open_nodes.address
    assert os.environ[cluster_token.MODE] == "disabled"
    with pytest.raises(InputError, match=f"--without-token: the Ray cluster at {ray_nodes.address} asks for a token"):
        reach.reach(ray_nodes.address, without_token=True)


def test_a_cluster_that_is_not_there_is_noticed_at_once(monkeypatch):
    begun = time.monotonic()
    port = free_port()
    with pytest.raises(InputError, match=rf"cannot reach the Ray cluster at 127.0.0.2:{port} \(.*refused\)"):
        reach.reach(f"127.0.0.2:{port}")
    assert time.monotonic() - begun < 30  # Ray itself waits 60 s


@pytest.mark.parametrize(
    "address", ["nowhere", "host:0", "host:70000", "ray://host:10001", "http://host:8265", ":6379"]
)
def test_what_is_no_address_is_said_to_be_none(address):
    with pytest.raises(InputError, match=f"--address: expected auto or HOST:PORT; got '{address}'"):
        reach.reach(address)


def test_a_host_that_is_no_node_of_the_cluster_is_told_so():
    with pytest.raises(InputError, match=r"is no node of the Ray cluster at a:1 \(203\.0\.113\.9\)"):
        reach._require_node_here("a:1", [SimpleNamespace(node_manager_address="203.0.113.9")])


INIT = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print(len(ray.nodes()))"


def test_ray_itself_admits_the_right_token_alone(ray_nodes, held):
    """The table that docs/security.md shows: who may connect, join as a node, and submit a job."""
    join = ["--node-ip-address=127.0.0.9", "--num-cpus=1", "--object-store-memory=80000000"]
    started, submitted = {}, {}
    for which in TOKENS:
        variables = {**os.environ, **held(which), "RAY_NUM_REDIS_GET_RETRIES": "2"}  # else it tries again for 20 s
        commands = {"init": [sys.executable, "-c", INIT, ray_nodes.address]}
        if which != "right":  # with it, the second node has joined
            commands["join"] = [*RAY, "start", f"--address={ray_nodes.address}", *join]
        for what, command in commands.items():
            started[what, which] = subprocess.Popen(
                command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        submitted[which] = _submit(ray_nodes, variables[cluster_token.PATH])
    said = {key: process.communicate(timeout=100)[0].decode() for key, process in started.items()}
    admitted = {key: process.returncode == 0 for key, process in started.items()}
    assert admitted == {key: key == ("init", "right") for key in started}, said
    assert submitted == {"right": 200, "wrong": 403, "none": 401}
    assert ray_nodes.num_living() == 2


def _submit(nodes: RayNodes, token_file: str) -> int:
    """The status with which the Jobs API answers to the submission of a job."""
    token = f"Bearer {Path(token_file).read_text()}" if token_file else ""
    request = urllib.request.Request(
        f"http://127.0.0.1:{nodes.dashboard}/api/jobs/",
        json.dumps({"entrypoint": "true"}).encode(),
        {"Content-Type": "application/json", **({"Authorization": token} if token else {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
