"""The command line. Exit codes: 0 complete, 1 failure, 2 wrong input, 3 some trials failed, 130 interrupted."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import Annotated

import typer
from typer.exceptions import TyperException

from lrstudy import __version__
from lrstudy.cli import environment, exports, forecasts, launching, lr_find, new_study, scoring, studies, traces  # noqa: F401  # they add their commands to the application
from lrstudy.cli.options import app
from lrstudy.errors import ClusterError, InputError, StorageError

_LATER = ("replay", "merge", "check")
_INTERRUPTED = 130
_AGAIN_S = 0.02
_debug = False


@app.callback(invoke_without_command=True)
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    global _debug
    _debug = debug
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: runs a command, and reports an error as one paragraph and an exit code."""
    _log_to_stderr()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        sys.exit(_main(sys.argv[1:]))
    except ClusterError as error:
        _complain(str(error), 1)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # threads of a dead Ray would hold an orderly end up for a minute; all is recorded


def _main(arguments: list[str]) -> int:
    if arguments and arguments[0] in _LATER:
        available = ", ".join(sorted(c.name or str(c.callback.__name__) for c in app.registered_commands if c.callback))
        return _complain(f"the command {arguments[0]!r} is not available yet. Available: {available}.", 2)
    try:
        code = app(args=arguments, standalone_mode=False)
        if code == _INTERRUPTED:  # which typer makes of KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except InputError as error:
        return _complain("\n".join(error.sentences), 2)
    except StorageError as error:
        return _complain(str(error), 1)
    except ClusterError:
        raise
    except KeyboardInterrupt:
        return _complain(
            "Interrupted. Everything trained so far is recorded; the same command goes on from there.", _INTERRUPTED
        )
    except TyperException as error:
        return _complain(f"{error} See lrstudy --help.", 2)
    except Exception as error:
        hint = "This is not your input's fault; lrstudy --debug run ... shows where it happened."
        return _complain(f"{type(error).__name__}: {error}\n{hint}", 1)


def _log_to_stderr() -> None:
    """Print what is logged: long work before a study is displayed, such as decoding its images, is reported there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("lrstudy: %(message)s"))
    logger = logging.getLogger("lrstudy")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _complain(text: str, code: int) -> int:
    if _debug:
        traceback.print_exc()
    print(f"lrstudy: {text}", file=sys.stderr)
    return code


def interrupted(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt for a signal; within Python's own import code, as soon as that has been left.

    There the exception can be lost, with the lock still held that every other thread needs for its next import: a run that
    was interrupted in its first second hung.
    """
    signal.alarm(0)  # once Ray is up, its own handler has the process aborted 3 s after a SIGTERM
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number)).start()
        return
    raise KeyboardInterrupt
