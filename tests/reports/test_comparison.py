"""The verdict table of synthetic studies, and what it refuses to say."""

import json
import math
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from lrstudy.study_folder import schemas
from lrstudy_reports import answer, build, summary
from lrstudy_reports.comparison import COLUMNS


def by_arm(path):
    return {row["arm"]: row for row in summary(path)}


def confirmed(path):
    trials = pd.read_parquet(path / "trials.parquet")
    return trials[trials["phase"] == "confirm"].pivot(index="seed", columns="arm", values="test_metric")


def where(column, arm, seeds=None, **values):
    """An edit of the confirm trials of `arm`."""

    def edit(trials):
        chosen = (trials["phase"] == "confirm") & (trials["arm"] == arm)
        if seeds is not None:
            chosen &= trials["seed"].isin(seeds)
        return trials.assign(**{column: trials[column].where(~chosen, values["to"])})

    return edit


def test_the_verdict_table_is_what_scipy_says(study):
    values, rows = confirmed(study), by_arm(study)
    for arm in ("step", "clr", "sgdr_dlr", "batch_increase"):
        reference = stats.ttest_rel(values[arm], values["constant"])
        interval = reference.confidence_interval()
        assert rows[arm]["p"] == pytest.approx(reference.pvalue)
        assert rows[arm]["difference_low"] == pytest.approx(interval.low)
        assert rows[arm]["difference_high"] == pytest.approx(interval.high)
        assert rows[arm]["test_metric"] == pytest.approx(values[arm].mean())


def test_the_planted_effect_is_found_and_ranked_first(study):
    rows = summary(study)
    assert [rows[0][key] for key in ("arm", "rank", "verdict")] == ["sgdr_dlr", 1, "better"]
    assert by_arm(study)["constant"]["verdict"] == "control"
    assert by_arm(study)["clr"]["verdict"] == "undecided"
    assert answer(study).startswith("sgdr_dlr reached 0.962 ± 0.004 test accuracy, 0.023 [0.017, 0.029] above constant")


def test_arms_parquet_holds_the_table_by_its_schema(reported):
    table = pq.read_table(reported / "arms.parquet")
    assert table.schema.names == list(COLUMNS)
    assert table.column("arm").to_pylist()[0] == "sgdr_dlr"
    assert table.column("rank").to_pylist() == [1, 2, 3, 4, 5]
    assert table.to_pylist() == summary(reported)


def test_calibrated_cost_is_the_median_per_update_times_updates_plus_evaluation(study):
    epochs = pd.read_parquet(study / "epochs.parquet")
    trained = epochs[~epochs["recalled"]]
    medians = (trained["train_s"] / trained["updates"]).groupby(trained["batch_size"]).median()
    evaluation = trained["eval_s"].median()
    rows = by_arm(study)
    assert rows["constant"]["training_device_s"] == pytest.approx(10 * (20 * medians[32] + evaluation))
    grown = 5 * (20 * medians[32] + evaluation) + 5 * (10 * medians[64] + evaluation)
    assert rows["batch_increase"]["training_device_s"] == pytest.approx(grown)
    assert rows["batch_increase"]["cost_ratio"] == pytest.approx(grown / rows["constant"]["training_device_s"])


def write_prices(folder, prices):
    """calibration.parquet: device-seconds per update by batch size, 0.25 s for what begins an epoch, 0.5 s per evaluation."""
    rows = [
        {
            "update_kind": f"kind-{batch}", "batch_size": batch, "recipe": "{}", "device_kind": "cpu",
            "device_s_per_update": seconds, "device_s_per_epoch": 0.25, "device_s_per_evaluation": 0.5,
        }
        for batch, seconds in prices.items()
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schemas.CALIBRATION), folder / "calibration.parquet")
    return folder


def test_what_was_measured_alone_on_the_device_is_the_cost(make):
    folder = write_prices(make(), {32: 2.0, 64: 3.0})
    rows = by_arm(folder)
    assert rows["constant"]["training_device_s"] == pytest.approx(10 * (20 * 2.0 + 0.75))
    grown = 5 * (20 * 2.0 + 0.75) + 5 * (10 * 3.0 + 0.75)
    assert rows["batch_increase"]["training_device_s"] == pytest.approx(grown)
    page = Path(build(folder)).read_text()
    assert "what an update takes alone on the device" in page
    assert "not measured alone" not in page
    assert "alone" in (folder / "report" / "tables" / "calibration.csv").read_text()


def test_measured_and_recorded_costs_are_not_compared_with_each_other(make):
    """With one batch size not measured, all arms are priced by their recorded epochs, and the report says so."""
    plain = by_arm(make("plain"))
    folder = write_prices(make("half"), {32: 2.0})
    assert {a: r["training_device_s"] for a, r in by_arm(folder).items()} == {
        a: r["training_device_s"] for a, r in plain.items()
    }
    assert "not measured alone on the device" in Path(build(folder)).read_text()


def test_an_epoch_that_was_slow_by_accident_does_not_move_the_calibrated_cost(make):
    def one_slow(epochs):
        return epochs.assign(train_s=epochs["train_s"].where(epochs.index != 3, 1e6))

    slow, plain = by_arm(make("slow", edit_epochs=one_slow)), by_arm(make("plain"))
    # one epoch of some hundreds can move the median to its neighbour, and no further
    assert slow["constant"]["training_device_s"] == pytest.approx(plain["constant"]["training_device_s"], rel=1e-2)


def test_tuning_cost_counts_every_tuning_trial_also_failed_ones(make):
    def fail_one(trials):
        return trials.assign(status=trials["status"].where(trials["trial_id"] != "step-random-5-0", "failed"))

    folder = make(edit_trials=fail_one)
    trials = pd.read_parquet(folder / "trials.parquet")
    tuning = trials[(trials["arm"] == "step") & (trials["phase"] != "confirm")]
    row = by_arm(folder)["step"]
    assert row["tuning_standalone_device_s"] == pytest.approx(tuning["standalone_device_s"].sum())
    assert row["tuning_spent_device_s"] == pytest.approx(tuning["spent_device_s"].sum())
    assert by_arm(folder)["constant"]["lost_device_s"] == pytest.approx(2.0)


def test_a_margin_makes_an_interval_inside_it_equivalent(make):
    rows = by_arm(make(lock={"margin": 0.01}))
    assert rows["batch_increase"]["verdict"] == "equivalent"
    assert rows["sgdr_dlr"]["verdict"] == "better"


def test_less_is_better_where_the_mode_is_min(make):
    rows = summary(make(lock={"mode": "min", "metric": "log_loss"}))
    assert rows[0]["test_metric"] == min(row["test_metric"] for row in rows)
    assert {row["arm"]: row["verdict"] for row in rows}["sgdr_dlr"] == "worse"


def test_one_seed_decides_nothing(make):
    folder = make(confirm_seeds=1)
    rows = by_arm(folder)
    assert {row["verdict"] for row in rows.values()} == {"control", "undecided"}
    assert rows["sgdr_dlr"]["test_low"] is None
    assert rows["sgdr_dlr"]["note"] == "one pair of seeds gives no interval"
    assert "One seed gives no interval" in answer(folder)


def test_an_arm_that_diverges_in_every_seed_is_reported_as_that(make):
    folder = make(edit_trials=where("status", "clr", to="diverged"))
    row = by_arm(folder)["clr"]
    assert (row["rank"], row["test_metric"], row["verdict"]) == (None, None, "undecided")
    assert row["note"] == "5 of 5 seeds diverged"
    assert "Confirm trials diverged in clr (5 of 5)." in answer(folder)


def test_the_seeds_that_survived_do_not_make_an_arm_better(make):
    folder = make(edit_trials=where("status", "sgdr_dlr", seeds=[1001], to="diverged"))
    row = by_arm(folder)["sgdr_dlr"]
    assert (row["verdict"], row["rank"], row["pairs"]) == ("undecided", None, 4)
    assert "'better' withheld" in row["note"]


def test_a_trial_that_crashed_costs_a_pair_and_is_noted(make):
    row = by_arm(make(edit_trials=where("status", "sgdr_dlr", seeds=[1001], to="failed")))["sgdr_dlr"]
    assert (row["verdict"], row["pairs"], row["note"]) == ("better", 4, "1 of 5 seeds failed")


def test_an_arm_that_trained_exactly_what_the_control_did_is_equivalent(make):
    def same(trials):
        copied = trials.copy()
        confirm = copied["phase"] == "confirm"
        for seed in range(1000, 1005):
            source = copied[confirm & (copied["arm"] == "constant") & (copied["seed"] == seed)].iloc[0]
            chosen = confirm & (copied["arm"] == "clr") & (copied["seed"] == seed)
            copied.loc[chosen, ["lineage", "test_metric"]] = [source["lineage"], source["test_metric"]]
        return copied

    row = by_arm(make(edit_trials=same))["clr"]
    assert (row["verdict"], row["note"]) == ("equivalent", "the very same training as the control")
    assert row["difference"] == 0


def test_no_verdict_while_confirm_trials_run(make):
    def early(trials):
        return trials[(trials["phase"] != "confirm") | (trials["seed"] < 1003)]

    folder = make(lock={"complete": False}, edit_trials=early)
    rows = by_arm(folder)
    assert rows["sgdr_dlr"]["verdict"] == "undecided"
    assert rows["sgdr_dlr"]["note"] == "interim: 3 of 5 pairs of seeds"
    assert answer(folder).startswith("No answer yet (running, 95 of 105 trials)")


@pytest.mark.parametrize(
    ("control", "note"), [(None, "no control named"), ("gone", "gone, the control, is not an arm")]
)
def test_without_a_control_nothing_is_tested(make, control, note):
    folder = make(lock={"control": control})
    rows = by_arm(folder)
    assert {row["verdict"] for row in rows.values()} == {"undecided"}
    assert rows["clr"]["note"] == note
    assert "no difference was tested" in answer(folder)


def test_several_confirmed_configurations_leave_the_first_ranked_one_as_the_arm(make):
    def second(trials):
        extra = trials[(trials["phase"] == "confirm") & (trials["arm"] == "clr")].copy()
        extra["trial_id"] = extra["trial_id"].str.replace("-0-", "-1-")
        extra["index"], extra["test_metric"] = 1, 0.999
        return pd.concat([trials, extra], ignore_index=True)

    assert by_arm(make("two", edit_trials=second))["clr"]["test_metric"] < 0.99


def test_a_target_that_few_trials_reach_is_censored(make, tmp_path):
    rows = by_arm(make(lock={"target": 0.96}))
    epochs = pd.read_parquet(tmp_path / "made" / "epochs.parquet")
    confirm = epochs[epochs["trial_id"].str.contains("sgdr_dlr-confirm")]
    reached = (confirm.groupby("trial_id")["val_metric"].max() >= 0.96).sum()
    assert rows["sgdr_dlr"]["target_reached"] == reached >= 3
    assert rows["sgdr_dlr"]["target_device_s"] > 0
    assert rows["constant"]["target_reached"] == 0
    assert rows["constant"]["target_device_s"] is None
    assert rows["constant"]["target_trials"] == 5


def test_money_is_device_hours_times_price(make):
    row = by_arm(make(lock={"price": {"device_hour": 2.0, "currency": "EUR"}}))["clr"]
    assert row["tuning_money"] == pytest.approx(row["tuning_spent_device_s"] / 1800)
    assert row["currency"] == "EUR"


def test_a_folder_without_a_study_and_a_broken_lock_say_so(make, tmp_path):
    with pytest.raises(ValueError, match=r"no study in .*: it has neither study\.lock\.json nor trials\.parquet"):
        summary(tmp_path)
    folder = make()
    (folder / "study.lock.json").write_text("{")
    with pytest.raises(ValueError, match=r"study\.lock\.json is not JSON"):
        summary(folder)
    (folder / "study.lock.json").write_text(json.dumps({"mode": "largest"}))
    with pytest.raises(ValueError, match="must be max or min; got 'largest'"):
        summary(folder)


def test_a_torn_table_is_named(make):
    folder = make()
    (folder / "epochs.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(ValueError, match=r"epochs\.parquet cannot be read as Parquet"):
        summary(folder)


def test_missing_values_are_none_and_never_nan(make):
    for row in summary(make(confirm_seeds=1)):
        assert not any(isinstance(value, float) and math.isnan(value) for value in row.values())
