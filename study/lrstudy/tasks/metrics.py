"""What a model is asked to learn: the loss of a task, and the metrics of its predictions.

Metrics are computed here, on the device: torchmetrics gives the same numbers (tests compare them) but takes seconds to
import in every worker. A class without positives or negatives in a part has no ranking metric there: means over
classes leave it out, and where no class is left the metric is absent, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from lrstudy.tasks.kinds import Kind


def share_of_mean(piece: Tensor, labels: Tensor, class_weights: Sequence[float] | None) -> Tensor | float:
    """What the mean loss over `piece` counts for in the mean over `labels`, which it is a piece of; float64."""
    if labels.ndim == 2 or not class_weights:
        return len(piece) / len(labels)
    weight = _weight(class_weights, labels.device, torch.float64)
    assert weight is not None
    return weight[piece].sum() / weight[labels].sum()


def loss(logits: Tensor, labels: Tensor, class_weights: Sequence[float] | None) -> Tensor:
    """Mean loss over a batch; logits (batch, classes), labels int64 (batch,) or 0 and 1 (batch, classes).

    One label each: cross entropy, with class weights torch's weighted mean: the weighted sum over the sum of weights.
    Several: binary cross entropy, meant over examples and labels, positives times their weight.
    """
    logits = precise(logits)
    weight = _weight(class_weights, logits.device, logits.dtype)
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, weight=weight)
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=weight)


def precise(logits: Tensor) -> Tensor:
    """Logits of 16 bits in float32: a loss sums over a batch."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _weight(class_weights: Sequence[float] | None, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    return _made_weight(tuple(class_weights), device, dtype) if class_weights else None


@lru_cache(maxsize=8)  # moving them to a GPU waits for it, which must not happen in every update
def _made_weight(class_weights: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(class_weights, device=device, dtype=dtype)


def metrics(logits: Tensor, labels: Tensor, kind: Kind) -> dict[str, float]:
    """The metrics of a part; logits (N, classes), labels int64 (N,) or 0 and 1 (N, classes). Undefined ones are absent.

    One label each: `accuracy`; `balanced_accuracy`, the mean recall of the classes that occur; `f1`, `auroc` and
    `average_precision` of the positive class (binary), or of each class against the rest, averaged. Several: `accuracy`
    over all labels; `exact_match`; `balanced_accuracy`, the mean over labels of the mean recall of positives and
    negatives; the others averaged over labels. A label counts as predicted where its logit is above 0.
    """
    positive, predicted, scores = _as_labels(logits, labels)
    exact = (positive == predicted).all(1) if labels.ndim == 2 else logits.argmax(1) == labels
    true_positive = (positive & predicted).sum(0).double()
    occurs, claimed = positive.sum(0).double(), predicted.sum(0).double()
    recall = true_positive / occurs
    if labels.ndim == 2:
        specificity = (~positive & ~predicted).sum(0).double() / (~positive).sum(0)
        found = {
            "accuracy": (positive == predicted).double().mean(),
            "exact_match": exact.double().mean(),
            "balanced_accuracy": _mean(torch.stack([recall, specificity]).nanmean(0)),
        }
    else:
        found = {"accuracy": exact.double().mean(), "balanced_accuracy": _mean(recall)}
    f1 = 2 * true_positive / (occurs + claimed)
    ranked = {"f1": f1, "auroc": auroc(scores, positive), "average_precision": average_precision(scores, positive)}
    found |= {name: values[1] if kind == "binary" else _mean(values) for name, values in ranked.items()}
    values = torch.stack([value.double() for value in found.values()]).tolist()  # one transfer from the device
    return {name: value for name, value in zip(found, values, strict=True) if value == value}


def auroc(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under the ROC curve of each class, (classes,) float64; NaN for a class without positives or negatives.

    The probability that a positive is scored above a negative, ties counting half (Mann and Whitney), from mean ranks.
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


def _as_labels(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each class: whether an example has it, whether it is predicted to, and the score; all (N, classes)."""
    logits = logits.double()
    if labels.ndim == 2:
        return labels.bool(), logits > 0, logits
    classes = torch.arange(logits.shape[1], device=logits.device)
    # Log probabilities order examples as probabilities do, and saturate later.
    total = torch.logsumexp(logits, dim=1, keepdim=True)
    return labels.unsqueeze(1) == classes, logits.argmax(1, keepdim=True) == classes, logits - total


def _mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 1, ties sharing their mean."""
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
