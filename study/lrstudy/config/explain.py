"""What is wrong with a study file, as sentences: field, what was expected, what arrived, nearest valid names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from lrstudy.config.sections import StudyFile, shown
from lrstudy.errors import InputError, choices

Path = tuple[str | int, ...]
KEY = "[key]"
"""Ends the path of a fault in a map's key rather than its value."""


def explain(error: ValidationError, raw: Mapping[str, Any]) -> dict[Path, list[str]]:
    """The faults by field. A union's branches each complain of one field, so fields are told of once."""
    found: dict[Path, Mapping[str, Any]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_field(detail, raw), detail)
    outer = {path[:depth] for path in found for depth in range(len(path))}
    return {path: _sentences(path, detail) for path, detail in found.items() if path not in outer}


def _field(detail: Mapping[str, Any], raw: Any) -> Path:
    """The path of a fault in the study file; pydantic's has the branches of unions in between."""
    path: list[str | int] = []
    *above, last = detail["loc"] or ("",)
    for part in (*above, last):
        if (isinstance(raw, dict) and part in raw) or (isinstance(raw, list) and isinstance(part, int)):
            raw = raw[part]
            path.append(part)
    return (*path, last) if detail["type"] == "missing" or last == KEY else tuple(path)


def _sentences(path: Path, detail: Mapping[str, Any]) -> list[str]:
    kind, arrived, where = detail["type"], detail["input"], written(path)
    if kind == "value_error":
        fault = detail["ctx"]["error"]
        return list(fault.faults) if isinstance(fault, InputError) else [f"{where}: {fault}."]
    if kind == "extra_forbidden":
        key = str(path[-1])
        elsewhere = [found for found in _fields(StudyFile) if found.endswith(f".{key}")]
        hint = f" There is {' and '.join(elsewhere)}." if elsewhere else ""
        return [f"{where}: unknown key.{hint} {choices(_keys(_hint(path[:-1])), key)}"]
    hint = _hint(path)
    if kind == "missing":
        return [f"{where}: this key is required; expected {_expected(hint)}."]
    near = get_close_matches(arrived, _names(hint), n=2) if isinstance(arrived, str) else []
    mean = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return [f"{where}: expected {_expected(hint)}; got {shown(arrived)}.{mean}"]


def written(path: Sequence[str | int]) -> str:
    """A path as ``search.seeds[1]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path if part != KEY)
    return text.removeprefix(".") or "study file"


def _hint(path: Path) -> Any:
    """The annotation of a field, or of the keys of a map."""
    hint: Any = StudyFile
    if path[-1:] == (KEY,):
        return next(get_args(option)[0] for option in _options(_hint(path[:-2])) if get_origin(option) is dict)
    for part in path:
        hint = next(inner for option in _options(hint) if (inner := _inner(option, part)) is not None)
    return hint


def _inner(hint: Any, part: str | int) -> Any:
    if isinstance(part, str) and _is_section(hint):
        return _hints(hint).get(part)
    inside = {dict: str, list: int}.get(get_origin(hint) or hint)
    return get_args(hint)[-1] if inside and isinstance(part, inside) else None


def _options(hint: Any) -> Iterator[Any]:
    """The branches of an annotation that are no unions themselves."""
    if get_origin(hint) is Annotated:
        yield from _options(get_args(hint)[0])
    elif get_origin(hint) in (Union, UnionType):
        for option in get_args(hint):
            yield from _options(option)
    else:
        yield hint


def _expected(hint: Any) -> str:
    """What a value must be, as the words after "expected"."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        described = [m.description for m in inner[1:] if isinstance(m, FieldInfo) and m.description]
        return described[-1] if described else _expected(inner[0])
    if origin in (Union, UnionType):
        return _either([_expected(option) for option in inner if option is not NoneType])
    if origin is Literal:
        return _either([str(value) for value in inner])
    if origin is list:
        return f"a list of {_expected(inner[0])}"
    if _is_section(hint):
        return f"a map (keys: {', '.join(hint.model_fields)})"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "a map"}
    return words[origin or hint]


def _either(options: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, (", ".join(options[:-1]), options[-1])))


def _names(hint: Any) -> list[str]:
    return [name for option in _options(hint) if get_origin(option) is Literal for name in map(str, get_args(option))]


def _keys(hint: Any) -> list[str]:
    return [key for option in _options(hint) if _is_section(option) for key in option.model_fields]


@cache
def _hints(section: type[BaseModel]) -> dict[str, Any]:
    return get_type_hints(section, include_extras=True)


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _fields(section: type[BaseModel], above: str = "") -> Iterator[str]:
    """The paths of all fields of all sections."""
    for name in section.model_fields:
        yield f"{above}{name}"
        for option in _options(_hints(section)[name]):
            if _is_section(option):
                yield from _fields(option, f"{above}{name}.")
