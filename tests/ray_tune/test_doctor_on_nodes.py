"""`lrstudy doctor` and the preflight of a run, on real nodes and on none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ray_nodes import doctor, variables
from serial import SMALL

pytestmark = pytest.mark.slow

CHECK = """
import sys
from lrstudy.doctor.examine import Needs, preflight
from lrstudy.doctor.nodes import Answer
from lrstudy.ray_tune.every_node import connected, every_node
def with_another(function, *arguments, **options):
    answers = every_node(function, *arguments, **options)
    changed = {**answers[-1].value, "torch": "1.0"} if isinstance(answers[-1].value, dict) else answers[-1].value
    return [*answers[:-1], Answer(answers[-1].node, changed)]
with connected(sys.argv[1]):
    preflight(every_node, Needs(sys.argv[2]))
    print("sound", flush=True)
    preflight(with_another, Needs(sys.argv[2]))
"""


def test_the_preflight_lets_a_run_start_only_on_sound_nodes(ray_nodes, tmp_path):
    """Two nodes that are alike pass; if the last one answered that it has another torch, they do not."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, ray_nodes.address, str(tmp_path)],
        env=ray_nodes.environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.stdout == "sound\n", done.stderr
    assert done.returncode == 1
    (said,) = done.stderr.split("lrstudy.errors.InputError: ")[1:]
    assert said.startswith("versions on ")
    assert "(127.0.0.3): torch 1.0 there" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("token", "measured"),
    [("wrong", "refuses the token from"), (None, "there is no token"), ("others", "may be read by others (mode 0644)")],
)
def test_a_token_that_does_not_do_is_a_failed_check(ray_nodes, tmp_path, token, measured):
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(ray_nodes.token.read_text() if token == "others" else "0" * 64)
    file.chmod(0o644 if token == "others" else 0o600)
    environment = {**os.environ, **variables(file), "HOME": str(tmp_path)}
    if token is None:
        environment["RAY_AUTH_TOKEN_PATH"] = ""
    code, (finding,) = doctor(environment, "--address", ray_nodes.address)
    assert (code, finding["check"], finding["status"]) == (1, "token", "fail")
    assert measured in finding["measured"]


def test_a_cluster_that_is_not_there_is_a_failed_check(tmp_path):
    code, (finding,) = doctor({**os.environ}, "--address", "127.0.0.2:9")
    assert (code, finding["check"]) == (1, "address")
    assert finding["measured"].startswith("cannot reach the Ray cluster at 127.0.0.2:9")


def test_a_run_with_a_wrong_token_ends_before_anything_is_made(ray_nodes, tmp_path):
    file, token = tmp_path / "study.yaml", tmp_path / "token"
    file.write_text(f"{SMALL}storage: {{path: runs}}\n")
    token.touch(0o600)
    token.write_text("0" * 64)
    code = "from lrstudy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(file), "--address", ray_nodes.address],
        env={**os.environ, **variables(token)}, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"lrstudy: token: the Ray cluster at {ray_nodes.address} refuses the token from {token}"
    )
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
