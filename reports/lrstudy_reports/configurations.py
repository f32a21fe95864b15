"""The section on the configurations that stand for the arms: their values, edges of ranges, and what was changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lrstudy_reports import formats
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.comparison import configuration_of
from lrstudy_reports.lock import Lock
from lrstudy_reports.page import Cell, PageSection, Table

_RANGES = ("log", "uniform", "int")


def policies(analysis: Analysis) -> PageSection:
    """The section on the configuration of each arm, with the policies as they were applied."""
    lock, cells, on_edge = analysis.study.lock, [], False
    for row in analysis.comparison.rows():
        values = configuration_of(row["configuration"])
        if values:
            found = list(edges(values, lock.definitions.get(row["arm"], {})))
            on_edge = on_edge or bool(found)
            shown = Cell(
                formats.configuration(values), f"at the edge of its range: {formats.listed(found)}" if found else ""
            )
            cells.append([analysis.arm(row["arm"]), shown, Cell(str(row["configuration_source"]))])
    tables = [Table("Best configuration of each arm", ["Arm", "Configuration", "Source"], cells)] if cells else []
    notes = ["At the edge of a range the best may lie beyond it: a wider range would show."] if on_edge else []
    return PageSection(
        "policies",
        "Policies as applied",
        text=list(changes(lock)),
        tables=tables,
        notes=notes,
        drawings=analysis.drawn("traces"),
    )


def edges(values: Mapping[str, Any], definition: Mapping[str, Any]) -> Iterator[str]:
    """The parameters whose value is the first or last of the ordered values or of the range that was searched.

    Values of a `choice` have no order. A lower end of 0 is no edge: a rate, a decay or a ratio has nothing below.

    Args:
        values: A configuration.
        definition: The arm's definition: by name a value, or what was searched.

    Yields:
        'lr (highest)', say.
    """
    for name, value in values.items():
        spec = definition.get(name)
        if not isinstance(spec, Mapping) or isinstance(value, bool):
            continue
        ends = spec.get("ordered") or next((spec[kind] for kind in _RANGES if kind in spec), None)
        if not isinstance(ends, list) or len(ends) < 2:
            continue
        if _is_at(value, ends[-1]):
            yield f"{name} (highest)" if "ordered" not in spec or _is_number(value) else f"{name} (last)"
        elif _is_at(value, ends[0]) and ends[0] != 0:
            yield f"{name} (lowest)" if "ordered" not in spec or _is_number(value) else f"{name} (first)"


def changes(lock: Lock) -> Iterator[str]:
    """What differs between an arm that was changed, such as `constant@2`, and what it was before; a sentence each."""
    for arm, now in lock.definitions.items():
        name, _, number = arm.partition("@")
        before = name if number == "2" else f"{name}@{int(number) - 1}" if number.isdigit() else ""
        if before not in lock.definitions:
            continue
        was = lock.definitions[before]
        differing = [key for key in dict.fromkeys([*was, *now]) if was.get(key) != now.get(key)]
        shown = [f"{key} {_spec(was.get(key))} before, {_spec(now.get(key))} now" for key in differing]
        yield f"{arm} is {name} as it was changed after an earlier run: {'; '.join(shown) or 'its source has changed'}."


def _is_at(value: object, end: object) -> bool:
    if isinstance(value, int | float) and isinstance(end, int | float):
        return math.isclose(value, end, rel_tol=1e-6)
    return value == end


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spec(spec: object) -> str:
    """A value of a definition as a study file would have it."""
    if isinstance(spec, Mapping):
        return "{" + ", ".join(f"{key}: {_spec(entry)}" for key, entry in spec.items()) + "}"
    if isinstance(spec, list | tuple):
        return "[" + ", ".join(map(_spec, spec)) + "]"
    return "nothing" if spec is None else formats.value(spec)
