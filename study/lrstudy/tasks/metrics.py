"""The loss of a task and the metrics of predictions.

Metrics are computed here, on the device: torchmetrics gives the same numbers (tests compare them) but takes seconds to
import in every worker. A ranking metric is undefined for a class without positives or negatives in a part: means over
classes leave that class out, and if no class is left the metric is absent, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from lrstudy.tasks.kinds import Kind


def weight_in_mean(piece: Tensor, labels: Tensor, class_weights: Sequence[float] | None) -> Tensor | float:
    """The weight of the mean loss over `piece` in the mean loss over `labels`, of which it is a piece; float64 in [0, 1].

    Both hold labels, int64 (N,) or 0 and 1 of shape (N, classes).
    """
    if labels.ndim == 2 or not class_weights:
        return len(piece) / len(labels)
    weights = _weights(class_weights, labels.device, torch.float64)
    assert weights is not None
    return weights[piece].sum() / weights[labels].sum()


def loss(logits: Tensor, labels: Tensor, class_weights: Sequence[float] | None) -> Tensor:
    """Mean loss over a batch; logits (batch, classes), labels int64 (batch,) or 0 and 1 (batch, classes).

    With one label each: cross entropy; class weights make it torch's weighted mean, the weighted sum over the sum of the
    weights. With several: binary cross entropy, averaged over examples and labels, positives times their weight.
    """
    logits = precise(logits)
    weights = _weights(class_weights, logits.device, logits.dtype)
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, weight=weights)
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=weights)


def precise(logits: Tensor) -> Tensor:
    """Logits in float32 if they have 16 bits, which are too few for the sum over a batch; others as they are."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _weights(class_weights: Sequence[float] | None, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    return _weight_tensor(tuple(class_weights), device, dtype) if class_weights else None


@lru_cache(maxsize=8)  # copying to a GPU makes the host wait, which must not happen in every update
def _weight_tensor(class_weights: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(class_weights, device=device, dtype=dtype)


def metrics(logits: Tensor, labels: Tensor, kind: Kind) -> dict[str, float]:
    """The metrics of a part; logits (N, classes), labels int64 (N,) or 0 and 1 (N, classes). Undefined ones are absent.

    With one label each: `accuracy`; `balanced_accuracy`, the mean recall of the classes that occur; `f1`, `auroc` and
    `average_precision` of the positive class (binary), or of each class against the rest, averaged. With several:
    `accuracy` over all labels; `exact_match`; `balanced_accuracy`, the mean over labels of the mean recall of positives
    and negatives; the others averaged over labels. A label counts as predicted where its logit is above 0.
    """
    positive, predicted, scores = _as_labels(logits, labels)
    values = _accuracies(logits, labels, positive, predicted)
    f1 = 2 * _count(positive & predicted) / (_count(positive) + _count(predicted))
    by_class = {"f1": f1, "auroc": auroc(scores, positive), "average_precision": average_precision(scores, positive)}
    values |= {name: each[1] if kind == "binary" else _mean(each) for name, each in by_class.items()}
    numbers = torch.stack([value.double() for value in values.values()]).tolist()  # one transfer from the device
    return {name: number for name, number in zip(values, numbers, strict=True) if not math.isnan(number)}


def auroc(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under the ROC curve of each class, (classes,) float64; NaN for a class without positives or negatives.

    It is the probability that a positive is scored above a negative, ties counting half (Mann and Whitney), computed
    from mean ranks.
    """
    ranks = torch.stack([_mean_ranks(column) for column in scores.T], dim=1)
    positives = positive.sum(0).double()
    negatives = len(scores) - positives
    above = (ranks * positive).sum(0) - positives * (positives + 1) / 2
    area: Tensor = above / (positives * negatives)
    return area


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Sum of (recall_i - recall_(i-1)) * precision_i over thresholds, per class; NaN for a class without positives."""
    return torch.stack([_average_precision(s, p) for s, p in zip(scores.T, positive.T, strict=True)])


def _accuracies(logits: Tensor, labels: Tensor, positive: Tensor, predicted: Tensor) -> dict[str, Tensor]:
    """The metrics that count right predictions; `positive` and `predicted` as from `_as_labels`."""
    recall = _count(positive & predicted) / _count(positive)
    if labels.ndim == 1:
        return {"accuracy": (logits.argmax(1) == labels).double().mean(), "balanced_accuracy": _mean(recall)}
    specificity = _count(~positive & ~predicted) / (~positive).sum(0)
    return {
        "accuracy": (positive == predicted).double().mean(),
        "exact_match": (positive == predicted).all(1).double().mean(),
        "balanced_accuracy": _mean(torch.stack([recall, specificity]).nanmean(0)),
    }


def _count(is_true: Tensor) -> Tensor:
    """How many examples are true, for each class; float64 (classes,)."""
    return is_true.sum(0).double()


def _as_labels(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each class: whether an example has it, whether it was predicted, and the score; all of shape (N, classes)."""
    logits = logits.double()
    if labels.ndim == 2:
        return labels.bool(), logits > 0, logits
    classes = torch.arange(logits.shape[1], device=logits.device)
    # Log probabilities rank examples as probabilities do, but saturate later.
    total = torch.logsumexp(logits, dim=1, keepdim=True)
    return labels.unsqueeze(1) == classes, logits.argmax(1, keepdim=True) == classes, logits - total


def _mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 1; equal values get the mean of their ranks."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks: Tensor = (last - (counts - 1) / 2)[inverse]
    return ranks


def _average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    _, inverse, counts = torch.unique(-scores, return_inverse=True, return_counts=True)
    hits = torch.zeros(len(counts), dtype=torch.float64, device=scores.device).index_add_(0, inverse, positive.double())
    precision = hits.cumsum(0) / counts.cumsum(0)
    average: Tensor = (precision * hits).sum() / hits.sum()
    return average


def _mean(values: Tensor) -> Tensor:
    """The mean over the classes for which a value is defined; NaN if there is none."""
    return values.double().nanmean()
