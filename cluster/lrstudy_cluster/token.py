"""The token that a Ray cluster asks for: a file that its owner alone can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from lrstudy.errors import Fault, InputError


def read(file: Path, where: str) -> str:
    """The token in a file. Raises InputError, placed at `where`, if it is missing, empty, or readable by others."""
    try:
        mode, token = file.stat().st_mode, file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        advice = "Copy the token of the cluster there, and let only yourself read it (chmod 600)."
        raise InputError(Fault(where, f"there is no file {file}, so there is no token", advice=advice)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(where, f"cannot read {file}: {error}")) from None
    if mode & 0o077:
        raise InputError(
            Fault(where, f"{file} can be read by others; make a new token", advice=f"Then: chmod 600 {file}")
        )
    if not token:
        raise InputError(Fault(where, f"{file} is empty"))
    return token


def make(file: Path) -> None:
    """Write a new token to a file that only its owner can read, unless there is one. Raises InputError."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        read(file, "token")
        return
    except OSError as error:
        raise InputError(Fault("token", f"cannot write {file}: {error.strerror}")) from None
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secrets.token_hex(32))
