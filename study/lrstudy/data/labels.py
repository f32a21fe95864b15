"""Labels as arrays: a class number for each example, or a 0 or 1 for each label that it may have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lrstudy.data.cells import Label
from lrstudy.errors import Fault, InputError, unknown

Labels = NDArray[np.int64] | NDArray[np.uint8]


def encode(labels: Sequence[Label], chosen: str | None) -> tuple[Labels, tuple[str, ...]]:
    """The labels and the sorted names of their classes: int64 (N,), or uint8 0 and 1 of shape (N, classes) for tuples.

    `chosen` makes two classes of them, ``not NAME`` and NAME. Raises InputError for fewer than two classes (or no label at
    all, where there may be several), labels of different kinds, and a chosen one that does not exist.
    """
    if len({type(label) for label in labels}) > 1:
        raise InputError(
            Fault("data", "labels are of different kinds: expected all numbers, all names or all lists of names")
        )
    if labels and isinstance(labels[0], tuple):
        return _several([label for label in labels if isinstance(label, tuple)], chosen)
    values = sorted(set(labels))
    if len(values) < 2:
        only = f"the single class {values[0]!r}" if values else "no example"
        raise InputError(Fault("data", f"the source has {only}; expected at least two classes"))
    _require_classes(labels, values)
    index = {value: k for k, value in enumerate(values)}
    encoded = np.array([index[label] for label in labels], dtype="<i8")
    names = tuple(str(value) for value in values)
    return (encoded, names) if chosen is None else _one_of_them(encoded == _place(chosen, names), chosen)


def class_counts(labels: Labels, num_classes: int) -> NDArray[np.int64]:
    """How many examples have each class, int64 (classes,)."""
    if labels.ndim == 1:
        return np.bincount(labels, minlength=num_classes).astype(np.int64)
    counts: NDArray[np.int64] = labels.sum(axis=0, dtype=np.int64)
    return counts


def strata(labels: Labels) -> NDArray[np.int64]:
    """What a stratified split keeps the shares of, int64 (N,): the class, or the rarest of the labels an example has."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    by_rarity = np.argsort(class_counts(labels, labels.shape[1]), kind="stable")
    has = labels[:, by_rarity] == 1
    rarest: NDArray[np.int64] = np.where(has.any(axis=1), by_rarity[has.argmax(axis=1)], labels.shape[1])
    return rarest


def _require_classes(labels: Sequence[Label], values: Sequence[object]) -> None:
    """A negative number stands for no label, unless the two classes are -1 and 1."""
    numbers = [value for value in values if isinstance(value, int)]
    if numbers and min(numbers) < 0 and values != [-1, 1]:
        rows = [row for row, label in enumerate(labels) if isinstance(label, int) and label < 0]
        raise InputError(
            Fault(
                "data",
                f"labels: expected numbers from 0 on (or -1 and 1 for two classes); got {labels[rows[0]]} in row "
                f"{rows[0]} and negative ones in {len(rows)} of {len(labels)} rows",
                advice="Leave out rows without a label.",
            )
        )


def _several(labels: list[tuple[str, ...]], chosen: str | None) -> tuple[Labels, tuple[str, ...]]:
    names = tuple(sorted({name for label in labels for name in label}))
    if not names:
        raise InputError(Fault("data", "no example has a label"))
    index = {name: k for k, name in enumerate(names)}
    encoded = np.zeros((len(labels), len(names)), dtype=np.uint8)
    for row, label in enumerate(labels):
        encoded[row, [index[name] for name in label]] = 1
    return (encoded, names) if chosen is None else _one_of_them(encoded[:, _place(chosen, names)] == 1, chosen)


def _place(chosen: str, names: tuple[str, ...]) -> int:
    if chosen not in names:
        raise InputError(unknown("task.label", "label", chosen, names))
    return names.index(chosen)


def _one_of_them(is_it: NDArray[np.bool_], name: str) -> tuple[Labels, tuple[str, ...]]:
    if is_it.all() or not is_it.any():
        raise InputError(
            Fault("task.label", expected=f"a label that some examples have and others lack; {name!r} is none")
        )
    return is_it.astype("<i8"), (f"not {name}", name)
