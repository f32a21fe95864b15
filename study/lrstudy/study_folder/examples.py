"""Examples of a data set as the tables of a study name them: the split, and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """Some examples of a data set.

    Attributes:
        index: Their positions in the data set, int64 of shape (examples,).
        labels: Class indices, integers of shape (examples,); or, where an example may have several labels, 0 and 1 of
            shape (examples, classes).
        classes: The names of the classes; empty if they are not known.
        groups: The name of each example's group, if there are groups.
        sources: The file of each example, or its row in the source, if that is known.
    """

    index: NDArray[np.int64]
    labels: NDArray[Any]
    classes: Sequence[str] = ()
    groups: Sequence[str] | None = None
    sources: Sequence[str] | None = None

    @property
    def is_multilabel(self) -> bool:
        """Whether an example may have several labels."""
        return self.labels.ndim == 2

    def columns(self) -> dict[str, Any]:
        """The columns `example`, `group`, `label`, `labels`, `label_name` and `source`."""
        count = len(self.index)
        if self.is_multilabel:
            label, labels = pa.nulls(count, pa.int32()), rows_of(self.labels.astype(np.int8))
        else:
            label, labels = self.labels.astype(np.int32), pa.nulls(count, pa.list_(pa.int8()))
        return {
            "example": self.index,
            "group": list(self.groups) if self.groups is not None else [""] * count,
            "label": label,
            "labels": labels,
            "label_name": pa.array(self._label_names(), pa.string()),
            "source": pa.array([None] * count if self.sources is None else list(self.sources), pa.string()),
        }

    def _label_names(self) -> list[str | None]:
        """The name of each example's class, those of several joined by ``|`` as in a CSV file."""
        if not self.classes:
            return [None] * len(self.index)
        if self.is_multilabel:
            return ["|".join(self.classes[k] for k in np.flatnonzero(row).tolist()) for row in self.labels]
        return [self.classes[k] for k in self.labels.tolist()]


def rows_of(values: NDArray[Any]) -> pa.Array:
    """A matrix as a column of lists, one per row."""
    flat = pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]).cast(pa.list_(flat.type))
