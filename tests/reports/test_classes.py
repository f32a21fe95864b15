"""Classes, further metrics and caveats in a report: against scikit-learn, and as a reader sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lrstudy.study_folder import schemas
from lrstudy_reports import build
from lrstudy_reports.classes import UNDEFINED, auroc_by_class, by_class
from lrstudy_reports.tables import load

NAMES = ["ant", "bee", "cat"]
STATISTICS = {
    "train": {"examples": 60, "counts": [40, 15, 5]},
    "validation": {"examples": 20, "counts": [12, 8, 0]},
    "test": {"examples": 30, "counts": [20, 10, 0]},
}


@tried(deadline=None, max_examples=50)
@given(n=st.integers(2, 40), seed=st.integers(0, 10_000))
def test_the_area_of_each_class_is_scikit_learns(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (n, 3)).astype(np.float64)  # few values, so that there are ties
    positive = rng.random((n, 3)) < (0.0, 0.5, 0.9)
    found = auroc_by_class(scores, positive)
    for k in range(3):
        if 0 < positive[:, k].sum() < n:
            assert found[k] == pytest.approx(roc_auc_score(positive[:, k], scores[:, k]), abs=1e-12)
        else:
            assert np.isnan(found[k])


def with_classes(folder: Path, several: bool, edit_lock: Callable[[dict], None] = lambda lock: None) -> pd.DataFrame:
    """Give a made study classes and predictions of all its confirm trials; returns what was predicted."""
    lock = json.loads((folder / "study.lock.json").read_text())
    lock["data"] |= {"classes": NAMES, "train": 60, "validation": 20, "test": 30, "statistics": STATISTICS}
    edit_lock(lock)
    (folder / "study.lock.json").write_text(json.dumps(lock))
    trials = pq.read_table(folder / "trials.parquet").to_pandas()
    confirm = trials[trials["phase"] == "confirm"]
    rng = np.random.default_rng(0)
    label = np.array([0] * 20 + [1] * 10)
    rows = [
        {
            "trial_id": trial, "arm": arm, "example": k, "group": "", "label": None if several else int(label[k]),
            "labels": [int(label[k] == c) for c in range(3)] if several else None,
            "scores": (rng.normal(size=3) + (label[k] == np.arange(3))).tolist(),
        }
        for trial, arm in zip(confirm["trial_id"], confirm["arm"], strict=True) for k in range(30)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schemas.PREDICTIONS), folder / "predictions.parquet")
    return pd.DataFrame(rows)


@pytest.mark.parametrize("several", [False, True])
def test_classes_are_ranked_by_the_mean_over_seeds_and_one_without_positives_is_undefined(make, several: bool) -> None:
    folder = make(small=True)
    rows = with_classes(folder, several)
    found = by_class(load(folder))
    assert list(found.index) == NAMES
    for arm in ("constant", "step"):
        values = []
        for _, mine in rows[rows["arm"] == arm].groupby("trial_id"):
            scores = np.array(mine["scores"].tolist())
            if not several:
                scores = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
            values.append(roc_auc_score([1] * 20 + [0] * 10, scores[:, 0]))
        assert found.loc["ant", arm] == pytest.approx(np.mean(values), abs=1e-6)  # scores are float32
        assert np.isnan(found.loc["cat", arm])


def test_the_page_shows_counts_areas_and_what_is_undefined(make) -> None:
    folder = make(small=True)
    with_classes(folder, several=True)
    text = build(folder).with_name("report.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| cat"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["cat", "5", "0", "0", UNDEFINED, UNDEFINED]
    assert "no example of that part has the class, or all have" in text
    assert (folder / "report" / "tables" / "classes.csv").read_text().startswith("class,constant,step\n")


def test_two_classes_are_counted_and_not_ranked_twice(make) -> None:
    folder = make(small=True)

    def two(lock: dict) -> None:
        lock["data"]["classes"] = NAMES[:2]
        for part in lock["data"]["statistics"].values():
            part["counts"] = part["counts"][:2]

    with_classes(folder, several=True, edit_lock=two)
    text = build(folder).with_name("report.md").read_text()
    assert "| bee | 15 | 8 | 10 |" in text
    assert "AUROC" not in text


def test_further_metrics_have_intervals_and_no_say(make) -> None:
    folder = make(small=True, lock={"report_metrics": ["f1", "accuracy", "auroc"]})
    table = pq.read_table(folder / "trials.parquet")
    is_confirm = [phase == "confirm" for phase in table["phase"].to_pylist()]
    values = [0.5 + 0.01 * k if confirm else None for k, confirm in enumerate(is_confirm)]
    table = table.append_column("test_f1", pa.array(values, pa.float64()))
    table = table.append_column("test_auroc", pa.nulls(len(table), pa.float64()))
    pq.write_table(table, folder / "trials.parquet")
    text = build(folder).with_name("report.md").read_text()
    heading = next(line for line in text.splitlines() if line.startswith("| Arm | Test f1"))
    assert heading == "| Arm | Test f1 | Test auroc |", "accuracy is what the verdicts are about"
    mine = [
        value
        for value, arm, confirm in zip(values, table["arm"].to_pylist(), is_confirm, strict=True)
        if confirm and arm == "step"
    ]
    row = next(line for line in text.splitlines() if line.startswith("| step |") and UNDEFINED in line)
    assert f"{np.mean(mine):.3f}" in row


def test_caveats_stand_below_the_verdicts_once_for_all_arms_that_they_concern(make) -> None:
    caveat = "UNVERIFIED: no published definition."
    folder = make(small=True)
    lock = json.loads((folder / "study.lock.json").read_text())
    for arm in lock["arms"].values():
        arm["caveats"] = [caveat]
    (folder / "study.lock.json").write_text(json.dumps(lock))
    page = build(folder)
    assert page.read_text().count(caveat) == 1
    text = page.with_name("report.md").read_text()
    assert text.index("## Verdicts") < text.index(f"constant and step: {caveat}") < text.index("## Along the way")
