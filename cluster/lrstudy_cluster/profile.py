"""What a launch asks of a site: the site's profile, a YAML file written once, and options of the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ValidationError

from lrstudy.annotations import description
from lrstudy.config.explain import explain
from lrstudy.config.sections import shown
from lrstudy.config.text import apply_overrides, parse_yaml
from lrstudy.errors import Fault, InputError, user_path
from lrstudy_cluster.target import Profile, Target


def read(target: Target, file: str | None = None, options: Sequence[str] = ()) -> Profile:
    """The profile of a launch: its target's defaults <- the site's profile <- the options.

    Args:
        target: The target.
        file: The site's profile; by default ``~/.config/lrstudy/<target>.yaml``, if there is one.
        options: ``key=VALUE`` texts of the command line.

    Raises:
        InputError: With every fault.
    """
    path = user_path(file, "--profile") if file else _default_file(target)
    raw = apply_overrides(_content(path, is_needed=file is not None), options)
    try:
        return target.profile.model_validate(raw)
    except ValidationError as error:
        found = explain(error, raw, target.profile)
        raise InputError([fault for faults in found.values() for fault in faults]).within("profile") from None


def described(target: Target) -> Iterator[str]:
    """The keys of a target's profile, a line each: name, what it is, default."""
    hints = get_type_hints(target.profile, include_extras=True)
    for name, field in target.profile.model_fields.items():
        default = field.get_default(call_default_factory=True)
        kind = "required" if field.is_required() else "optional" if default is None else f"default: {shown(default)}"
        yield f"{name}: {description(hints[name], says_null=False)} ({kind})"


def _default_file(target: Target) -> Path:
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return folder / "lrstudy" / f"{target.name}.yaml"


def _content(path: Path, is_needed: bool) -> dict[str, Any]:
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if is_needed:
            raise InputError(Fault("--profile", f"there is no file {path}")) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault("--profile", f"cannot read {path}: {error}")) from None
    except InputError as error:
        raise error.within(str(path), ": ") from None
