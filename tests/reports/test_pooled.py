"""Inference over workloads: formulas against scipy and by hand, tables and page of studies that the engine wrote."""

from __future__ import annotations

import itertools
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lrstudy_reports
from lrstudy.study_folder import of_workloads
from lrstudy_reports.statistics import holm, wilcoxon_p
from prescribed import Training, run_study
from report_studies import SMALL, edit_lock, edit_table

ARMS = "arms={constant: , step: {milestones: [2]}, cosine: }"
EFFECTS = {"a": 0.004, "b": 0.02, "c": 0.011}


# --- the signed-rank test -----------------------------------------------------------------------------


def test_six_gains_are_the_smallest_p_there_is():
    # W = 21 of 21: one of 2^6 sign patterns on either side, 2 / 64.
    assert wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == 2 / 64
    # The smallest one lost: W = 20, reached by two patterns (none, or rank 1 alone, is negative), 2 * 2 / 64.
    assert wilcoxon_p([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == 4 / 64


def test_fewer_than_six_differences_or_zeros_give_no_p():
    assert math.isnan(wilcoxon_p([1, 2, 3, 4, 5]))
    assert math.isnan(wilcoxon_p([1, 2, 3, 4, 5, 0]))
    assert wilcoxon_p([1, 2, 3, 4, 5, 6, 0, math.nan]) == 2 / 64


@pytest.mark.parametrize("number", [6, 9, 14, 40])
def test_without_ties_it_is_that_of_scipy(number):
    values = np.random.default_rng(number).normal(0.3, 1.0, number)
    assert wilcoxon_p(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue, rel=1e-10)


def test_with_ties_it_counts_all_sign_patterns():
    values = np.array([0.01, -0.01, 0.02, 0.02, 0.02, -0.03, 0.05])
    ranks = stats.rankdata(np.abs(values))
    observed = ranks[values > 0].sum()
    sums = np.array([ranks[np.array(signs)].sum() for signs in itertools.product([False, True], repeat=7)])
    expected = 2 * min((sums <= observed).mean(), (sums >= observed).mean())
    assert wilcoxon_p(values) == pytest.approx(min(1.0, expected), rel=1e-12)


def test_the_sign_of_all_differences_does_not_matter():
    values = np.random.default_rng(1).normal(0.3, 1.0, 8)
    assert wilcoxon_p(values) == pytest.approx(wilcoxon_p(-values))


# --- the report ----------------------------------------------------------------------------------------


def build(folder, effects, *overrides):
    """The report over workloads, each of which is a study that the engine ran, with its own effect of step."""
    of_workloads.write(folder, "text", "map", list(effects))
    for k, (name, effect) in enumerate(effects.items()):
        shutil.rmtree(
            folder / "memo", ignore_errors=True
        )  # the studies differ in their effects alone, which no name has
        study = run_study(
            folder, SMALL, f"name={name}", ARMS, *overrides, training=Training({"step": effect, "cosine": 0.001 * k})
        )
        edit_table(study / "trials.parquet", lambda trials, name=name: trials.assign(workload=name))
        lrstudy_reports.build(study)
    lrstudy_reports.build_workloads(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("pooled") / "map", EFFECTS)


def pooled(folder):
    return pd.read_parquet(folder / "pooled.parquet").set_index("arm")


def differences(folder, arm, names=tuple(EFFECTS)):
    """Per workload the mean over seeds of the paired differences, from the trials themselves."""
    found = []
    for name in names:
        trials = pd.read_parquet(folder / name / "trials.parquet")
        by_seed = trials[trials["phase"] == "confirm"].pivot(index="seed", columns="arm", values="test_metric")
        found.append((by_seed[arm] - by_seed["constant"]).mean())
    return np.array(found)


@pytest.mark.parametrize("arm", ["step", "cosine"])
def test_pooled_differences_are_those_of_the_trials_and_tested_over_workloads(folder, arm):
    row, values = pooled(folder).loc[arm], differences(folder, arm)
    assert row["workloads"] == 3
    assert row["difference"] == pytest.approx(values.mean())
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (row["difference_low"], row["difference_high"]) == (pytest.approx(low), pytest.approx(high))
    assert row["p"] == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert (row["wins"], row["losses"]) == ((values > 0).sum(), (values < 0).sum())
    assert math.isnan(row["p_wilcoxon"]), "three workloads are too few"


def test_p_values_are_corrected_for_all_arms(folder):
    rows = pooled(folder).drop("constant")
    assert list(rows["p_holm"]) == pytest.approx(list(holm(rows["p"])))
    assert pooled(folder).loc["constant", "verdict"] == "control"


def test_cost_ratios_are_pooled_as_geometric_means(folder):
    ratios = [
        pd.read_parquet(folder / name / "arms.parquet").set_index("arm").loc["step", "cost_ratio"] for name in EFFECTS
    ]
    assert pooled(folder).loc["step", "cost_ratio"] == pytest.approx(stats.gmean(ratios))


def test_the_tables_of_all_workloads_lie_below_each_other(folder):
    trials, arms = pd.read_parquet(folder / "trials.parquet"), pd.read_parquet(folder / "arms.parquet")
    alone = [pd.read_parquet(folder / name / "trials.parquet") for name in EFFECTS]
    assert len(trials) == sum(map(len, alone))
    assert list(dict.fromkeys(trials["workload"])) == list(EFFECTS)
    assert list(arms.groupby("workload", sort=False).size()) == [3, 3, 3]


def test_the_page_answers_links_and_warns_of_shared_data(folder):
    page, text = ((folder / "report" / name).read_text() for name in ("index.html", "report.md"))
    for name in EFFECTS:
        assert f'<a href="../{name}/report/index.html">{name}</a>' in page
        assert f"[{name}](../{name}/report/index.html)" in text
    assert "are not independent" in text.replace("\n", " "), "all three read the digits"
    assert "Wilcoxon's test needs 6 workloads: with 3 its smallest p is 0.25, above 0.05." in text
    assert lrstudy_reports.answer_of_workloads(folder).endswith(
        "Ahead of constant by mean: step on 3 of 3 and cosine on " + _wins(folder, "cosine") + "."
    )


def _wins(folder, arm):
    return f"{(differences(folder, arm) > 0).sum()} of 3"


def test_six_workloads_give_both_tests_and_a_verdict(tmp_path):
    effects = {f"w{k}": 0.01 + 0.004 * k for k in range(6)}
    found = build(tmp_path / "map", effects, "search.trials=1", "search.cohort=1", "confirm.seeds=3")
    row, values = pooled(found).loc["step"], differences(found, "step", tuple(effects))
    assert row["p_wilcoxon"] == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)
    assert row["p_wilcoxon_holm"] == pytest.approx(2 * row["p_wilcoxon"])
    assert row["verdict"] == "better"
    assert "step (by 0." in lrstudy_reports.answer_of_workloads(found)


def test_while_a_workload_is_missing_or_not_complete_there_is_no_verdict(folder, tmp_path):
    from report_studies import copied

    part = copied(folder, tmp_path / "map")
    edit_lock(part / "c", complete=False)
    lrstudy_reports.build_workloads(part)
    assert pooled(part)["verdict"].drop("constant").isna().all()
    assert pooled(part)["p_holm"].isna().all()
    assert lrstudy_reports.answer_of_workloads(part).startswith("No answer yet: 3 of 3 workloads have results")
    (part / "c" / "arms.parquet").unlink()
    lrstudy_reports.build_workloads(part)
    assert pooled(part).loc["step", "workloads"] == 2
    assert "running, 2 of 3 workloads" in (part / "report" / "report.md").read_text()


def test_a_folder_without_workloads_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no study with a map of workloads"):
        lrstudy_reports.build_workloads(tmp_path)


def test_one_arm_alone_is_compared_with_nothing(tmp_path):
    folder = build(tmp_path / "map", {"a": 0.0, "b": 0.0, "c": 0.0}, "arms=[constant]")
    said = lrstudy_reports.answer_of_workloads(folder)
    assert said.endswith("by mean; there is no other arm to compare it with.")
