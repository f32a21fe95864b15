"""The default search space of a policy: search_spaces/<policy>.yaml."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from lrstudy.errors import InputError, unknown


def default_space(policy_name: str) -> dict[str, object]:
    """The default space of a policy's own parameters, in the syntax of study files, as a new mapping.

    The file is YAML 1.2: ``1e-4`` is a number, and keys may not repeat. Raises InputError if there is no such file.
    """
    folder = search_spaces()
    path = folder / f"{policy_name}.yaml"
    if not path.is_file():
        valid = sorted(file.stem for file in folder.glob("*.yaml"))
        raise InputError(unknown("search_spaces", "default space of a policy", policy_name, valid))
    space: dict[str, object] | None = YAML(typ="safe", pure=True).load(path)
    return space or {}  # a file that has only comments is an empty space


def search_spaces() -> Path:
    """The folder search_spaces/: inside the package if it was installed from a wheel, beside study/ in a checkout."""
    here = Path(__file__).resolve()
    installed, checkout = here.parents[1] / "search_spaces", here.parents[3] / "search_spaces"
    return installed if installed.is_dir() else checkout
