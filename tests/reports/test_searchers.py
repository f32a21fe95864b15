"""Searchers side by side: from one search per arm nothing follows; over several they are compared, paired by search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lrstudy_reports
from lrstudy_reports.tables import load
from lrstudy_reports.tuning import all_configurations, best_after, best_configurations, searcher_table
from prescribed import Training, run_study
from report_studies import EFFECTS, SMALL

REPEATED = ("search={method: [random, optuna], trials: 6, cohort: 2, repeats: 3}", "confirm={seeds: 2}")


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two arms with two searchers and three searches each, and its report."""
    folder = run_study(tmp_path_factory.mktemp("engine"), SMALL, *REPEATED, training=Training(EFFECTS))
    lrstudy_reports.build(folder)
    return folder


def best_of(folder: Path, arm: str, searcher: str) -> list[float]:
    """The best final validation value of each search, from the table of trials alone."""
    trials = pd.read_parquet(folder / "trials.parquet")
    mine = trials[(trials["arm"] == arm) & (trials["searcher"] == searcher) & (trials["phase"] != "confirm")]
    return mine.groupby("repeat")["final_val_metric"].max().tolist()


def test_every_search_has_its_trials_and_shares_the_cohort(repeated: Path) -> None:
    trials = pd.read_parquet(repeated / "trials.parquet")
    tuned = trials[trials["phase"] != "confirm"]
    assert set(tuned.groupby(["arm", "searcher", "repeat"]).size()) == {6}
    cohort = tuned[(tuned["phase"] == "cohort") & (tuned["repeat"] > 0)]
    assert (cohort["recalled_epochs"] == cohort["epochs"]).all()
    assert tuned.groupby("phase")["proposed_by"].unique().map(set).to_dict() == {
        "cohort": {"default", "cohort"},
        "tune": {"random", "model"},
    }
    assert json.loads((repeated / "study.lock.json").read_text())["search_repeats"] == 3


def test_searchers_are_compared_over_searches_by_a_paired_interval(repeated: Path) -> None:
    study = load(repeated)
    table = searcher_table(study, all_configurations(study)).set_index(["searcher", "arm"])
    for arm in ("constant", "step"):
        random, optuna = best_of(repeated, arm, "random"), best_of(repeated, arm, "optuna")
        row = table.loc[("optuna", arm)]
        assert row[["configurations", "searches", "pairs"]].tolist() == [18, 3, 3]
        assert row["mean_best"] == pytest.approx(np.mean(optuna))
        assert row["best"] == max(optuna)
        gaps = np.subtract(optuna, random)
        assert row["difference"] == pytest.approx(gaps.mean())
        low, high = stats.t.interval(0.95, 2, gaps.mean(), stats.sem(gaps)) if np.ptp(gaps) else (np.nan, np.nan)
        assert row["difference_low"] == pytest.approx(low, nan_ok=True)
        assert row["difference_high"] == pytest.approx(high, nan_ok=True)
        assert np.isnan(table.loc[("random", arm), "difference"])
    assert table["difference_low"].notna().any(), "the searches must differ somewhere"


def on_searchers(folder: Path) -> str:
    """What the page says of tuning and searchers."""
    text = (folder / "report" / "report.md").read_text()
    section = text[text.index("Tuning and searchers") :]
    return section[: section.index("\n## ")]


def test_the_page_shows_the_differences_and_names_nobody_better(repeated: Path) -> None:
    section = on_searchers(repeated)
    assert "mean over 3 searches" in section
    assert "optuna − random" in section
    assert "95% t intervals over 3 searches" in section
    assert "Better" not in section


def test_one_search_each_is_described_and_nobody_is_named_better(reported: Path) -> None:
    section = on_searchers(reported)
    assert "one search each" in section
    assert "this table describes, it does not test" in section
    assert "Better" not in section
    assert "−" not in section.splitlines()[2]
    table = pd.read_csv(reported / "report" / "tables" / "searchers.csv")
    assert table["difference_low"].isna().all()
    assert set(table["searches"]) == {1}


def test_arms_are_compared_by_what_all_their_searches_found_and_shown_by_the_first(repeated: Path) -> None:
    study = load(repeated)
    assert study.confirming["trial_id"].tolist() == [
        f"{arm}-{name}-1-{seed}"
        for arm in ("constant", "step")
        for name in ("confirm", "confirm.1", "confirm.2")
        for seed in (1000, 1001)
    ]
    trials = pd.read_parquet(repeated / "trials.parquet")
    first = trials[(trials["searcher"] == "random") & (trials["repeat"] == 0) & (trials["phase"] != "confirm")]
    for arm, (_, value) in best_configurations(study).items():
        assert value == first.loc[first["arm"] == arm, "final_val_metric"].max()
    assert study.lock.planned_trials == len(trials) == 2 * 3 * (2 * 6 + 2)


def test_the_best_after_so_many_trials_is_that_of_one_search(repeated: Path) -> None:
    study = load(repeated)
    after = best_after(study, all_configurations(study)).set_index(["searcher", "arm", "trials"])["expected_best"]
    assert after.index.get_level_values("trials").max() == 6
    assert after["optuna", "step", 6] == pytest.approx(np.mean(best_of(repeated, "step", "optuna")))


def test_tables_of_a_version_without_repeats_are_read_as_one_search(study: Path, tmp_path: Path) -> None:
    """They have neither column, and their lock has no key."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    trials = pd.read_parquet(study / "trials.parquet").drop(columns=["repeat", "proposed_by"])
    trials.to_parquet(folder / "trials.parquet")
    lock = json.loads((study / "study.lock.json").read_text())
    del lock["search_repeats"]
    (folder / "study.lock.json").write_text(json.dumps(lock))
    now, earlier = load(study), load(folder)
    pd.testing.assert_frame_equal(
        searcher_table(now, all_configurations(now)), searcher_table(earlier, all_configurations(earlier))
    )
    assert len(earlier.confirming) == len(now.confirming) == 5 * 5
