"""Ray's token: whoever has it can run code on the cluster as its owner, so it lies in files that nobody else may read.

Ray looks for it in RAY_AUTH_TOKEN, then in the file that RAY_AUTH_TOKEN_PATH names, then in ~/.ray/auth_token, and asks
for it only where RAY_AUTH_MODE is ``token``. With that variable unset a cluster of `ray start` may be open to everybody.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lrstudy.errors import Fault, InputError

MODE, TOKEN, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
WITH_TOKEN, OPEN = {MODE: "token"}, {MODE: "disabled"}
_DEFAULT_FILE = Path("~/.ray/auth_token")
_MAKE = (
    f"A cluster's token is the one that its nodes were started with: let {PATH} name its file, of mode 0600. "
    "How to make one: docs/security.md."
)


@dataclass(frozen=True)
class ClusterToken:
    """A token, and where it was found. Its text is never shown.

    Attributes:
        text: The token.
        source: A file, or the variable RAY_AUTH_TOKEN.
    """

    text: str
    source: str

    def __repr__(self) -> str:
        return f"ClusterToken(from {self.source})"


@contextmanager
def fresh() -> Iterator[None]:
    """Within it, the environment says that a Ray which this process starts has a token of its own, known to nobody else.

    The token lies in a file of mode 0600 in a private temporary folder, which is removed at the end. The environment, which
    Ray's processes inherit, has the name of the file alone. A token of the user's, for another cluster, is left alone.
    """
    folder = Path(tempfile.mkdtemp(prefix="lrstudy-token-"))  # of mode 0700
    try:
        path = folder / "token"
        write(path, secrets.token_hex(32))
        with _environment({**WITH_TOKEN, PATH: str(path)}, without=TOKEN):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(path: Path, token: str) -> None:
    """Write a token to a new file of mode 0600, whatever the umask. Raises FileExistsError if there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(token)


def find() -> ClusterToken:
    """The token of an existing cluster, from where Ray would take it.

    Raises InputError if there is none, or if its file may be read by others, does not belong to this user, or is empty.
    """
    if text := os.environ.get(TOKEN, "").strip():
        return ClusterToken(text, TOKEN)
    named = os.environ.get(PATH, "")
    path = Path(named) if named else _DEFAULT_FILE.expanduser()
    try:
        status = path.stat()
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if not named and isinstance(error, FileNotFoundError):
            problem = f"there is no token: neither {TOKEN} nor {PATH} is set, and there is no {path}"
        else:
            problem = f"cannot read the token in {path}: {getattr(error, 'strerror', None) or 'it is not text'}"
        raise InputError(Fault("token", problem, advice=_MAKE)) from None
    if fault := _not_private(path, status):
        raise InputError(fault)
    if not text:
        raise InputError(Fault("token", f"{path} is empty", advice=_MAKE))
    return ClusterToken(text, str(path))


@contextmanager
def _environment(variables: Mapping[str, str], without: str) -> Iterator[None]:
    """Within it, these variables are set and another one is not; afterwards all are as before."""
    before = {name: os.environ.get(name) for name in (*variables, without)}
    os.environ.pop(without, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _not_private(path: Path, status: os.stat_result) -> Fault | None:
    """The fault of a token file that others may read or write, or that is somebody else's."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        return Fault(
            "token",
            f"{path} may be read by others (mode {mode:04o}), who could then run code as you on the cluster",
            advice=f"chmod 600 {path}; if the host has other users, make a new token and start the cluster with it.",
        )
    if status.st_uid not in (os.getuid(), 0):
        return Fault("token", f"{path} belongs to another user (uid {status.st_uid})", advice=_MAKE)
    return None
