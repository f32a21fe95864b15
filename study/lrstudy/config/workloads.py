"""`workloads:`, a map of workloads: as many studies in one file, each with its own data, model or task merged over `workload`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lrstudy.config.sections import shown
from lrstudy.errors import Fault, InputError

KEY = "workloads"
ONE_ONLY = Fault(
    KEY,
    "this takes a study of one workload, and the file has a map",
    advice="Name one workload with `workload`, or use a command that takes all: run, plan, validate, prepare, doctor.",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")
_RESERVED = ("report",)
"""Folders beside those of the workloads."""


def names(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the workloads of a raw study file, in its order; () if it has none but `workload`.

    Raises InputError if `workloads` is not a map from names to maps.
    """
    if KEY not in raw:
        return ()
    value = raw[KEY]
    if not isinstance(value, dict) or not value:
        expected = "a map from names to what each changes of `workload`"
        raise InputError(Fault(KEY, expected=expected, got=shown(value)))
    faults = [fault for name, body in value.items() for fault in _faults(name, body)]
    if len({name.lower() for name in value}) < len(value):
        faults.append(Fault(KEY, "two of the names differ in capitals only, and each is the name of a folder"))
    if faults:
        raise InputError(faults)
    return tuple(value)


def merged(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The raw study file of one workload: without `workloads`, and with what it says of the workload over `workload`.

    Maps are merged key by key. A data source that is written as a text is a map with it.
    """
    rest = {key: value for key, value in raw.items() if key != KEY}
    return {**rest, "workload": _over(rest.get("workload") or {}, raw[KEY][name] or {})}


def named(faults: Sequence[Fault], name: str, raw: Mapping[str, Any]) -> list[Fault]:
    """The faults of the study of one workload, placed where they stand in the file: `workloads.NAME.image`, `workload.image`.

    A fault of what the workload does not write itself stays where it is.
    """
    own = raw[KEY][name] or {}
    return [replace(fault, where=_where(fault.where, name, own)) for fault in faults]


def of_all(faults: Mapping[str, Sequence[Fault]]) -> list[Fault]:
    """The faults of all workloads, each once; one that a single one of several has, with the name of its workload."""
    names_of: dict[Fault, list[str]] = {}
    for name, found in faults.items():
        for fault in found:
            names_of.setdefault(fault, []).append(name)
    is_alone = len(faults) > 1
    return [placed(fault, of[0]) if is_alone and len(of) == 1 else fault for fault, of in names_of.items()]


def placed(fault: Fault, name: str) -> Fault:
    """The fault, said to be of a workload, unless its place says so."""
    return fault if fault.where.startswith(f"{KEY}.{name}") else replace(fault, where=f"{fault.where} ({KEY}.{name})")


def _faults(name: str, body: Any) -> list[Fault]:
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        reserved = f", and not {' or '.join(_RESERVED)}" if name.lower() in _RESERVED else ""
        expected = f"a name of up to 60 letters, digits, '_' and '-', beginning with a letter or digit{reserved}"
        return [Fault(f"{KEY}.{name}", expected=expected, got=shown(name))]
    if body is not None and not isinstance(body, dict):
        return [Fault(f"{KEY}.{name}", expected="a map of what it changes of `workload`", got=shown(body))]
    return []


def _over(below: Any, above: Any, key: str = "") -> Any:
    if key == "data" and isinstance(above, dict) and isinstance(below, str):
        below = {"source": below}
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    inner = {name: _over(below[name], value, name) if name in below else value for name, value in above.items()}
    return {**below, **inner}


def _where(where: str, name: str, own: Mapping[str, Any]) -> str:
    first, _, rest = where.partition(".")
    if first != "workload" or (rest and re.split(r"[.\[: ]", rest)[0] not in own):
        return where
    return f"{KEY}.{name}" + (f".{rest}" if rest else "")
