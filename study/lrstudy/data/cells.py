"""Cell values of all sources in one form: labels of one or several names, groups as text, parts by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from lrstudy.errors import Fault, InputError

POOL, VALIDATION, TEST = 0, 1, 2
"""The part that the source itself assigns to an example; splits divide the pool."""
PART_NAMES = {
    "train": POOL, "training": POOL, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "dev": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip
"""Names of the parts in folders, files and columns, in lower case."""

Label = int | str | tuple[str, ...]
"""The class of an example, or a tuple with the names of all its labels."""

NO_LABEL = frozenset(["", "no finding", "none"])
"""Values, in lower case, that mean "no label" if an example may have several."""


def split_labels(cell: str) -> tuple[str, ...]:
    """The labels in a cell such as ``Effusion|Mass``; names in NO_LABEL are left out."""
    return _without_no_label(cell.split("|"))


def labels_of(rows: Sequence[Any], where: str, is_multilabel: bool | None = None) -> list[Label]:
    """The labels of all rows of a source. All rows decide together whether an example may have several labels.

    A row is a number, a truth value or a name; or a list of names (or numbers) of labels; or a list with a 0 or 1 for
    each label. Names joined by ``|`` are several labels if `is_multilabel` is true, or if it is None and any row has a
    bar. Raises InputError, placed at `where`, which names the first row that does not fit.
    """
    if any(_is_list(row) for row in rows):
        return _labels_of_lists(rows, where)
    labels = [_scalar(row, f"{where}, row {number}") for number, row in enumerate(rows)]
    if is_multilabel is None:
        is_multilabel = any(isinstance(label, str) and "|" in label for label in labels)
    if is_multilabel:
        return [split_labels(str(label)) for label in labels]
    if len({type(label) for label in labels}) > 1:
        first = next(row for row, label in enumerate(labels) if type(label) is not type(labels[0]))
        raise InputError(
            Fault(
                where,
                expected="all numbers or all names",
                got=f"{labels[0]!r} in row 0, {labels[first]!r} in row {first}",
            )
        )
    return list(labels)


def as_text(value: object) -> str:
    """A cell of a column as text: empty for a missing value; the same for 1 and 1.0, which are the same patient."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, Real) and not isinstance(value, Integral) and float(value).is_integer():
        return str(int(float(value)))
    return str(value).strip()


def parts_of(values: Sequence[object], where: str, is_required: bool = False) -> list[int] | None:
    """The part that each row names; None if no row names one, so the column means something else.

    Raises InputError, placed at `where`, if some rows name a part and others do not (with `is_required`, also if none
    does).
    """
    names = [as_text(value).lower() for value in values]
    others = Counter(name for name in names if name not in PART_NAMES)
    if not others:
        return [PART_NAMES[name] for name in names]
    if others.total() == len(names) and not is_required:
        return None
    first = next(row for row, name in enumerate(names) if name not in PART_NAMES)
    shown = ", ".join(repr(name) for name in list(others)[:3])
    raise InputError(
        Fault(
            where,
            expected="train, val or test in every row",
            got=f"{shown} in {others.total()} rows, the first of them row {first}",
        )
    )


def _is_list(row: Any) -> bool:
    return isinstance(row, (list, tuple, set, frozenset)) or getattr(row, "ndim", 0) == 1


def _labels_of_lists(rows: Sequence[Any], where: str) -> list[Label]:
    """The labels of rows that are lists: a 0 or 1 for each label, or the labels themselves. Raises InputError."""
    lists: list[list[int | str]] = []
    for number, row in enumerate(rows):
        if not _is_list(row):
            raise InputError(
                Fault(f"{where}, row {number}", expected="a list of labels as in other rows", got=f"{row!r}")
            )
        items = row.tolist() if hasattr(row, "tolist") else list(row)
        lists.append([_scalar(item, f"{where}, row {number}") for item in items])
    values = {value for items in lists for value in items}
    if values <= {0, 1} and max(map(len, lists)) > 1:
        return _labels_of_indicators(lists, where)
    return [_without_no_label([str(value) for value in items]) for items in lists]


def _labels_of_indicators(rows: list[list[int | str]], where: str) -> list[Label]:
    """Labels named by their places, zero-padded so that names sort like numbers. Rows must be of one length."""
    (length, _), *other_lengths = Counter(map(len, rows)).most_common()
    if other_lengths:
        odd = next(number for number, row in enumerate(rows) if len(row) != length)
        raise InputError(
            Fault(
                f"{where}, row {odd}",
                expected=f"{length} values of 0 or 1, one for each label, as in other rows",
                got=str(len(rows[odd])),
                advice="(Lists of labels are lists of their names.)",
            )
        )
    num_digits = len(str(length - 1))
    return [tuple(f"{place:0{num_digits}d}" for place, value in enumerate(row) if value) for row in rows]


def _scalar(value: Any, where: str) -> int | str:
    """A whole number, a truth value or a name as int or str. Raises InputError, placed at `where`, for others."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, Integral)) or (isinstance(value, Real) and float(value).is_integer()):
        return int(float(value)) if isinstance(value, Real) and not isinstance(value, Integral) else int(value)
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))
    raise InputError(
        Fault(where, expected="a label, a whole number or a name", got="none" if is_missing else repr(value)[:60])
    )


def _without_no_label(names: Sequence[str]) -> tuple[str, ...]:
    """The distinct names in their order, stripped, without those that mean "no label"."""
    return tuple(dict.fromkeys(name for name in map(str.strip, names) if name.lower() not in NO_LABEL))
