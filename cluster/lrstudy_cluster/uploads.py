"""Files that a profile has copied to every node, such as a wheel of lrstudy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lrstudy.errors import Fault

DESCRIPTION = "a map of files to copy to every node: path there: path here"


def faults(uploads: Mapping[str, str]) -> list[Fault]:
    """Files that are not here."""
    return [
        Fault(f"profile.uploads.{there}", f"there is no file {here}")
        for there, here in uploads.items()
        if not Path(here).expanduser().exists()
    ]


def resolved(uploads: Mapping[str, str]) -> dict[str, str]:
    """The same with absolute paths here."""
    return {there: str(Path(here).expanduser().resolve()) for there, here in uploads.items()}
