"""Reads the text of a study file and the overrides of a command line into a plain map."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lrstudy import user_code
from lrstudy.config.sections import shown
from lrstudy.errors import Fault, InputError, unknown, user_path


def parse_yaml(text: str) -> dict[str, Any]:
    """Parse YAML 1.2 into a map of texts, numbers, truth values, lists and maps.

    Raises InputError if it is anything else, or if keys repeat.
    """
    raw = _loaded(text, "study file")
    if not isinstance(raw, dict):
        got = "an empty file" if raw is None else f"a list ({shown(raw)})" if isinstance(raw, list) else shown(raw)
        raise InputError(Fault("study file", expected="a map with keys such as lrstudy, name and arms", got=got))
    if faults := list(_unfit(raw, ())):
        raise InputError(faults)
    return raw


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the raw study with every `a.b=VALUE` applied, in order. Raises InputError with every fault.

    Values are YAML. Relative paths in them start from the current folder, not from that of the study file.
    """
    raw = deepcopy(raw)
    faults: list[Fault] = []
    for override in overrides:
        try:
            _apply(raw, override)
        except InputError as error:
            faults += error.within("command line", ": ").faults
    if faults:
        raise InputError(faults)
    return raw


def located(overrides: Sequence[str]) -> list[str]:
    """The same overrides for a process in another folder: the relative paths in them are made absolute."""
    return [_located(override) for override in overrides]


def _located(override: str) -> str:
    path, _, text = override.partition("=")
    value = _loaded(text, path)
    there = _from_here(path, value)
    return override if there == value else f"{path}={json.dumps(there)}"


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one value in `raw`. Sections that the file leaves out are added; arms are not."""
    path, equals, text = override.partition("=")
    *above, last = path.split(".")
    if not equals or not all([*above, last]):
        raise InputError(Fault("", expected="key.key=VALUE", got=f"{override!r}"))
    value = _loaded(text, path)
    if faults := list(_unfit(value, (path,))):
        raise InputError(faults)
    node = raw
    for depth, key in enumerate(above):
        if above[:depth] in (["arms"], ["workloads"]) and key not in node:
            raise InputError(unknown(f"{above[0]}.{key}", above[0].removesuffix("s"), key, node))
        child = _as_map(node.get(key), ".".join(above[: depth + 1]))
        if not isinstance(child, dict):
            raise InputError(Fault(path, f"{'.'.join(above[: depth + 1])} is {shown(child)}, so there is no such key"))
        node[key] = child
        node = child
    node[last] = _from_here(path, value)


def _as_map(section: Any, path: str) -> Any:
    """A section in the form of a map, which an override can set a key of; anything else is returned as it is.

    An absent section becomes an empty map, a list of arms a map from their names, and a data source a map with it.
    """
    if _plain(path) == "workload.data" and isinstance(section, str):
        return {"source": section}
    if isinstance(section, list) and all(isinstance(name, str) for name in section):
        return dict.fromkeys(section)
    return {} if section is None else section


def _from_here(path: str, value: Any) -> Any:
    """`value` with its relative paths made absolute."""
    path = _plain(path)
    if isinstance(value, dict):
        return {key: _from_here(f"{path}.{key}", item) for key, item in value.items()}
    if path in ("storage.path", "workload.data.root") and isinstance(value, str) and "://" not in value:
        return str(user_path(value, path).resolve())
    if user_code.is_reference(value):
        return str(user_code.Reference.parse(value, Path.cwd(), path))
    if path in ("workload.data", "workload.data.source") and isinstance(value, str):
        kind, colon, where = value.partition(":")
        if where and not kind.endswith(".py"):
            return f"{kind}{colon}{user_path(where, path).resolve()}"
    return value


def _plain(path: str) -> str:
    """The path of a field of a workload, whichever of a map it belongs to."""
    return re.sub(r"^workloads\.[^.]+\.", "workload.", path)


def _loaded(text: str, where: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark and where == "study file" else ""
        raise InputError(Fault(f"{where}{line}", f"not valid YAML: {_one_line(error.problem)}")) from None
    except RecursionError:
        raise InputError(Fault(where, "not valid YAML: nested too deeply")) from None
    except (YAMLError, ValueError) as error:
        raise InputError(Fault(where, f"not valid YAML: {_one_line(error)}")) from None


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split()).rstrip(".")


def _unfit(value: Any, path: tuple[str, ...], above: tuple[int, ...] = ()) -> Iterator[Fault]:
    """A fault for everything that YAML allows and a study file does not: dates, infinities, keys that are no text."""
    where = ".".join(path) or "study file"
    if id(value) in above:
        yield Fault(where, "this value contains itself (a YAML alias)")
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _unfit(item, (*path, key), (*above, id(value)))
            else:
                yield Fault(where, expected="keys that are texts", got=shown(key), advice="Put it in quotes.")
    elif isinstance(value, list):
        for item in value:
            yield from _unfit(item, path, (*above, id(value)))
    elif isinstance(value, float) and not math.isfinite(value):
        yield Fault(where, expected="a finite number", got=str(value))
    elif not isinstance(value, (str, int, float, bool, type(None))):
        yield Fault(
            where,
            expected="a text, a number, true, false, a list or a map",
            got=f"the {type(value).__name__} {value}",
            advice="Put a text in quotes.",
        )
