"""The hierarchical bootstrap: against closed forms, by its coverage, and in a study that searched several times."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from lrstudy_reports import build
from lrstudy_reports.bootstrap import contributions, hierarchical_error, paired_over_searches
from prescribed import Training, run_study
from report_studies import SMALL, by_arm


def test_without_examples_the_error_is_that_of_the_means_of_searches():
    """The bootstrap's standard error has a relative error of 1.6% with 2,000 draws, so that 5% are three of them."""
    values = np.random.default_rng(0).normal(size=(5, 4))
    expected = values.mean(axis=1).std(ddof=1) / math.sqrt(5)
    assert hierarchical_error(values) == pytest.approx(expected, rel=0.05)
    assert hierarchical_error(values) == hierarchical_error(values), "it is always drawn alike"


def test_examples_that_all_trials_share_add_their_own_error():
    """Two searches with the same results by example: only the examples vary, as a mean of 50 of them does."""
    by_example = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], size=50, p=[0.1, 0.7, 0.2])
    values = np.broadcast_to(by_example, (3, 2, 50))
    assert hierarchical_error(values) == pytest.approx(by_example.std() / math.sqrt(50), rel=0.05)


def test_examples_are_drawn_within_their_classes():
    """Each class has one value: a part with the same classes has the same mean, however it is drawn."""
    classes = np.repeat([0, 1], [30, 5])
    values = np.broadcast_to(np.where(classes == 0, 1.0, -3.0), (3, 2, 35))
    assert hierarchical_error(values, classes) == pytest.approx(0.0, abs=1e-12)
    assert hierarchical_error(values) > 0.1


@pytest.mark.parametrize(
    ("searches", "of_search", "of_seed"), [(3, 1.0, 1.0), (3, 0.0, 1.0), (5, 0.5, 1.0), (5, 1.0, 0.2)]
)
def test_intervals_cover_95_percent_whatever_scatters(searches, of_search, of_seed):
    """Searches and seeds scatter by 0.01 times these. The tolerance is three standard errors of a share of 95%."""
    rng, studies = np.random.default_rng(4), 1500
    covered = 0
    for _ in range(studies):
        of_searches = of_search * rng.normal(size=(searches, 1))
        values = 0.01 * (of_searches + of_seed * rng.normal(size=(searches, 5)))
        found = paired_over_searches(values, None, 0.95).difference
        covered += found.low < 0 < found.high
    assert abs(covered / studies - 0.95) < 3 * math.sqrt(0.95 * 0.05 / studies)


def test_seeds_alone_would_promise_too_much():
    """Where searches scatter, an interval over seeds as if they were independent covers far less than 95%."""
    rng, covered = np.random.default_rng(5), 0
    for _ in range(500):
        values = 0.01 * (rng.normal(size=(3, 1)) + 0.3 * rng.normal(size=(3, 5)))
        interval = stats.ttest_1samp(values.ravel(), 0).confidence_interval()
        covered += interval.low < 0 < interval.high
    assert covered / 500 < 0.75


@pytest.mark.parametrize(
    ("metric", "reference"), [("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score)]
)
def test_contributions_of_examples_average_to_the_metric_of_scikit_learn(metric, reference):
    rng = np.random.default_rng(6)
    label, scores = rng.choice(3, size=40, p=[0.7, 0.2, 0.1]), rng.normal(size=(40, 3))
    found = contributions({"scores": scores, "label": label, "labels": None}, metric)
    assert found is not None
    assert found[0].mean() == pytest.approx(reference(label, scores.argmax(axis=1)))


def test_a_metric_that_is_no_mean_over_examples_has_no_contributions():
    predicted = {"scores": np.zeros((4, 2)), "label": np.zeros(4, dtype=int), "labels": None}
    assert contributions(predicted, "auroc") is None
    assert contributions({**predicted, "label": None, "labels": np.zeros((4, 2))}, "accuracy") is None


def searched_three_times(folder: Path, by_predictions: bool) -> Path:
    """Three searches, two seeds of what each has found; tested as the engine did, or as its predictions say."""
    study = run_study(
        folder, SMALL, "search.repeats=3", "search.cohort=0", "confirm.seeds=2", training=Training({"step": 0.01})
    )
    if by_predictions:
        trials = pd.read_parquet(study / "trials.parquet")
        rows = pq.read_table(study / "predictions.parquet").to_pandas()
        is_right = np.array(rows["scores"].tolist()).argmax(axis=1) == rows["label"]
        values = trials["trial_id"].map(is_right.groupby(rows["trial_id"]).mean())
        trials.assign(test_metric=values).to_parquet(study / "trials.parquet")
    return study


def by_search(folder: Path) -> pd.Series:
    """Of each search, the mean over seeds of step's difference to constant on the test part."""
    trials = pd.read_parquet(folder / "trials.parquet")
    values = trials[trials["phase"] == "confirm"].pivot(index=["repeat", "seed"], columns="arm", values="test_metric")
    return (values["step"] - values["constant"]).groupby(level=0).mean()


def test_several_searches_enter_the_interval(tmp_path: Path) -> None:
    folder = searched_three_times(tmp_path, by_predictions=False)
    means = by_search(folder)
    interval = stats.ttest_1samp(means, 0).confidence_interval()
    row = by_arm(folder)["step"]
    assert (row["seeds"], row["pairs"], row["difference"]) == (6, 3, pytest.approx(means.mean()))
    assert row["difference_high"] - row["difference_low"] == pytest.approx(interval.high - interval.low, rel=0.05)
    text = Path(build(folder)).read_text()
    assert "The intervals cover the spread over 3 searches and over seeds" in text
    assert "do not include the spread over searches" not in text


def test_test_examples_widen_it_where_predictions_give_the_metric(tmp_path: Path) -> None:
    folder = searched_three_times(tmp_path, by_predictions=True)
    means = by_search(folder)
    without = stats.ttest_1samp(means, 0).confidence_interval()
    row = by_arm(folder)["step"]
    assert row["difference"] == pytest.approx(means.mean())
    assert row["difference_high"] - row["difference_low"] > 1.05 * (without.high - without.low)
