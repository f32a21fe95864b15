"""Labels as arrays: a class number for each example, or a 0 or 1 for each label that an example may have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lrstudy.data.cells import Label
from lrstudy.errors import Fault, InputError, unknown

Labels = NDArray[np.int64] | NDArray[np.uint8]
"""Class numbers, int64 (N,); or uint8 0 and 1 of shape (N, classes) if an example may have several labels."""


def encode(labels: Sequence[Label], positive: str | None) -> tuple[Labels, tuple[str, ...]]:
    """The labels as an array, with shape (N, classes) for tuples, and the sorted names of their classes.

    `positive` reduces them to two classes, ``not NAME`` and NAME. Raises InputError for fewer than two classes (or no
    label at all, if an example may have several), labels of different kinds, and a `positive` that does not exist.
    """
    if len({type(label) for label in labels}) > 1:
        raise InputError(
            Fault("data", "labels are of different kinds: expected all numbers, all names or all lists of names")
        )
    if labels and isinstance(labels[0], tuple):
        return _encode_tuples([label for label in labels if isinstance(label, tuple)], positive)
    values = sorted(set(labels))
    if len(values) < 2:
        only = f"the single class {values[0]!r}" if values else "no example"
        raise InputError(Fault("data", f"the source has {only}; expected at least two classes"))
    _require_classes(labels, values)
    index = {value: k for k, value in enumerate(values)}
    encoded = np.array([index[label] for label in labels], dtype="<i8")
    names = tuple(str(value) for value in values)
    if positive is None:
        return encoded, names
    return _against_rest(encoded == _index_of(positive, names), positive)


def class_counts(labels: Labels, num_classes: int) -> NDArray[np.int64]:
    """The number of examples of each class, int64 (classes,)."""
    if labels.ndim == 1:
        return np.bincount(labels, minlength=num_classes).astype(np.int64)
    counts: NDArray[np.int64] = labels.sum(axis=0, dtype=np.int64)
    return counts


def strata(labels: Labels) -> NDArray[np.int64]:
    """The stratum of each example in a stratified split, int64 (N,): its class, or the rarest of its labels.

    Examples without a label form one more stratum.
    """
    if labels.ndim == 1:
        return labels.astype(np.int64)
    by_rarity = np.argsort(class_counts(labels, labels.shape[1]), kind="stable")
    has_label = labels[:, by_rarity] == 1
    rarest: NDArray[np.int64] = np.where(has_label.any(axis=1), by_rarity[has_label.argmax(axis=1)], labels.shape[1])
    return rarest


def _require_classes(labels: Sequence[Label], values: Sequence[object]) -> None:
    """Raise InputError for negative numbers, which mean a missing label unless the two classes are -1 and 1."""
    numbers = [value for value in values if isinstance(value, int)]
    if numbers and min(numbers) < 0 and values != [-1, 1]:
        rows = [row for row, label in enumerate(labels) if isinstance(label, int) and label < 0]
        raise InputError(
            Fault(
                "data: labels",
                expected="numbers from 0 on (or -1 and 1 for two classes)",
                got=f"{labels[rows[0]]} in row {rows[0]} and negative ones in {len(rows)} of {len(labels)} rows",
                advice="Leave out rows without a label.",
            )
        )


def _encode_tuples(labels: list[tuple[str, ...]], positive: str | None) -> tuple[Labels, tuple[str, ...]]:
    names = tuple(sorted({name for label in labels for name in label}))
    if not names:
        raise InputError(Fault("data", "no example has a label"))
    index = {name: k for k, name in enumerate(names)}
    encoded = np.zeros((len(labels), len(names)), dtype=np.uint8)
    for row, label in enumerate(labels):
        encoded[row, [index[name] for name in label]] = 1
    if positive is None:
        return encoded, names
    return _against_rest(encoded[:, _index_of(positive, names)] == 1, positive)


def _index_of(name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        raise InputError(unknown("task.label", "label", name, names))
    return names.index(name)


def _against_rest(is_positive: NDArray[np.bool_], name: str) -> tuple[Labels, tuple[str, ...]]:
    """Two classes: 1 for examples with the label `name`, 0 for the others. Raises InputError if either is empty."""
    if is_positive.all() or not is_positive.any():
        raise InputError(
            Fault("task.label", expected=f"a label that some examples have and others lack; {name!r} is none")
        )
    return is_positive.astype("<i8"), (f"not {name}", name)
