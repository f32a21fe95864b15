"""Child processes of ours: every one is started here, with an environment of its own.

Without one the new program reads the environment of this process while it is being started. A thread that sets a
variable meanwhile, as starting Ray does, may free that memory, and the start fails with EFAULT: 1 of 2,074 children
while Ray came up, 132 of 300 beside a thread that did nothing else.

A child that is Python does not search the current folder for modules: a study may be run in any folder, and a `json.py`
or `lrstudy.py` in it is not ours to run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def run(
    command: Sequence[str],
    *,
    stdin: bytes | None = None,
    variables: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end; its output is captured, and a failure is the caller's to see in `returncode`.

    Args:
        command: The program and its arguments.
        stdin: What it can read from its standard input; nothing by default.
        variables: Environment variables that it gets beside those of this process, or in their place.
        timeout_s: Seconds after which it is killed; no limit by default.

    Raises:
        OSError: The program cannot be started.
        subprocess.TimeoutExpired: It took longer than `timeout_s`.
    """
    environment = {**environment_copy(), **(variables or {})}
    return subprocess.run(command, input=stdin, env=environment, timeout=timeout_s, capture_output=True, check=False)


def run_python(
    arguments: Sequence[str],
    *,
    stdin: bytes | None = None,
    variables: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """`run` for this Python with some arguments, such as ``-m`` and a module; the current folder is not on its path."""
    return run([sys.executable, "-P", *arguments], stdin=stdin, variables=variables, timeout_s=timeout_s)


def start_detached(command: Sequence[str], log: Path) -> int:
    """Start a command that outlives this process and its terminal; returns its process, which leads a group of its own.

    Args:
        command: The program and its arguments.
        log: The file that its output is appended to.

    Raises:
        OSError: The program cannot be started, or the file cannot be written.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment_copy(),
            start_new_session=True,
        ).pid


def environment_copy() -> dict[str, str]:
    """The environment variables of this process, copied."""
    while True:
        try:
            return dict(os.environ)
        except KeyError:  # a thread has removed a variable meanwhile
            continue
