"""How much a metric varies with the examples of a test part, by their number in each class.

An accuracy over 10,000 images is sharp; a mean over classes is as blunt as its smallest class: 12 images of a class
decide a tenth of a balanced accuracy over ten classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def counting_deviation(metric: str, value: float, counts: Sequence[int], total: int, is_multilabel: bool) -> float:
    """The standard deviation of a metric over test parts of this make-up, where every class or label reaches `value`.

    Shares are binomial, areas under the ROC curve as Hanley and McNeil (1982) have them; metrics that are means over
    classes have the variance of a mean, which the smallest class dominates. F1 and average precision are taken as
    shares of the positives, which is about right where they are high.

    Args:
        metric: Its name in study files.
        value: What it is near, in (0, 1).
        counts: Examples of each class, or positives of each label; those without any are left out.
        total: Examples of the test part.
        is_multilabel: Whether an example may have several labels.
    """
    share = value * (1 - value)
    if metric == "exact_match" or (metric == "accuracy" and not is_multilabel):
        return math.sqrt(share / total)
    positives = [count for count in counts if count > 0]
    if metric == "accuracy" or not positives:  # a mean over examples and labels: at the least as over all of them
        return math.sqrt(share / (total * max(len(counts), 1)))
    if len(counts) == 2 and not is_multilabel and metric in ("auroc", "f1", "average_precision"):
        positives = [counts[1] or counts[0]]  # of two classes the second one is the positive one
    variances = [_of_class(metric, value, count, total - count, is_multilabel) for count in positives]
    return math.sqrt(sum(variances)) / len(variances)


def _of_class(metric: str, value: float, positives: int, negatives: int, is_multilabel: bool) -> float:
    """The variance of one class's part of a mean over classes."""
    share, negatives = value * (1 - value), max(negatives, 1)
    if metric == "auroc":
        both_above, both_below = value / (2 - value) - value**2, 2 * value**2 / (1 + value) - value**2
        return (share + (positives - 1) * both_above + (negatives - 1) * both_below) / (positives * negatives)
    if metric == "balanced_accuracy" and is_multilabel:
        return share / 4 * (1 / positives + 1 / negatives)
    return share / positives
