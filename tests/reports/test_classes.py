"""Classes, further metrics and caveats in a report: against scikit-learn, and as a reader sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from lrstudy_reports import build
from lrstudy_reports.classes import UNDEFINED
from lrstudy_reports.predicted import predicted
from lrstudy_reports.tables import load
from prescribed import Training, run_study
from report_studies import NAMES, SMALL, with_classes


@pytest.mark.parametrize("several", [False, True])
def test_classes_are_ranked_by_the_mean_over_seeds_and_one_without_positives_is_undefined(
    tmp_path: Path, several: bool
) -> None:
    folder = with_classes(tmp_path, several)
    rows = pd.read_parquet(folder / "predictions.parquet")
    found = predicted(load(folder)).areas()
    assert list(found.index) == NAMES
    for arm in ("constant", "step"):
        values = []
        for _, mine in rows[rows["arm"] == arm].groupby("trial_id"):
            scores = np.array(mine["scores"].tolist(), dtype=np.float64)
            truth = np.array(mine["labels"].tolist())[:, 0] if several else mine["label"] == 0
            if not several:
                scores = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
            values.append(roc_auc_score(truth, scores[:, 0]))
        assert len(values) == 3
        assert found.loc["ant", arm] == pytest.approx(np.mean(values), abs=1e-6)  # scores are float32
        assert np.isnan(found.loc["cat", arm])


def test_the_page_shows_counts_areas_and_what_is_undefined(tmp_path: Path) -> None:
    folder = with_classes(tmp_path, several=True)
    text = build(folder).with_name("report.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| cat"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["cat", "5", "0", "0", UNDEFINED, UNDEFINED]
    assert "no example of that part has the class, or all have" in text
    assert (folder / "report" / "tables" / "classes.csv").read_text().startswith("class,constant,step\n")


def test_two_classes_are_counted_and_not_ranked_twice(tmp_path: Path) -> None:
    text = build(with_classes(tmp_path, several=False, names=NAMES[:2])).with_name("report.md").read_text()
    assert "| bee | 15 | 8 | 10 |" in text
    assert "AUROC against the rest" not in text
    assert "they have one AUROC, and with auroc among the report metrics it is shown." in text


def test_two_labels_that_an_example_may_both_have_are_ranked_each(tmp_path: Path) -> None:
    folder = with_classes(tmp_path, several=True, names=NAMES[:2])
    text = build(folder).with_name("report.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| bee |"))
    expected = predicted(load(folder)).areas().loc["bee"]
    assert row.startswith("| bee | 15 | 8 | 10 | ")
    assert sorted(row.strip("| ").split(" | ")[4:]) == sorted(f"{area:.3f}" for area in expected)
    assert "they have one AUROC" not in text


def test_further_metrics_have_intervals_and_no_say(tmp_path: Path) -> None:
    training = Training(undefined=("auroc",))
    folder = run_study(tmp_path, SMALL, "report_metrics=[f1, accuracy, auroc]", training=training)
    text = build(folder).with_name("report.md").read_text()
    heading = next(line for line in text.splitlines() if line.startswith("| Arm | Test f1"))
    assert heading == "| Arm | Test f1 | Test auroc |", "accuracy is what the verdicts are about"
    trials = pq.read_table(folder / "trials.parquet").to_pandas()
    mine = trials[(trials["phase"] == "confirm") & (trials["arm"] == "step")]
    assert (mine["test_f1"] < mine["test_metric"]).all()
    row = next(line for line in text.splitlines() if line.startswith("| step |") and UNDEFINED in line)
    assert f"{mine['test_f1'].mean():.3f}" in row


def test_caveats_stand_below_the_verdicts_once_for_all_arms_that_they_concern(tmp_path: Path) -> None:
    modified = "{policy: clr, mode: modified_triangular2}"
    folder = run_study(tmp_path, SMALL, f"arms={{constant: , one: {modified}, other: {modified}}}")
    page = build(folder)
    caveat = "UNVERIFIED: no published definition"
    assert page.read_text().count(caveat) == 1
    text = page.with_name("report.md").read_text()
    assert text.index("## Verdicts") < text.index(f"one and other: {caveat}") < text.index("## Along the way")
