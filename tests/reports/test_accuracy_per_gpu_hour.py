"""accuracy_per_gpu_hour.parquet: its numbers computed once more from the engine's tables, and tables of studies joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from lrstudy_reports import build
from lrstudy_reports.accuracy_per_gpu_hour import on_frontier
from lrstudy_reports.schemas import ACCURACY, CURVES
from prescribed import EPOCH_S, EVALUATION_S, UPDATE_S
from report_studies import copied


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "accuracy_per_gpu_hour.parquet")


@pytest.fixture(scope="module")
def priced(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of five arms with a price, and its report."""
    from report_studies import FULL, relock

    folder = copied(study, tmp_path_factory.mktemp("priced") / "digits")
    relock(folder, FULL, "price.cpu_core_hour=2", "price.currency=EUR")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def hours(priced: Path) -> pd.DataFrame:
    """Core-hours of each trial, alone, with its arm, phase and searcher."""
    trials, epochs = (pd.read_parquet(priced / f"{name}.parquet") for name in ("trials", "epochs"))
    seconds = epochs["updates"] * epochs["batch_size"].map(UPDATE_S) + EPOCH_S + EVALUATION_S
    cost = (seconds / 3600).groupby(epochs["trial_id"]).sum().rename("hours").reset_index()
    return trials.merge(cost, on="trial_id")


def test_there_is_a_row_for_each_arm_and_each_confirm_trial(priced, hours):
    table = table_of(priced)
    assert table["row"].tolist() == ["arm"] * 5 + ["trial"] * 25
    confirm = hours[hours["phase"] == "confirm"]
    assert set(table["trial_id"].dropna()) == set(confirm["trial_id"])
    assert table.columns.tolist() == ACCURACY.names
    assert (table["study"] == "digits").all()
    assert (table["data"] == "digits").all()
    assert (table["model"] == "small_cnn").all()
    assert table["device_kind"].unique().tolist() == ["cpu: a test's"]
    assert table["unit"].unique().tolist() == ["CPU-core-hours"]
    assert (table["searcher"] == "random").all()
    assert table["cost_source"].unique().tolist() == ["alone"]


def test_hours_values_and_quotients_of_arms_are_those_of_their_trials(priced, hours):
    table, arms = table_of(priced), pd.read_parquet(priced / "arms.parquet").set_index("arm")
    for row in table[table["row"] == "arm"].to_dict("records"):
        mine = hours[hours["arm"] == row["arm"]]
        confirm = mine[mine["phase"] == "confirm"]
        search = mine[(mine["phase"] != "confirm") & (mine["searcher"] == "random")]
        assert row["cpu_core_hours"] == pytest.approx(confirm["hours"].mean())
        assert row["cpu_core_hours_with_tuning"] == pytest.approx(confirm["hours"].mean() + search["hours"].sum())
        assert row["test_value"] == pytest.approx(confirm["test_metric"].mean())
        judged = arms.loc[row["arm"]]
        assert (row["test_low"], row["test_high"]) == (judged["test_low"], judged["test_high"])
        assert row["test_low"] < row["test_value"] < row["test_high"]
        assert row["accuracy_per_cpu_core_hour"] == pytest.approx(
            confirm["test_metric"].mean() / confirm["hours"].mean()
        )
        assert row["money"] == pytest.approx(2 * confirm["hours"].mean())
        assert row["money_with_tuning"] == pytest.approx(2 * row["cpu_core_hours_with_tuning"])
        assert row["currency"] == "EUR"
        assert row["epochs"] == 6
        assert row["examples"] == 6 * 640
        assert row["updates"] == confirm["updates"].mean()


def test_trials_have_their_own_value_and_cost_and_their_arms_tuning(priced, hours):
    table, known = table_of(priced), hours.set_index("trial_id")
    arms = table[table["row"] == "arm"].set_index("arm")
    for row in table[table["row"] == "trial"].to_dict("records"):
        trial = known.loc[row["trial_id"]]
        assert row["cpu_core_hours"] == pytest.approx(trial["hours"])
        assert row["test_value"] == pytest.approx(trial["test_metric"])
        assert row["accuracy_per_cpu_core_hour"] == pytest.approx(trial["test_metric"] / trial["hours"])
        assert (row["seed"], row["arm"], row["updates"]) == (trial["seed"], trial["arm"], trial["updates"])
        tuning = arms.loc[row["arm"], "cpu_core_hours_with_tuning"] - arms.loc[row["arm"], "cpu_core_hours"]
        assert row["cpu_core_hours_with_tuning"] - row["cpu_core_hours"] == pytest.approx(tuning)
        assert row["on_frontier"] is None


def test_the_frontier_is_what_nobody_beats_in_value_and_cost(priced):
    arms = table_of(priced)
    arms = arms[arms["row"] == "arm"]
    for row in arms.to_dict("records"):
        as_good = arms[(arms["test_value"] >= row["test_value"]) & (arms["cpu_core_hours"] <= row["cpu_core_hours"])]
        beaten = (as_good["test_value"] > row["test_value"]) | (as_good["cpu_core_hours"] < row["cpu_core_hours"])
        assert row["on_frontier"] == (not beaten.any())
    found = arms.set_index("arm")["on_frontier"]
    assert found["sgdr_dlr"], "the best value"
    assert found["batch_increase"], "the cheapest"
    assert not found.all()


def test_the_frontier_by_hand():
    def arm(name, value, cost, diverged=0, failed=0):
        return {"arm": name, "test_metric": value, "training_device_s": cost, "diverged": diverged, "failed": failed}

    arms = [
        arm("best", 0.9, 10.0), arm("same", 0.9, 10.0), arm("dearer", 0.9, 11.0), arm("cheap", 0.7, 4.0),
        arm("worse", 0.6, 5.0), arm("lucky", 0.99, 1.0, diverged=2), arm("broken", 0.99, 1.0, failed=1),
        arm("untested", None, 1.0),
    ]  # fmt: skip
    expected = {"best": True, "same": True, "dearer": False, "cheap": True, "worse": False}
    assert on_frontier(arms, sign=1.0) == expected
    assert on_frontier(arms[:4], sign=-1.0) == {"best": False, "same": False, "dearer": False, "cheap": True}


def test_a_device_has_one_unit_and_the_tables_of_several_studies_join(make, priced):
    folder = make("small", lock={"unit": "GPU-hours"})
    build(folder)
    table = table_of(folder)
    arms = table[table["row"] == "arm"]
    assert table[["cpu_core_hours", "cpu_core_hours_with_tuning", "accuracy_per_cpu_core_hour"]].isna().all(axis=None)
    assert arms["gpu_hours"].tolist() == pytest.approx([3 * (20 * UPDATE_S[32] + EPOCH_S + EVALUATION_S) / 3600] * 2)
    assert (arms["accuracy_per_gpu_hour"] == arms["test_value"] / arms["gpu_hours"]).all()
    assert table["money"].isna().all()
    together = pq.ParquetDataset([path / "accuracy_per_gpu_hour.parquet" for path in (folder, priced)]).read()
    assert together.num_rows == len(table) + 30
    assert set(together.column("study").to_pylist()) == {"small", "digits"}
    arms_of = pq.ParquetDataset([path / "arms.parquet" for path in (folder, priced)]).read().to_pandas()
    assert arms_of.groupby("study").size().to_dict() == {"small": 2, "digits": 5}
    assert arms_of[["data", "model", "device_kind", "unit", "budget_epochs"]].notna().all(axis=None)


def test_an_arm_whose_seeds_diverged_has_no_place_on_the_frontier(troubled, tmp_path):
    folder = copied(troubled, tmp_path / "troubled")
    build(folder)
    table = table_of(folder)
    arms = table[table["row"] == "arm"].set_index("arm")
    assert arms["on_frontier"].isna().to_dict() == {arm: arm in ("clr", "sgdr", "sgdr_dlr") for arm in arms.index}, (
        "they lost seeds"
    )
    diverged = table[(table["row"] == "trial") & (table["arm"] == "clr")]
    assert diverged["status"].tolist() == ["diverged"] * 5
    assert diverged["test_value"].isna().all()
    assert np.allclose(diverged["cpu_core_hours"], 2 * (20 * UPDATE_S[32] + EPOCH_S + EVALUATION_S) / 3600)


def test_it_is_written_before_there_is_anything_to_compare(ran, tmp_path):
    folder = copied(ran.tuned, tmp_path / "tuned")
    build(folder)
    table = table_of(folder)
    assert table["row"].tolist() == ["arm"] * 5
    assert table[["test_value", "cpu_core_hours", "on_frontier"]].isna().all(axis=None)


def test_curves_are_parquet_too(priced):
    curves, text = pd.read_parquet(priced / "curves.parquet"), priced / "report" / "tables" / "curves.csv"
    assert curves.columns.tolist() == CURVES.names
    pd.testing.assert_frame_equal(curves, pd.read_csv(text), check_dtype=False, rtol=1e-8)
    last = curves[curves["epoch"] == 6].set_index("arm")["device_s"] / 3600
    arms = table_of(priced)
    arms = arms[arms["row"] == "arm"].set_index("arm")["cpu_core_hours"]
    assert last.to_dict() == pytest.approx(arms.to_dict())
