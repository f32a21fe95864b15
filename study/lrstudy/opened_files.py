"""Which files are read while a user's code runs: a file that shapes training must be part of its name.

Python reports every file that it opens to its audit hooks. What a library opens by itself, in C or Rust, goes unseen; of
these, safetensors is watched as well, since weights are what this is about.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CODE = (".py", ".pyc", ".pyi", ".so", ".pth")
_SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib")
_active: list[set[str]] = []
_is_hooked = False


@contextmanager
def recording() -> Iterator[set[str]]:
    """Yield a set to which the absolute path of every file is added that this process opens for reading meanwhile.

    All threads count. Python code is left out. Whose the others are is for `is_foreign` to say.
    """
    _hook()
    opened: set[str] = set()
    _active.append(opened)
    try:
        yield opened
    finally:
        _active[:] = [other for other in _active if other is not opened]


def is_foreign(path: str, homes: Iterable[Path]) -> bool:
    """Whether a file is none of the user's.

    It lies outside of the folders `homes` of the user's code, and in the installation of Python and its packages, in the
    system, among temporary files, or in a hidden folder of the user's home, where caches are.
    """
    place = Path(path)
    if any(place.is_relative_to(home) for home in homes):
        return False
    if place.is_relative_to(Path.home()) and place.relative_to(Path.home()).parts[0].startswith("."):
        return True
    return any(map(place.is_relative_to, (sys.prefix, sys.base_prefix, tempfile.gettempdir(), *_SYSTEM)))


def _hook() -> None:
    """Begin to listen, once per process; an audit hook can never be removed."""
    global _is_hooked
    if not _is_hooked:
        _is_hooked = True
        sys.addaudithook(_note)
        _watch_safetensors()


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    """Called by Python for every audited event; it must not raise."""
    if not _active or event != "open":
        return
    path, mode, flags = arguments
    if isinstance(path, (str, bytes)) and not _writes(mode, flags):
        _add(os.fsdecode(path))


def _writes(mode: object, flags: object) -> bool:
    """Whether a file is opened to be written only."""
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax") and "+" not in mode
    return isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY


def _add(path: str) -> None:
    """Add a file to all sets that are being filled."""
    path = os.path.abspath(path)
    if not path.endswith(_CODE):
        for opened in _active:
            opened.add(path)


def _watch_safetensors() -> None:
    """Let `safetensors.safe_open` note the file it is given: it opens files in Rust, which reports nothing to Python."""
    import safetensors

    opening = safetensors.safe_open

    def noting(filename: Any, *arguments: Any, **more: Any) -> Any:
        if _active:
            _add(os.fsdecode(filename))
        return opening(filename, *arguments, **more)

    for name in ("safetensors", "safetensors.torch"):
        if name in sys.modules:
            vars(sys.modules[name])["safe_open"] = noting
