"""Tables of what was predicted: recomputed from predictions.parquet, and as a reader of the page sees them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn import metrics

from lrstudy_reports import build
from lrstudy_reports.classes import UNDEFINED
from lrstudy_reports.confusion_figure import MOST_CLASSES, most_panels
from lrstudy_reports.predicted import predicted
from lrstudy_reports.statistics import mean_interval
from lrstudy_reports.tables import load
from report_studies import NAMES, edit_lock, edit_table, with_classes


def of_trials(folder: Path, arm: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth and scores of an arm's confirm trials."""
    rows = pd.read_parquet(folder / "predictions.parquet")
    truth = "label" if rows["labels"].isna().all() else "labels"
    return [
        (np.array(mine[truth].tolist()), np.array(mine["scores"].tolist()))
        for _, mine in rows[rows["arm"] == arm].groupby("trial_id")
    ]


def page(folder: Path) -> tuple[str, str]:
    """The report as HTML and as Markdown."""
    index = build(folder)
    return index.read_text(), index.with_name("report.md").read_text()


def cells(text: str, start: str, after: str = "") -> list[str]:
    """The cells of the first table row that begins with `start`, behind the first line with `after`."""
    lines = text[text.index(after) :].splitlines()
    return [cell.strip() for cell in next(line for line in lines if line.startswith(f"| {start} |")).split("|")[1:-1]]


@pytest.mark.parametrize("several", [False, True])
def test_ratios_by_class_are_means_over_seeds_with_their_intervals(tmp_path: Path, several: bool) -> None:
    folder = with_classes(tmp_path, several)
    build(folder)
    found = pq.read_table(folder / "class_metrics.parquet").to_pandas().set_index(["arm", "class"])
    assert len(found) == 2 * len(NAMES)
    trials = of_trials(folder, "step")
    assert len(trials) == 3
    by_trial = [
        metrics.precision_recall_fscore_support(
            truth, scores > 0 if several else scores.argmax(1), labels=range(3), zero_division=np.nan
        )
        for truth, scores in trials
    ]
    for k, name in enumerate(NAMES):
        row = found.loc["step", name]
        assert (row["trials"], row["support"]) == (3, by_trial[0][3][k])
        for at, ratio in enumerate(("precision", "recall", "f1")):
            expected = mean_interval([of_trial[at][k] for of_trial in by_trial], bounded=True)
            values = [row[ratio], row[f"{ratio}_low"], row[f"{ratio}_high"]]
            np.testing.assert_allclose(values, [expected.mean, expected.low, expected.high], atol=1e-12)
        assert row["tp"] + row["fn"] == 3 * row["support"]
        assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == 3 * 30
    csv = pd.read_csv(folder / "report" / "tables" / "class_metrics.csv")
    np.testing.assert_allclose(csv["f1"], found["f1"], rtol=1e-9)


def test_the_confusion_matrix_is_the_sum_over_seeds(tmp_path: Path) -> None:
    folder = with_classes(tmp_path, several=False)
    html, text = page(folder)
    table = pq.read_table(folder / "confusion.parquet").to_pandas()
    expected = sum(metrics.confusion_matrix(y, s.argmax(1), labels=[0, 1, 2]) for y, s in of_trials(folder, "step"))
    mine = table[table["arm"] == "step"].pivot(index="true", columns="predicted", values="count")
    np.testing.assert_array_equal(mine.reindex(index=NAMES, columns=NAMES).fillna(0), expected)
    shares = table[table["arm"] == "step"].groupby("true")["fraction"].sum()
    assert shares.to_dict() == pytest.approx({"ant": 1.0, "bee": 1.0})
    row = cells(text, "bee", "step: confusion matrix")
    assert [int(cell.split()[0]) for cell in row[1:]] == expected[1].tolist()
    assert "Counts are sums over 3 confirm trials per arm" in text
    assert html.count("<details>") == html.count("</details>") == 2 + 2, "precision and recall, and a matrix per arm"
    assert (folder / "report" / "figures" / "confusion.svg").read_text().count(">ant (20)<") == 1


def test_of_several_labels_each_is_found_or_missed(tmp_path: Path) -> None:
    folder = with_classes(tmp_path, several=True)
    _, text = page(folder)
    table = pq.read_table(folder / "confusion.parquet").to_pandas()
    truth, said = (np.concatenate(side) for side in zip(*of_trials(folder, "constant"), strict=True))
    tables = metrics.multilabel_confusion_matrix(truth, said > 0)
    for k, name in enumerate(NAMES):
        mine = table[(table["arm"] == "constant") & (table["class"] == name)]
        count = mine.set_index(["true", "predicted"])["count"].to_dict()
        for key, expected in zip(
            [("no", "no"), ("no", "yes"), ("yes", "no"), ("yes", "yes")], tables[k].ravel(), strict=True
        ):
            assert count.get(key, 0) == expected
    found = [int(cell.split()[0]) for cell in cells(text, "ant", "constant: confusion by label")[1:]]
    assert found == [tables[0][1, 1], tables[0][1, 0], tables[0][0, 1], tables[0][0, 0]]
    assert cells(text, "cat", "Sensitivity (recall) by class")[2:] == [UNDEFINED, UNDEFINED]


def test_exact_matches_count_the_wrong_labels_of_each_example(tmp_path: Path) -> None:
    folder = with_classes(tmp_path, several=True)
    _, text = page(folder)
    table = pq.read_table(folder / "exact_match.parquet").to_pandas()
    wrong = [((scores > 0) != truth).sum(1) for truth, scores in of_trials(folder, "step")]
    mine = table[table["arm"] == "step"].set_index("wrong")
    for k in range(4):
        expected = mean_interval([float((of_trial == k).mean()) for of_trial in wrong], bounded=True)
        assert mine.loc[k, "count"] == sum((of_trial == k).sum() for of_trial in wrong)
        assert mine.loc[k, "fraction"] == pytest.approx(expected.mean, abs=1e-12)
        np.testing.assert_allclose(mine.loc[k, "fraction_low"], expected.low, atol=1e-12)
    assert mine["fraction"].sum() == pytest.approx(1.0)
    assert "| Arm | All right | 1 wrong | 2 wrong | All wrong |" in text
    assert with_one_label_there_is_none(tmp_path / "other")


def with_one_label_there_is_none(folder: Path) -> bool:
    folder.mkdir()
    made = with_classes(folder, several=False)
    return "All right" not in page(made)[1] and pq.read_table(made / "exact_match.parquet").num_rows == 0


def test_of_two_classes_the_second_is_positive_and_named(tmp_path: Path) -> None:
    folder = with_classes(tmp_path, several=False, names=NAMES[:2])
    _, text = page(folder)
    trials = of_trials(folder, "step")
    sensitivity = np.mean([metrics.recall_score(y, s.argmax(1)) for y, s in trials])
    specificity = np.mean([metrics.recall_score(y, s.argmax(1), pos_label=0) for y, s in trials])
    predictive = np.mean([metrics.precision_score(y, s.argmax(1), pos_label=0) for y, s in trials])
    row = cells(text, "step", "positive being bee and negative ant")
    shown = [float(cell.split()[0]) for cell in row[1:]]
    np.testing.assert_allclose([shown[0], shown[1], shown[3]], [sensitivity, specificity, predictive], atol=0.006)
    assert "F1 by class" not in text


def test_a_class_that_a_trial_never_predicts_has_no_precision_there(tmp_path: Path) -> None:
    folder = with_classes(tmp_path, several=False)

    def silence(rows: pd.DataFrame) -> pd.DataFrame:
        silent = rows["trial_id"] == "step-confirm-1-1000"
        scores = [
            [a, -9.0, c] if is_silent else [a, b, c]
            for is_silent, (a, b, c) in zip(silent, rows["scores"], strict=True)
        ]
        return rows.assign(scores=scores)

    edit_table(folder / "predictions.parquet", silence)
    _, text = page(folder)
    row = predicted(load(folder)).class_metrics().set_index(["arm", "class"]).loc["step", "bee"]
    assert (row["trials"], row["predicted_by"]) == (3, 2)
    others = [
        metrics.precision_score(y, s.argmax(1), labels=[1], average="macro") for y, s in of_trials(folder, "step")[1:]
    ]
    assert row["precision"] == pytest.approx(np.mean(others))
    assert any("in 2 of 3 seeds" in cell for cell in cells(text, "bee", "Precision by class"))


def test_of_many_classes_the_most_frequent_confusions_are_told_instead_of_a_matrix(tmp_path: Path) -> None:
    folder = with_classes(tmp_path, several=False)
    names = [*NAMES, *(f"none {k:02d}" for k in range(MOST_CLASSES))]
    edit_lock(folder, data={**json.loads((folder / "study.lock.json").read_text())["data"], "classes": names})
    wide = lambda rows: rows.assign(scores=[[*scores, *[-9.0] * MOST_CLASSES] for scores in rows["scores"]])  # noqa: E731
    edit_table(folder / "predictions.parquet", wide)
    _, text = page(folder)
    assert not (folder / "report" / "figures" / "confusion.svg").exists()
    assert "confusion matrix" not in text
    expected = sum(metrics.confusion_matrix(y, s.argmax(1), labels=range(3)) for y, s in of_trials(folder, "step"))
    row = cells(text, "ant as bee", "Most frequent confusions")
    assert f"{expected[0, 1] / expected[0].sum():.1%}" in row
    assert "tables/confusion.csv has all classes and arms." in text


def test_as_many_arms_are_drawn_as_can_be_read() -> None:
    assert (most_panels(2), most_panels(14), most_panels(20), most_panels(50)) == (12, 6, 3, 2)
