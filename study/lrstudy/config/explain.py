"""Turns pydantic's errors into faults of the study file: field, what was expected, what arrived, valid names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from lrstudy.annotations import description, names, options
from lrstudy.config.sections import StudyFile, shown
from lrstudy.errors import Fault, InputError

Path = tuple[str | int, ...]
KEY = "[key]"
"""Ends the path of a fault that lies in the key of a map, not in its value."""


def explain(
    error: ValidationError, raw: Mapping[str, Any], model: type[BaseModel] = StudyFile
) -> dict[Path, list[Fault]]:
    """The faults by field of a map that was to become a `model`.

    There is one error per field: pydantic reports one for every branch of a union.
    """
    details: dict[Path, Mapping[str, Any]] = {}
    for detail in error.errors(include_url=False):
        details.setdefault(_field(detail, raw), detail)
    outer = {path[:depth] for path in details for depth in range(len(path))}
    return {path: _faults(path, detail, model) for path, detail in details.items() if path not in outer}


def _field(detail: Mapping[str, Any], raw: Any) -> Path:
    """The path of a fault in the study file, which is pydantic's location without the branches of unions."""
    path: list[str | int] = []
    *above, last = detail["loc"] or ("",)
    for part in (*above, last):
        if (isinstance(raw, dict) and part in raw) or (isinstance(raw, list) and isinstance(part, int)):
            raw = raw[part]
            path.append(part)
    return (*path, last) if detail["type"] == "missing" or last == KEY else tuple(path)


def _faults(path: Path, detail: Mapping[str, Any], model: type[BaseModel]) -> list[Fault]:
    kind, arrived, where = detail["type"], detail["input"], written(path)
    if kind == "value_error":
        reason = detail["ctx"]["error"]
        return list(reason.faults) if isinstance(reason, InputError) else [Fault(where, str(reason))]
    if kind == "extra_forbidden":
        return [_unknown_key(path, model)]
    annotation = _annotation(path, model)
    expected = description(annotation, says_null=False)
    if kind == "missing":
        return [Fault(where, f"this key is required; expected {expected}")]
    name = arrived if isinstance(arrived, str) else None
    return [Fault(where, expected=expected, got=shown(arrived), valid=names(annotation), name=name)]


def _unknown_key(path: Path, model: type[BaseModel]) -> Fault:
    """The fault of a key that its section does not have; it names other sections that have such a key."""
    key = str(path[-1])
    elsewhere = [field for field in _fields(model) if field.endswith(f".{key}")]
    advice = f"There is {' and '.join(elsewhere)}." if elsewhere else ""
    valid = tuple(_keys(_annotation(path[:-1], model)))
    return Fault(written(path), "unknown key", valid=valid, name=key, advice=advice)


def written(path: Sequence[str | int]) -> str:
    """A path in the form ``search.seeds[1]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path if part != KEY)
    return text.removeprefix(".") or "study file"


def _annotation(path: Path, model: type[BaseModel]) -> Any:
    """The annotation of a field, or of the keys of a map."""
    annotation: Any = model
    if path[-1:] == (KEY,):
        return next(
            get_args(option)[0] for option in options(_annotation(path[:-2], model)) if get_origin(option) is dict
        )
    for part in path:
        annotation = next(inner for option in options(annotation) if (inner := _inner(option, part)) is not None)
    return annotation


def _inner(annotation: Any, part: str | int) -> Any:
    if isinstance(part, str) and _is_section(annotation):
        return _hints(annotation).get(part)
    inside = {dict: str, list: int}.get(get_origin(annotation) or annotation)
    return get_args(annotation)[-1] if inside and isinstance(part, inside) else None


def _keys(hint: Any) -> list[str]:
    return [key for option in options(hint) if _is_section(option) for key in option.model_fields]


@cache
def _hints(section: type[BaseModel]) -> dict[str, Any]:
    return get_type_hints(section, include_extras=True)


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _fields(section: type[BaseModel], above: str = "") -> Iterator[str]:
    """The paths of all fields of all sections."""
    for name in section.model_fields:
        yield f"{above}{name}"
        for option in options(_hints(section)[name]):
            if _is_section(option):
                yield from _fields(option, f"{above}{name}.")
