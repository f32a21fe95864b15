"""What sources find in their cells, made alike: labels of one or several names, groups as text, parts by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from lrstudy.errors import Fault, InputError

POOL, VALIDATION, TEST = 0, 1, 2
"""Which part of the data the source itself puts an example in; the pool is what splits divide."""
PART_NAMES = {
    "train": POOL, "training": POOL, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "dev": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip
"""What the parts are called, in folders, files and columns."""

Label = int | str | tuple[str, ...]
"""The class of an example; or, as a tuple, the names of all the labels it has."""

NO_LABEL = frozenset(["", "no finding", "none"])
"""What stands for "no label" where an example may have several."""


def split_labels(cell: str) -> tuple[str, ...]:
    """The labels in a cell such as ``Effusion|Mass``; none in an empty one or one that says so."""
    return _named(cell.split("|"))


def labels_of(rows: Sequence[Any], where: str, is_multilabel: bool | None = None) -> list[Label]:
    """The labels of all rows of a source, decided for all of them at once.

    A row is a number, a truth value or a name; or a list of names (or numbers) of labels; or a list with a 0 or 1 for each
    label. Names joined by ``|`` are several, if `is_multilabel` is true, or None and any row has a bar. `where` begins a
    fault, which names the first row that does not fit. Raises InputError.
    """
    if any(_is_list(row) for row in rows):
        return _of_lists(rows, where)
    plain = [_scalar(row, f"{where}, row {number}") for number, row in enumerate(rows)]
    if is_multilabel or (is_multilabel is None and any(isinstance(value, str) and "|" in value for value in plain)):
        return [split_labels(str(value)) for value in plain]
    if len({type(value) for value in plain}) > 1:
        first = next(k for k, value in enumerate(plain) if type(value) is not type(plain[0]))
        raise InputError(
            Fault(
                where,
                expected="all numbers or all names",
                got=f"{plain[0]!r} in row 0, {plain[first]!r} in row {first}",
            )
        )
    return list(plain)


def as_text(value: object) -> str:
    """A cell of a column as text: empty for what is missing; 1 and 1.0 are the same patient."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, Real) and not isinstance(value, Integral) and float(value).is_integer():
        return str(int(float(value)))
    return str(value).strip()


def parts_of(values: Sequence[object], where: str, must: bool = False) -> list[int] | None:
    """The part that each row names; None if no row names one, so that the column means something else.

    Raises InputError if some rows name a part and others do not (with `must`, also if none does).
    """
    names = [as_text(value).lower() for value in values]
    strange = Counter(name for name in names if name not in PART_NAMES)
    if not strange:
        return [PART_NAMES[name] for name in names]
    if len(strange) and sum(strange.values()) == len(names) and not must:
        return None
    first = next(k for k, name in enumerate(names) if name not in PART_NAMES)
    shown = ", ".join(repr(name) for name in list(strange)[:3])
    raise InputError(
        Fault(
            where,
            expected="train, val or test in every row",
            got=f"{shown} in {sum(strange.values())} rows, the first of them row {first}",
        )
    )


def _is_list(row: Any) -> bool:
    return isinstance(row, (list, tuple, set, frozenset)) or getattr(row, "ndim", 0) == 1


def _of_lists(rows: Sequence[Any], where: str) -> list[Label]:
    """Labels of rows that are lists: one place for each label, or the labels themselves."""
    found: list[list[int | str]] = []
    for number, row in enumerate(rows):
        if not _is_list(row):
            raise InputError(
                Fault(f"{where}, row {number}", expected="a list of labels as in other rows", got=f"{row!r}")
            )
        items = row.tolist() if hasattr(row, "tolist") else list(row)
        found.append([_scalar(item, f"{where}, row {number}") for item in items])
    values = {value for row in found for value in row}
    lengths = Counter(len(row) for row in found)
    if values <= {0, 1} and max(lengths) > 1:
        (length, _), *others = lengths.most_common()
        if others:
            odd = next(k for k, row in enumerate(found) if len(row) != length)
            raise InputError(
                Fault(
                    f"{where}, row {odd}",
                    expected=f"{length} values of 0 or 1, one for each label, as in other rows",
                    got=str(len(found[odd])),
                    advice="(Lists of labels are lists of their names.)",
                )
            )
        digits = len(str(length - 1))
        return [tuple(f"{place:0{digits}d}" for place, value in enumerate(row) if value) for row in found]
    return [_named([str(value) for value in row]) for row in found]


def _scalar(value: Any, where: str) -> int | str:
    """A number (whole, or a truth value) or a name, as Python has it. Raises InputError for anything else."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, Integral)) or (isinstance(value, Real) and float(value).is_integer()):
        return int(float(value)) if isinstance(value, Real) and not isinstance(value, Integral) else int(value)
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    raise InputError(
        Fault(where, expected="a label, a whole number or a name", got="none" if missing else repr(value)[:60])
    )


def _named(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in map(str.strip, names) if name.lower() not in NO_LABEL))
