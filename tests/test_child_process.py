"""Child processes start whatever the threads of this process do to its environment."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap

import pytest

from lrstudy import child_process
from lrstudy.ray_tune.local_ray import LocalRay
from lrstudy.workload.devices import Resources
from test_layers import OURS, REPORTS

CHILDREN = 60
"""Beside a thread that only sets variables, 132 of 300 children failed that inherited the environment."""

STARTERS = {
    "numerics": "from lrstudy.workload import numerics; start = lambda: numerics.probe('cpu', 1)",
    "compiler": "from lrstudy.workload import numerics; start = lambda: assert_(numerics._compiler() == '{}')",
    "contract": """
        from lrstudy.policies import contract, resolve
        policy = resolve("constant")(lr=0.1, batch_size=8)
        start = lambda: list(contract._in_a_fresh_process(policy, ()))
    """,
}
PROGRAM = """
import os, sys, threading

sys.executable = os.environ["CXX"] = sys.argv[1]  # prints {} and ends: Python itself would take a second to start

def assert_(holds):
    assert holds

def set_variables():
    number = 0
    while not is_over.is_set():
        number += 1
        os.environ[f"VARIABLE_{number % 500}"] = "x" * (number % 50)
        if number % 500 == 0:
            for k in range(500):
                del os.environ[f"VARIABLE_{k}"]

START
is_over = threading.Event()
thread = threading.Thread(target=set_variables)
thread.start()
try:
    for _ in range(CHILDREN):
        start()
finally:
    is_over.set()
    thread.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize("starter", STARTERS)
def test_children_start_while_a_thread_sets_variables(tmp_path, starter):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho '{}'\n")
    program.chmod(0o755)
    code = PROGRAM.replace("START", textwrap.dedent(STARTERS[starter])).replace("CHILDREN", str(CHILDREN))
    done = subprocess.run([sys.executable, "-c", code, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_child_has_our_environment_and_its_own_variables(monkeypatch):
    monkeypatch.setenv("LRSTUDY_ONE", "1")
    monkeypatch.setenv("LRSTUDY_TWO", "1")
    done = child_process.run(
        ["sh", "-c", "echo $LRSTUDY_ONE $LRSTUDY_TWO; cat"], stdin=b"x", variables={"LRSTUDY_TWO": "2"}
    )
    assert done.stdout == b"1 2\nx"


BEFORE_RAY = tuple(f"lrstudy.ray_tune.{name}" for name in ("connection", "cluster_token", "reach"))
"""They set what Ray reads, before any thread of Ray or of ours runs."""


@pytest.mark.parametrize("module", sorted({**OURS, **REPORTS}))
def test_one_module_starts_children_and_those_that_open_ray_set_variables(module):
    for node in ast.walk(ast.parse({**OURS, **REPORTS}[module].read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and module != "lrstudy.child_process":
            names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
            assert "subprocess" not in names, f"{module}, line {node.lineno}: use lrstudy.child_process"
        if module not in BEFORE_RAY:
            assert not _sets_a_variable(node), f"{module}, line {node.lineno} changes the environment"


def _sets_a_variable(node: ast.AST) -> bool:
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    if any(isinstance(target, ast.Subscript) and ast.unparse(target.value) == "os.environ" for target in targets):
        return True
    changing = (
        "os.putenv",
        "os.unsetenv",
        *(f"os.environ.{name}" for name in ("update", "setdefault", "pop", "clear")),
    )
    return isinstance(node, ast.Call) and ast.unparse(node.func) in changing


def test_the_environment_is_set_before_ray_has_a_thread(monkeypatch):
    """LocalRay sets Tune's variables when it is entered; a study enters it first, before it decodes or probes anything."""
    monkeypatch.delenv("TUNE_GLOBAL_CHECKPOINT_S", raising=False)
    monkeypatch.setenv("RAY_DEDUP_LOGS", "1")
    with LocalRay(Resources("cpu", 1, 1.0), 1):
        assert os.environ["TUNE_GLOBAL_CHECKPOINT_S"] == "3600"
        assert os.environ["RAY_DEDUP_LOGS"] == "1", "what somebody has set stays"
