"""What a report says of BatchNorm's statistics, on tables that the engine wrote."""

from __future__ import annotations

import pandas as pd
import pytest

from lrstudy_reports import build
from prescribed import Training, run_study
from report_studies import SMALL, edit_lock


def page(folder):
    build(folder)
    return (folder / "report" / "report.md").read_text()


def test_both_values_of_an_arm_are_shown_where_they_differ_by_more_than_the_interval(tmp_path):
    folder = run_study(tmp_path, SMALL, training=Training(precise={"step": 0.018}))
    trials = pd.read_parquet(folder / "trials.parquet")
    means = trials[trials["phase"] == "confirm"].groupby("arm")[["test_metric_running", "test_metric_precise"]].mean()
    assert (trials["test_metric_running"].dropna() == trials["test_metric"].dropna()).all()
    assert means.loc["step"].diff().iloc[1] == pytest.approx(0.018)
    text = page(folder)
    running, precise = means.loc["step"]
    assert (
        f"with statistics recomputed over the training part: step {running:.3f} and {precise:.3f}. The two differ"
        in text
    )
    assert "constant {:.3f} and".format(means.loc["constant"].iloc[0]) not in text


def test_where_none_differs_it_says_so_and_without_batchnorm_nothing(tmp_path):
    alike = run_study(tmp_path / "alike", SMALL, training=Training(precise={"step": 0.0005}))
    told = "BatchNorm: no arm's test accuracy with statistics recomputed over the training part differs by more than its interval."
    assert told in page(alike)
    without = run_study(tmp_path / "without", SMALL, training=Training())
    assert pd.read_parquet(without / "trials.parquet")["test_metric_precise"].isna().all()
    assert "BatchNorm" not in page(without)


def test_a_study_with_precise_statistics_shows_the_running_ones_beside_them(tmp_path):
    folder = run_study(tmp_path, SMALL, training=Training(precise={"step": 0.018}))
    trials = pd.read_parquet(folder / "trials.parquet")
    trials = trials.assign(test_metric=trials["test_metric_precise"])  # the tables of such a study differ in this alone
    trials.to_parquet(folder / "trials.parquet")
    edit_lock(folder, numerics={"batchnorm": "precise"})
    assert "by which arms are compared here, and with the running statistics of training: step 0.9" in page(folder)


def test_running_statistics_that_scatter_do_not_hide_in_the_width_of_their_interval(tmp_path):
    """The quickstart: batch_increase at 0.930 [0.903, 0.957] by running statistics was 0.948 [0.936, 0.960] by recomputed ones."""
    shifts = [0.0178, 0.0178, 0.0479, 0.0, 0.0089]
    folder = run_study(tmp_path, SMALL, training=Training(precise={"step": 0.0}))
    trials = pd.read_parquet(folder / "trials.parquet")
    mine = (trials["phase"] == "confirm") & (trials["arm"] == "step")
    trials.loc[mine, "test_metric_precise"] = [0.960, 0.947, 0.938, 0.950, 0.946]
    trials.loc[mine, "test_metric_running"] = trials.loc[mine, "test_metric_precise"] - shifts
    trials.to_parquet(folder / "trials.parquet")
    assert "step 0.930 and 0.948" in page(folder)


@pytest.mark.parametrize(
    ("shift", "seeds", "is_shown"),
    [(0.0, 3, False), (0.0004, 3, False), (0.02, 3, True), (0.0, 2, False), (0.002, 2, True)],
)
def test_equal_values_have_no_interval_and_the_other_one_decides(tmp_path, shift, seeds, is_shown):
    """Seeds with the same 0.951 were said to differ from 0.954 by more than an interval. Two seeds give none at all."""
    folder = run_study(tmp_path, SMALL, f"confirm.seeds={seeds}", training=Training(precise={"step": 0.0}))
    trials = pd.read_parquet(folder / "trials.parquet")
    mine = (trials["phase"] == "confirm") & (trials["arm"] == "step")
    trials.loc[mine, "test_metric_running"] = 0.951
    trials.loc[mine, "test_metric_precise"] = [0.9508 + shift, 0.9512 + shift, 0.951 + shift][:seeds]
    trials.to_parquet(folder / "trials.parquet")
    assert ("BatchNorm decides" in page(folder)) == is_shown
