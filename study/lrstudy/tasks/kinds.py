"""Tasks by name: what is learnt, with which loss, and which metrics every evaluation records. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lrstudy.errors import Fault, InputError

Kind = Literal["multiclass", "binary", "multilabel"]
Loss = Literal["cross_entropy", "binary_cross_entropy"]

_SINGLE = ("accuracy", "balanced_accuracy", "f1", "auroc", "average_precision")
METRICS: dict[str, tuple[str, ...]] = {
    "multiclass": _SINGLE,
    "binary": _SINGLE,
    "multilabel": ("accuracy", "exact_match", "balanced_accuracy", "f1", "auroc", "average_precision"),
}
"""All are recorded after every epoch, all are to be maximised, all lie in [0, 1]; tasks.py says what each is."""


@dataclass(frozen=True)
class Task:
    """A kind of task and its number of classes (labels, if an example may have several).

    ``binary`` is two classes trained as two logits with cross entropy, so that it is the same training as ``multiclass``;
    its second class, in sorted order, is the positive one.
    """

    kind: Kind
    num_classes: int

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that are recorded."""
        return METRICS[self.kind]

    @property
    def loss(self) -> Loss:
        """The loss that is trained with."""
        return "binary_cross_entropy" if self.kind == "multilabel" else "cross_entropy"


def balanced_weights(labels: NDArray[np.int64] | NDArray[np.uint8], num_classes: int) -> tuple[float, ...]:
    """Weights that give every class the same say, from training labels, int64 (N,) or 0 and 1 of shape (N, classes).

    One label each: N / (classes * count), as scikit-learn's ``balanced``. Several: negatives / positives of each label, the
    weight of its positives. Rounded to 6 digits. Raises InputError for a class without a training example.
    """
    count = np.bincount(labels, minlength=num_classes) if labels.ndim == 1 else labels.sum(axis=0, dtype=np.int64)
    if (count == 0).any():
        raise InputError(Fault("task.class_weights", "balanced weights need a training example of every class"))
    weights = len(labels) / (num_classes * count) if labels.ndim == 1 else (len(labels) - count) / count
    return tuple(float(f"{weight:.6g}") for weight in weights)
