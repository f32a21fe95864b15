"""Losses and metrics of tasks, against torchmetrics and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from lrstudy.errors import InputError
from lrstudy.tasks import metrics as tasks
from lrstudy.tasks.kinds import METRICS, Task, balanced_weights

SAME = {"abs": 1e-9}  # the same sums of float64, in another order


def logits_of(seed: int, n: int, classes: int) -> np.ndarray:
    """Logits with ties: rounded to one digit."""
    return np.random.default_rng(seed).normal(size=(n, classes)).round(1)


@tried(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(8, 80), classes=st.integers(3, 5))
def test_multiclass_metrics_are_scikit_learns(seed: int, n: int, classes: int) -> None:
    logits = logits_of(seed, n, classes)
    labels = np.concatenate([np.arange(classes), np.random.default_rng(seed).integers(0, classes, n - classes)])
    found = tasks.metrics(torch.tensor(logits), torch.tensor(labels), "multiclass")
    predicted = logits.argmax(1)
    assert tuple(found) == METRICS["multiclass"]
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted), **SAME)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted), **SAME)
    assert found["f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"), **SAME)
    one_hot, scores = np.eye(classes)[labels], torch.tensor(logits).log_softmax(1).numpy()
    by_class = [sk.roc_auc_score(one_hot[:, k], scores[:, k]) for k in range(classes)]
    assert found["auroc"] == pytest.approx(np.mean(by_class), abs=2 / n)  # a tie may be broken in the last bit
    by_class = [sk.average_precision_score(one_hot[:, k], scores[:, k]) for k in range(classes)]
    assert found["average_precision"] == pytest.approx(np.mean(by_class), abs=2 / n)


@tried(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 80))
def test_binary_metrics_are_those_of_the_second_class(seed: int, n: int) -> None:
    logits = np.zeros((n, 2))
    logits[:, 1] = logits_of(seed, n, 1)[:, 0]
    labels = np.concatenate([[0, 1], np.random.default_rng(seed).integers(0, 2, n - 2)])
    found = tasks.metrics(torch.tensor(logits), torch.tensor(labels), "binary")
    assert found["f1"] == pytest.approx(sk.f1_score(labels, logits[:, 1] > 0), **SAME)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(labels, logits[:, 1]), **SAME)
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(labels, logits[:, 1]), **SAME)


@tried(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 60), labels=st.integers(1, 5))
def test_multilabel_metrics_are_scikit_learns(seed: int, n: int, labels: int) -> None:
    logits = logits_of(seed, n, labels)
    truth = np.random.default_rng(seed).integers(0, 2, (n, labels))
    truth[0], truth[1] = 0, 1
    found = tasks.metrics(torch.tensor(logits), torch.tensor(truth, dtype=torch.uint8), "multilabel")
    claimed = logits > 0
    assert set(found) == set(METRICS["multilabel"])
    assert found["exact_match"] == pytest.approx((claimed == truth).all(1).mean(), **SAME)
    assert found["accuracy"] == pytest.approx((claimed == truth).mean(), **SAME)
    each = [sk.balanced_accuracy_score(truth[:, k], claimed[:, k]) for k in range(labels)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(each), **SAME)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, logits, average="macro"), **SAME)
    expected = np.mean([sk.average_precision_score(truth[:, k], logits[:, k]) for k in range(labels)])
    assert found["average_precision"] == pytest.approx(expected, **SAME)
    assert found["f1"] == pytest.approx(
        np.mean([sk.f1_score(truth[:, k], claimed[:, k]) for k in range(labels)]), **SAME
    )


def test_they_are_torchmetrics_too() -> None:
    """Without ties: torchmetrics sorts in float32."""
    from torchmetrics.functional import classification as theirs

    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(200, 4, generator=generator), torch.randint(0, 4, (200,), generator=generator)
    found, probabilities = tasks.metrics(logits, labels, "multiclass"), logits.softmax(1)
    assert found["auroc"] == pytest.approx(float(theirs.multiclass_auroc(probabilities, labels, 4)), abs=1e-6)
    expected = theirs.multiclass_average_precision(probabilities, labels, 4)
    assert found["average_precision"] == pytest.approx(float(expected), abs=1e-6)
    assert found["f1"] == pytest.approx(float(theirs.multiclass_f1_score(logits, labels, 4)), abs=1e-6)
    truth = torch.randint(0, 2, (200, 4), generator=generator)
    found, chances = tasks.metrics(logits, truth.to(torch.uint8), "multilabel"), logits.sigmoid()
    assert found["auroc"] == pytest.approx(float(theirs.multilabel_auroc(chances, truth, 4)), abs=1e-6)
    assert found["exact_match"] == pytest.approx(float(theirs.multilabel_exact_match(chances, truth, 4)), abs=1e-6)
    assert found["f1"] == pytest.approx(float(theirs.multilabel_f1_score(chances, truth, 4)), abs=1e-6)


def test_a_class_without_positives_is_left_out_of_means_and_a_metric_without_classes_is_absent() -> None:
    logits = torch.tensor([[2.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    truth = torch.tensor([[1, 0], [0, 0], [1, 0]], dtype=torch.uint8)  # nobody has the second label
    found = tasks.metrics(logits, truth, "multilabel")
    assert found["auroc"] == found["average_precision"] == 1.0
    nobody = tasks.metrics(logits, torch.zeros_like(truth), "multilabel")
    assert set(nobody) == {"accuracy", "exact_match", "balanced_accuracy", "f1"}
    assert tasks.metrics(logits, torch.tensor([0, 0, 0]), "binary").keys() == {
        "accuracy",
        "balanced_accuracy",
        "f1",
    } - ({"f1"} if not (logits.argmax(1) == 1).any() else set())


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0)])
def test_losses_are_torchs(weights: tuple[float, ...] | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, 3, generator=generator), torch.randint(0, 3, (9,), generator=generator)
    weight = None if weights is None else torch.tensor(weights)
    expected = functional.cross_entropy(logits, labels, weight=weight)
    assert torch.equal(tasks.loss(logits, labels, weights), expected)
    pieces = [(logits[k : k + 4], labels[k : k + 4]) for k in range(0, 9, 4)]
    parts = sum(tasks.loss(x, y, weights) * tasks.weight_in_mean(y, labels, weights) for x, y in pieces)
    torch.testing.assert_close(parts.float(), expected)
    truth = torch.randint(0, 2, (9, 3), generator=generator, dtype=torch.uint8)
    expected = functional.binary_cross_entropy_with_logits(logits, truth.float(), pos_weight=weight)
    torch.testing.assert_close(tasks.loss(logits, truth, weights), expected)


def test_balanced_weights_are_scikit_learns_and_negatives_over_positives() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights(labels, 3) == pytest.approx(expected, rel=1e-5)
    truth = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], dtype=np.uint8)
    assert balanced_weights(truth, 2) == pytest.approx([3.0, 1 / 3], rel=1e-5)
    with pytest.raises(InputError, match="balanced weights need a training example of every class"):
        balanced_weights(np.array([0, 0]), 2)


def test_a_task_knows_its_loss_and_metrics() -> None:
    assert Task("multilabel", 3).loss == "binary_cross_entropy"
    assert Task("binary", 2).loss == Task("multiclass", 3).loss == "cross_entropy"
    assert "exact_match" in Task("multilabel", 3).metrics
