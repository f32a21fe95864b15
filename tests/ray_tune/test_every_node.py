"""A function runs on every node of a real cluster; a node that does not answer, or cannot, is said to."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ASK = """
import json, os, sys, time
from dataclasses import asdict
from lrstudy.doctor.nodes import Node, all_gpus
from lrstudy.ray_tune.every_node import connected, every_node
with connected(sys.argv[1]):
    asked = {
        "devices": every_node(os.getenv, "CUDA_VISIBLE_DEVICES", gpus=all_gpus),
        "raised": every_node(os.listdir, "/nowhere"),
        "silent": every_node(time.sleep, 60, gpus=all_gpus, timeout_s=1.0),
        "died": every_node(os.abort),
        "gone": every_node(os.getpid, only=[Node("ab" * 28, "gone")], timeout_s=5.0),
        "after": every_node(os.cpu_count),
    }
    import only_here
    asked["lacking"] = every_node(only_here.function)
print(json.dumps({name: [asdict(answer) for answer in answers] for name, answers in asked.items()}))
"""


@pytest.fixture(scope="module")
def asked(ray_nodes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    (folder / "only_here.py").write_text("def function():\n    return 1\n")
    script = folder / "ask.py"
    script.write_text(ASK)
    done = subprocess.run(
        [sys.executable, str(script), ray_nodes.address],
        env={**ray_nodes.environment, "PYTHONPATH": str(folder)},  # safe paths may be set, by a Ray of this process
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_node_answers_the_head_first(asked):
    nodes = [answer["node"] for answer in asked["devices"]]
    assert [(node["address"], node["is_head"], node["gpus"]) for node in nodes] == [
        ("127.0.0.2", True, 0.0),
        ("127.0.0.3", False, 1.0),
    ]


def test_a_node_hands_out_its_gpus_if_it_is_asked_for_them(asked):
    assert [answer["value"] for answer in asked["devices"]] == [None, "0"]


def test_what_a_node_raises_is_its_answer(asked):
    for answer in asked["raised"]:
        assert answer["error"] == "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere'"


def test_a_node_that_is_silent_is_given_up_and_can_be_asked_again(asked):
    lost = "it is lost, or cannot start worker processes"
    assert [answer["error"] for answer in asked["silent"]] == [
        f"no answer within 1 s: {lost}",
        f"no answer within 1 s: its GPU is taken by somebody else's work, or {lost}",
    ]
    assert all(answer["value"] for answer in asked["after"])


def test_a_worker_that_dies_and_a_node_that_is_gone_are_answers_too(asked):
    assert all("its task failed (WorkerCrashedError" in answer["error"] for answer in asked["died"])
    assert asked["gone"][0]["error"]
    assert asked["gone"][0]["value"] is None


def test_a_node_without_the_function_says_that_lrstudy_is_missing_or_another_version(asked):
    for answer in asked["lacking"]:
        assert answer["error"].startswith("lrstudy cannot be used there (No module named 'only_here')")


def test_an_answer_knows_when_it_was_asked_and_given(asked):
    for answer in [*asked["devices"], *asked["after"]]:
        assert 0 < answer["asked_at"] < answer["answered_at"]
