"""The counting noise of metrics, against simulated test parts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lrstudy.running.counting_noise import counting_deviation
from lrstudy.running.forecast_cost import noise
from study_files import plan_of

DRAWS = 4000
TOLERANCE = 0.06
"""Relative; three standard errors of a standard deviation over 4,000 draws are 0.034."""


def test_an_accuracy_is_a_share() -> None:
    assert counting_deviation("accuracy", 0.9, (60, 40), 100, False) == pytest.approx(math.sqrt(0.09 / 100))
    assert counting_deviation("exact_match", 0.9, (60, 40), 100, True) == pytest.approx(math.sqrt(0.09 / 100))


def test_the_smallest_class_decides_a_balanced_accuracy() -> None:
    rng, counts = np.random.default_rng(0), (500, 200, 12)
    drawn = np.mean([rng.binomial(count, 0.9, DRAWS) / count for count in counts], axis=0)
    found = counting_deviation("balanced_accuracy", 0.9, counts, sum(counts), False)
    assert found == pytest.approx(drawn.std(), rel=TOLERANCE)
    assert found > 2.5 * counting_deviation("accuracy", 0.9, counts, sum(counts), False)
    assert found == pytest.approx(counting_deviation("balanced_accuracy", 0.9, (*counts, 0), sum(counts), False))


def test_of_several_labels_positives_and_negatives_count() -> None:
    rng, positives, total = np.random.default_rng(1), (30, 8), 100
    drawn = np.mean(
        [(rng.binomial(n, 0.9, DRAWS) / n + rng.binomial(total - n, 0.9, DRAWS) / (total - n)) / 2 for n in positives],
        axis=0,
    )
    found = counting_deviation("balanced_accuracy", 0.9, positives, total, True)
    assert found == pytest.approx(drawn.std(), rel=TOLERANCE)


def test_the_area_under_the_curve_of_two_classes_is_that_of_hanley_and_mcneil() -> None:
    """Exponential scores, for which their formula is exact; an area of 0.9 is a ratio of rates of 9."""
    rng, negatives, positives = np.random.default_rng(2), 80, 20
    truth = np.repeat([0, 1], [negatives, positives])
    drawn = [
        roc_auc_score(truth, np.concatenate([rng.exponential(1, negatives), rng.exponential(9, positives)]))
        for _ in range(1000)
    ]
    found = counting_deviation("auroc", 0.9, (negatives, positives), 100, False)
    assert found == pytest.approx(np.std(drawn), rel=0.08)  # 1,000 draws


def test_a_forecast_names_metric_and_smallest_class(tmp_path: Path) -> None:
    plain, balanced = (plan_of(f"metric={metric}") for metric in ("accuracy", "balanced_accuracy"))
    assert "balanced_accuracy near 0.9" in noise(balanced, tmp_path).assumption
    assert "have the smallest class" in noise(balanced, tmp_path).assumption
    assert "smallest class" not in noise(plain, tmp_path).assumption
    assert noise(balanced, tmp_path).high >= noise(plain, tmp_path).high
