"""Right and wrong predictions counted by class, and what the counts come to: pure functions of arrays.

A class is predicted where its score is the highest; a label, where an example may have several, where its score (a logit)
is above 0, which is a probability of one half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Predictions against the truth, by class; every array int64 of shape (classes,).

    `tp` were predicted rightly to be of the class, `fp` wrongly, `fn` are of it and were not predicted to be, `tn` neither
    are nor were.
    """

    tp: IntArray
    fp: IntArray
    fn: IntArray
    tn: IntArray

    @property
    def support(self) -> IntArray:
        """How many examples are of the class."""
        return self.tp + self.fn

    def ratios(self) -> dict[str, FloatArray]:
        """By name, a value for each class; NaN where 0 / 0, where scikit-learn and torchmetrics say 0.

        `precision` is tp / (tp + fp), `recall` (of a positive class its sensitivity) tp / (tp + fn), `f1`
        2 tp / (2 tp + fp + fn), `specificity` tn / (tn + fp).
        """
        return {
            "precision": _quotient(self.tp, self.tp + self.fp),
            "recall": _quotient(self.tp, self.tp + self.fn),
            "f1": _quotient(2 * self.tp, 2 * self.tp + self.fp + self.fn),
            "specificity": _quotient(self.tn, self.tn + self.fp),
        }


def confusion(label: NDArray[np.int64], scores: FloatArray) -> IntArray:
    """How many examples of each class (rows) were predicted to be of each (columns), (classes, classes).

    Args:
        label: The class of each example, shape (examples,).
        scores: Shape (examples, classes).
    """
    classes = scores.shape[1]
    cells = np.asarray(label, dtype=np.int64) * classes + scores.argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def label_confusion(labels: NDArray[np.bool_], scores: FloatArray) -> IntArray:
    """How many examples without a label and with it (rows) were predicted to be without and with it (columns).

    Args:
        labels: Whether each example has each label, shape (examples, labels).
        scores: Of the same shape.

    Returns:
        A table for each label, shape (labels, 2, 2).
    """
    predicted = scores > 0
    rows = [[(truth & said).sum(axis=0) for said in (~predicted, predicted)] for truth in (~labels, labels)]
    return np.asarray(np.moveaxis(np.array(rows, dtype=np.int64), 2, 0))


def counts(matrix: IntArray) -> Counts:
    """The counts of each class, of a matrix that `confusion` or `label_confusion` gives."""
    if matrix.ndim == 3:
        return Counts(tp=matrix[:, 1, 1], fp=matrix[:, 0, 1], fn=matrix[:, 1, 0], tn=matrix[:, 0, 0])
    tp, fn_tp, fp_tp = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return Counts(tp=tp, fp=fp_tp - tp, fn=fn_tp - tp, tn=matrix.sum() - fn_tp - fp_tp + tp)


def auroc(scores: FloatArray, positive: NDArray[np.bool_]) -> FloatArray:
    """Area under the ROC curve of each class, from scores and truth, both of shape (examples, classes).

    This is the probability that an example of the class scores higher than one that is not of it, ties counting
    half (Mann and Whitney). NaN for a class that no example has, or that all have.
    """
    ranks = pd.DataFrame(scores).rank().to_numpy()
    positives = positive.sum(axis=0).astype(np.float64)
    pairs = positives * (len(scores) - positives)
    above = (ranks * positive).sum(axis=0) - positives * (positives + 1) / 2
    return np.asarray(np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan))


def wrong_labels(labels: NDArray[np.bool_], scores: FloatArray) -> IntArray:
    """How many examples have 0, 1, ... all of their labels predicted wrongly, shape (labels + 1,)."""
    wrong = (labels != (scores > 0)).sum(axis=1)
    return np.bincount(wrong, minlength=labels.shape[1] + 1).astype(np.int64)


def row_shares(matrix: IntArray) -> FloatArray:
    """The rows of a matrix divided by their sums; NaN in a row without examples."""
    return _quotient(matrix, matrix.sum(axis=-1, keepdims=True))


def _quotient(part: IntArray, whole: IntArray) -> FloatArray:
    return np.asarray(np.where(whole > 0, part / np.maximum(whole, 1), np.nan))
