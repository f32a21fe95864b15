"""The kinds of tasks, with the loss and the metrics of each, by name; without importing torch."""

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
"""All are recorded after every epoch, are to be maximised and lie in [0, 1]; tasks/metrics.py defines them."""
COUNTED_IN_TRAINING = ("accuracy", "exact_match")
"""Those that are also counted while an epoch trains, of the training examples: training/tally.py."""


@dataclass(frozen=True)
class Task:
    """A kind of task and its number of classes (of labels, if an example may have several).

    A ``binary`` task has two classes, trained as two logits with cross entropy, so that its training is the same as that of
    ``multiclass``. The second class, in sorted order, is the positive one.
    """

    kind: Kind
    num_classes: int

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that are recorded."""
        return METRICS[self.kind]

    @property
    def loss(self) -> Loss:
        """The loss that training minimises."""
        return "binary_cross_entropy" if self.kind == "multilabel" else "cross_entropy"


def balanced_weights(labels: NDArray[np.int64] | NDArray[np.uint8], num_classes: int) -> tuple[float, ...]:
    """Weights that make every class count the same, from training labels, int64 (N,) or 0 and 1 of shape (N, classes).

    With one label each: N / (classes * count), as scikit-learn's ``balanced``. With several: negatives / positives of each
    label, the weight of its positives. Rounded to 6 significant digits. Raises InputError for a class without a training
    example.
    """
    counts = np.bincount(labels, minlength=num_classes) if labels.ndim == 1 else labels.sum(axis=0, dtype=np.int64)
    if (counts == 0).any():
        raise InputError(Fault("task.class_weights", "balanced weights need a training example of every class"))
    weights = len(labels) / (num_classes * counts) if labels.ndim == 1 else (len(labels) - counts) / counts
    return tuple(float(f"{weight:.6g}") for weight in weights)
