"""The templates: readable files in cluster/<target>/ with ``{{ name }}`` where a launch fills something in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2


def fill(target: str, name: str, values: Mapping[str, Any]) -> str:
    """A template, filled in. A name in it without a value is an error of ours.

    Templates have two filters beside Jinja's: ``sh`` quotes a value for a shell, and ``yaml`` writes it as a YAML scalar
    or list on one line.
    """
    return _environment().get_template(f"{target}/{name}").render(values)


def folder() -> Path:
    """The folder with one folder of templates per target: in the package if it was installed from a wheel, else cluster/."""
    here = Path(__file__).resolve().parent
    installed = here / "templates"
    return installed if installed.is_dir() else here.parent


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder()),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # scripts and YAML, where every value is quoted by a filter
    )
    environment.filters["sh"] = lambda value: shlex.quote(str(value))
    environment.filters["yaml"] = _yaml
    return environment


def _yaml(value: object) -> str:
    """A value in YAML on one line; JSON is YAML."""
    return json.dumps(value)
