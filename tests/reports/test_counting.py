"""Counts of right and wrong predictions, against scikit-learn and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics
from torchmetrics.functional import classification

from lrstudy_reports.counting import auroc, confusion, counts, label_confusion, row_shares, wrong_labels

CLASSES = 4


def one_label(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and scores; of four classes the last is never there, and seldom predicted."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES - 1, n)
    return label, rng.normal(size=(n, CLASSES)) + 1.5 * (label[:, None] == np.arange(CLASSES)) - (0, 0, 0, 2.0)


def several_labels(n: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    labels = rng.random((n, CLASSES)) < (0.5, 0.2, 0.9, 0.0)
    return labels, rng.normal(size=labels.shape) + labels - 0.5


@tried(deadline=None, max_examples=30)
@given(n=st.integers(1, 60), seed=st.integers(0, 10_000))
def test_of_one_label_each_the_matrix_and_its_ratios_are_scikit_learns(n: int, seed: int) -> None:
    label, scores = one_label(n, seed)
    predicted, names = scores.argmax(1), list(range(CLASSES))
    matrix = confusion(label, scores)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(label, predicted, labels=names))
    found = counts(matrix)
    tables = metrics.multilabel_confusion_matrix(label, predicted, labels=names)
    for name, at in {"tn": (0, 0), "fp": (0, 1), "fn": (1, 0), "tp": (1, 1)}.items():
        np.testing.assert_array_equal(getattr(found, name), tables[:, *at])
    expected = metrics.precision_recall_fscore_support(label, predicted, labels=names, zero_division=np.nan)
    for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
        np.testing.assert_allclose(found.ratios()[name], value, atol=1e-12)
    np.testing.assert_array_equal(found.support, expected[3])


@tried(deadline=None, max_examples=30)
@given(n=st.integers(1, 60), seed=st.integers(0, 10_000))
def test_of_several_labels_each_has_a_table_as_in_scikit_learn(n: int, seed: int) -> None:
    labels, scores = several_labels(n, seed)
    matrix = label_confusion(labels, scores)
    np.testing.assert_array_equal(matrix, metrics.multilabel_confusion_matrix(labels, scores > 0))
    ratios = counts(matrix).ratios()
    expected = metrics.precision_recall_fscore_support(labels, scores > 0, zero_division=np.nan)
    for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
        np.testing.assert_allclose(ratios[name], value, atol=1e-12)
    exact = wrong_labels(labels, scores)
    assert exact.sum() == n
    assert exact[0] / n == metrics.accuracy_score(labels, scores > 0)
    assert exact @ np.arange(CLASSES + 1) / (n * CLASSES) == pytest.approx(metrics.hamming_loss(labels, scores > 0))


def test_sensitivity_and_specificity_are_torchmetrics() -> None:
    labels, scores = several_labels(300, 1)
    target, logits = torch.from_numpy(labels.astype(int)), torch.from_numpy(scores)
    ratios = counts(label_confusion(labels, scores)).ratios()
    keep = {"num_labels": CLASSES, "average": "none"}
    specificity = classification.multilabel_specificity(logits, target, **keep)
    sensitivity = classification.multilabel_recall(logits, target, **keep)
    np.testing.assert_allclose(ratios["specificity"], specificity, atol=1e-6)  # float32
    np.testing.assert_allclose(ratios["recall"][:3], sensitivity[:3], atol=1e-6)
    assert np.isnan(ratios["recall"][3]), "no example has the label; torchmetrics says 0"

    two, of_two = labels[:, 0].astype(np.int64), scores[:, :2]
    binary = counts(confusion(two, of_two)).ratios()
    said, truth = torch.from_numpy(of_two.argmax(1)), torch.from_numpy(two)
    assert binary["recall"][1] == pytest.approx(float(classification.binary_recall(said, truth)))
    assert binary["specificity"][1] == pytest.approx(float(classification.binary_specificity(said, truth)))
    assert binary["specificity"][1] == binary["recall"][0]


def test_what_nothing_was_divided_by_is_undefined_and_never_0() -> None:
    """By hand: of five examples of two classes out of three all were taken for the first."""
    matrix = confusion(np.array([0, 0, 1, 1, 1]), np.array([[1.0, 0.0, 0.0]] * 5))
    assert matrix.tolist() == [[2, 0, 0], [3, 0, 0], [0, 0, 0]]
    ratios = counts(matrix).ratios()
    np.testing.assert_array_equal(ratios["precision"], [0.4, np.nan, np.nan])
    np.testing.assert_array_equal(ratios["recall"], [1.0, 0.0, np.nan])
    np.testing.assert_array_equal(ratios["f1"], [4 / 7, 0.0, np.nan])
    np.testing.assert_array_equal(ratios["specificity"], [0.0, 1.0, 1.0])
    np.testing.assert_array_equal(row_shares(matrix)[2], [np.nan] * 3)


@tried(deadline=None, max_examples=50)
@given(n=st.integers(2, 40), seed=st.integers(0, 10_000))
def test_the_area_of_each_class_is_scikit_learns(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (n, 3)).astype(np.float64)  # few values, so that there are ties
    positive = rng.random((n, 3)) < (0.0, 0.5, 0.9)
    found = auroc(scores, positive)
    for k in range(3):
        if 0 < positive[:, k].sum() < n:
            assert found[k] == pytest.approx(metrics.roc_auc_score(positive[:, k], scores[:, k]), abs=1e-12)
        else:
            assert np.isnan(found[k])
