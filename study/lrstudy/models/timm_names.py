"""Which models timm has, by reading its source: importing it takes seconds, with torch, and a study file is read often."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from lrstudy.errors import Fault, InputError

PREFIX = "timm:"
_REGISTERED = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
_NUM_NEAREST = 5


def is_timm(name: str) -> bool:
    """Whether the name of a model begins with ``timm:``."""
    return name.startswith(PREFIX)


def without_tag(name: str) -> str:
    """The architecture's name: timm's ``vit_tiny_patch16_224.augreg_in21k`` without the tag, which only says which weights."""
    return name.partition(".")[0]


def installed() -> str:
    """The version of timm: another one may build another network, or draw other weights, under the same name."""
    return version("timm")


def file_of(name: str) -> str:
    """The file of timm that a model stands in, such as ``efficientnet``: models of one file have the same layout.

    Args:
        name: With the prefix ``timm:``, and perhaps a tag.

    Raises:
        InputError: timm has no such model; the nearest names are given.
    """
    name, known = name.removeprefix(PREFIX), architectures()
    if (architecture := without_tag(name)) in known:
        return known[architecture]
    near = get_close_matches(name, known, n=_NUM_NEAREST, cutoff=0.6)
    raise InputError(
        Fault(
            "model",
            f"timm {installed()} has no model {name!r}",
            advice=(f"The nearest are {', '.join(near)}. " if near else "")
            + f"timm.list_models() lists all {len(known):,}.",
        )
    )


@cache
def architectures() -> dict[str, str]:
    """Every model of the installed timm, and the file that it stands in; the same as timm.list_models()."""
    spec = find_spec("timm")  # of a top-level package: imports nothing
    assert spec is not None
    assert spec.origin is not None
    files = sorted((Path(spec.origin).parent / "models").glob("*.py"))
    return {name: file.stem for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8"))}
