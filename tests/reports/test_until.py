"""Training until a target in a report: how many reached it, epochs, cost and wall time, on tables that the engine wrote."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy import stats

from lrstudy_reports import build
from lrstudy_reports.statistics import median_of_censored, share_interval
from prescribed import Training, run_study
from report_studies import EFFECTS, SMALL, edit_table

TARGET = 0.893
OVERRIDES = ("budget.epochs=8", "arms.step.milestones=[6]", f"arms.constant.until={{accuracy: {TARGET}}}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = run_study(tmp_path_factory.mktemp("until"), SMALL, *OVERRIDES, training=Training(EFFECTS))
    build(folder)
    return folder


def table(folder):
    return pd.read_csv(folder / "report" / "tables" / "until.csv")


def confirmed(folder):
    trials = pd.read_parquet(folder / "trials.parquet")
    return trials[(trials["phase"] == "confirm") & (trials["arm"] == "constant")]


def test_only_arms_with_a_target_are_in_the_table_with_means_over_their_confirm_trials(folder):
    (row,) = table(folder).to_dict("records")
    trials, epochs = confirmed(folder), pd.read_parquet(folder / "epochs.parquet")
    assert (row["arm"], row["metric"], row["value"]) == ("constant", "accuracy", TARGET)
    assert (row["trials"], row["reached"], row["statistic"]) == (5, 5, "mean")
    numbers = epochs[epochs["val_metric"] >= TARGET].groupby("trial_id")["epoch"].min()[trials["trial_id"]] + 1
    assert list(trials["epochs"]) == list(numbers)
    assert 2 <= numbers.min() < numbers.max() < 8
    assert row["epochs"] == pytest.approx(numbers.mean())
    low, high = stats.t.interval(0.95, 4, numbers.mean(), stats.sem(numbers))
    assert (row["epochs_low"], row["epochs_high"]) == (pytest.approx(low), pytest.approx(high))
    assert row["wall_s"] == pytest.approx(trials["reached_s"].mean())
    arms = pd.read_parquet(folder / "arms.parquet").set_index("arm")
    assert row["device_s"] == pytest.approx(arms.loc["constant", "training_device_s"]), "it is what its training costs"


def test_the_page_has_the_table(folder):
    text = (folder / "report" / "report.md").read_text()
    assert "## Training until a target" in text
    assert "accuracy 0.893" in text
    assert "5 of 5 [0.48, 1.00]" in text.replace("\\[", "[").replace("\\]", "]")
    assert "end after the first epoch with a validation accuracy of 0.893 or more" in text


def censored(trials, number):
    """The same trials, as if the last `number` confirm trials of the arm had not reached the target."""
    mine = trials.index[(trials["phase"] == "confirm") & (trials["arm"] == "constant")][-number:]
    trials.loc[mine, ["reached_epoch", "reached_s", "reached_device_s"]] = None
    return trials


@pytest.mark.parametrize("number", [1, 3])
def test_with_censored_trials_there_is_a_median_without_an_interval_or_nothing(folder, tmp_path, number):
    changed = run_study(tmp_path, SMALL, *OVERRIDES, training=Training(EFFECTS))
    edit_table(changed / "trials.parquet", lambda trials: censored(trials, number))
    build(changed)
    (row,) = table(changed).to_dict("records")
    trials = confirmed(changed)
    assert (row["reached"], row["statistic"]) == (5 - number, "median")
    expected = (trials["reached_epoch"] + 1).fillna(math.inf).median()
    assert row["epochs"] == expected if number == 1 else math.isnan(row["epochs"])
    assert math.isnan(row["epochs_low"])
    assert math.isnan(row["device_s_high"])


def test_a_study_without_targets_has_no_such_section(small, tmp_path):
    from report_studies import copied

    folder = copied(small, tmp_path / "small")
    build(folder)
    assert len(table(folder)) == 0
    assert "Training until a target" not in (folder / "report" / "report.md").read_text()


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 5), (5, 5), (40, 100)])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(successes, trials):
    exact = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert share_interval(successes, trials) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_five_of_five_leave_a_share_down_to_the_fifth_root_of_a_fortieth():
    assert share_interval(5, 5) == (pytest.approx(0.025 ** (1 / 5)), 1.0)  # P(5 of 5 | share) = share^5 = 0.025
    assert all(map(math.isnan, share_interval(0, 0)))


@pytest.mark.parametrize(
    ("times", "median"),
    [
        ([3.0], 3.0),
        ([1.0, 4.0], 2.5),
        ([5.0, 1.0, math.inf], 5.0),
        ([1.0, 2.0, math.inf, math.inf], math.inf),  # half of them: the median lies beyond what was seen
        ([math.inf, math.inf], math.inf),
    ],
)
def test_the_median_counts_censored_times_as_longer_than_all_others(times, median):
    assert median_of_censored(times) == median
    assert math.isnan(median_of_censored([]))
