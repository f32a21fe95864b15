"""Which lines of a journal count: those that a driver may have written. Others are ignored, as torn ones are.

A storage that others write to may hold anything. What a line says decides what is suggested and tested next, so it is
checked where it is read, once, for all who use it: the fields that its kind needs, and the type of every known field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

_MOST = 1e15
_MOST_COUNTED = 10**9
_LONGEST_TEXT = 100_000

Check = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < _MOST and math.isfinite(value)


def _is_rate(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_COUNTED


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < _LONGEST_TEXT


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_span(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and _is_number(value[0])
        and _is_number(value[1])
        and value[1] >= 0
        and _is_text(value[2])
        and _is_text(value[3])
    )


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _is_choice(value: Any) -> bool:
    """Whether these are the configurations that a freeze chose, by arm."""
    return isinstance(value, dict) and all(_each(_is_map)(chosen) for chosen in value.values())


def _is_map_of_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(item is None or _is_number(item) for item in value.values())


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _each(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


_CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(("at", "start", "end", "share", "handed_at", "heard_at", "device_s"), _is_number),
    "rate": _is_rate,
    **dict.fromkeys(("heard", "cost", "margin", "started_at", "ended_at"), _or_none(_is_number)),
    **dict.fromkeys(("index", "slot", "of", "count", "first", "repeat", "seeds", "read"), _is_count),
    **dict.fromkeys(
        (
            "arm",
            "method",
            "trial_id",
            "status",
            "category",
            "worker",
            "host",
            "device",
            "study_id",
            "proposed_by",
            "range_test",
            "parameter",
        ),
        _is_text,
    ),
    **dict.fromkeys(("error", "lineage", "tested", "after", "control"), _or_none(_is_text)),
    **dict.fromkeys(("decided", "deviates", "own"), _is_truth),
    **dict.fromkeys(("overrides", "changes", "retired"), _each(_is_text)),
    **dict.fromkeys(("looks", "slots"), _each(_is_count)),
    "spans": _each(_is_span),
    "configuration": _is_map,
    "arms": _is_choice,
    "repeats": _each(_is_choice),
    "test": _or_none(_is_map_of_numbers),
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "killed": ("of", "at"),
    "slots": ("count", "start", "share", "device", "host"),
    "left": ("slots", "at"),
    "suggest": ("arm", "method", "index", "configuration"),
    "spans": ("worker", "slot", "spans"),
    "slot": ("slot", "category", "end"),
    "died": ("worker", "at"),
    "teardown": ("at",),
    "trial": ("trial_id", "status", "test"),
    "told": ("arm", "method", "index", "cost"),
    "frozen": ("arms", "deviates"),
    "found": ("arm", "rate", "range_test", "device_s", "own"),
    "look": ("seeds", "decided"),
    "idle": ("start", "end"),
    "done": ("at",),
    "end": ("at",),
}


def is_line(line: Any) -> bool:
    """Whether a parsed line is one that a driver may have written; kinds and fields of later versions may be anything."""
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return False
    if any(name not in line for name in _NEEDED.get(line["kind"], ())):
        return False
    return all(_CHECKS[name](value) for name, value in line.items() if name in _CHECKS)
