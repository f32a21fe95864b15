"""What a model is asked to learn: the loss of a task, and the metrics of its predictions.

Metrics come from one confusion matrix kept on the device. torchmetrics gives the same numbers (a test
compares them) but takes seconds to import in every worker.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

METRICS = ("accuracy", "balanced_accuracy")
"""Metrics of a multiclass task; all of them are recorded for every epoch, all are to be maximised."""


def loss(logits: Tensor, labels: Tensor, class_weights: Sequence[float] | None) -> Tensor:
    """Mean cross entropy over a batch; logits (batch, classes), labels (batch,) of int64.

    With class weights this is torch's weighted mean: the sum of weighted losses over the sum of weights.
    """
    weight = torch.tensor(class_weights, device=logits.device) if class_weights else None
    return functional.cross_entropy(logits, labels, weight=weight)


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Counts of (true class, predicted class), shape (classes, classes), int64, on the device."""
    classes = logits.shape[1]
    return torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)


def metrics(counts: Tensor) -> dict[str, float]:
    """Metrics of a confusion matrix.

    `accuracy`: share of correct predictions. `balanced_accuracy`: mean recall over the classes that occur
    (scikit-learn's definition). Both lie in [0, 1].
    """
    table = counts.double().cpu()
    correct, support = table.diagonal(), table.sum(1)
    present = support > 0
    return {
        "accuracy": float(correct.sum() / support.sum()),
        "balanced_accuracy": float((correct[present] / support[present]).mean()),
    }
