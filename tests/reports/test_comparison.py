"""The verdict table of studies with known effects, and what it refuses to say."""

import json
import math
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from lrstudy_reports import answer, build, summary
from lrstudy_reports.schemas import ARMS
from prescribed import DATA_S, EPOCH_S, EVALUATION_S, SETUP_S, UPDATE_S, Training, run_study
from report_studies import KILLED, SMALL, by_arm, confirmed, copied, edit_lock, edit_table


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
    assert answer(study).startswith(
        "sgdr_dlr reached 0.961 [0.956, 0.965] test accuracy, 0.021 [0.013, 0.028] above constant"
    )
    assert answer(study).endswith("Of 5 arms, sgdr_dlr is the best.")


def test_arms_parquet_holds_the_table_by_its_schema(reported):
    table = pq.read_table(reported / "arms.parquet")
    assert table.schema.names == ARMS.names
    assert table.column("arm").to_pylist()[0] == "sgdr_dlr"
    assert table.column("rank").to_pylist() == [1, 2, 3, 4, 5]
    assert table.to_pylist() == summary(reported)


def training_costs(path):
    return {arm: row["training_device_s"] for arm, row in by_arm(path).items()}


def test_what_was_measured_alone_on_the_device_is_the_cost(reported):
    rows, begin = by_arm(reported), EPOCH_S + EVALUATION_S
    assert rows["constant"]["training_device_s"] == pytest.approx(6 * (20 * UPDATE_S[32] + begin))
    grown = 3 * (20 * UPDATE_S[32] + begin) + 3 * (10 * UPDATE_S[64] + begin)
    assert rows["batch_increase"]["training_device_s"] == pytest.approx(grown)
    page = (reported / "report" / "index.html").read_text()
    assert "what an update takes alone on the device" in page
    assert "not measured alone" not in page
    assert "alone" in (reported / "report" / "tables" / "calibration.csv").read_text()


def not_measured(folder, batch_sizes=(32, 64)):
    """The study as a run leaves it whose calibration did not come so far."""
    edit_table(folder / "calibration.parquet", lambda prices: prices[~prices["batch_size"].isin(batch_sizes)])
    return folder


def test_calibrated_cost_is_else_the_median_per_update_times_updates_plus_evaluation(make):
    folder = not_measured(make())
    epochs = pd.read_parquet(folder / "epochs.parquet")
    trained = epochs[~epochs["recalled"]]
    medians = (trained["train_s"] / trained["updates"]).groupby(trained["batch_size"]).median()
    evaluation = trained["eval_s"].median()
    rows = by_arm(folder)
    assert rows["constant"]["training_device_s"] == pytest.approx(6 * (20 * medians[32] + evaluation))
    grown = 3 * (20 * medians[32] + evaluation) + 3 * (10 * medians[64] + evaluation)
    assert rows["batch_increase"]["training_device_s"] == pytest.approx(grown)
    assert rows["batch_increase"]["cost_ratio"] == pytest.approx(grown / rows["constant"]["training_device_s"])


def test_measured_and_recorded_costs_are_not_compared_with_each_other(make):
    """With one batch size not measured, all arms are priced by their recorded epochs, and the report says so."""
    half = not_measured(make(name="half"), batch_sizes=(64,))
    assert training_costs(half) == training_costs(not_measured(make(name="plain")))
    assert "not measured alone on the device" in Path(build(half)).read_text()


def test_an_epoch_that_was_slow_by_accident_does_not_move_the_calibrated_cost(make):
    def one_slow(epochs):
        return epochs.assign(train_s=epochs["train_s"].where(epochs.index != 3, 1e6))

    slow, plain = (training_costs(not_measured(make(name=n, edit_epochs=e))) for n, e in (("s", one_slow), ("p", None)))
    # one epoch of some hundreds can move the median to its neighbour, and no further
    assert slow["constant"] == pytest.approx(plain["constant"], rel=1e-2)


def test_tuning_cost_counts_every_tuning_trial_also_failed_ones(troubled):
    trials = pd.read_parquet(troubled / "trials.parquet")
    tuning = trials[(trials["arm"] == "clr") & (trials["phase"] != "confirm")]
    assert tuning["status"].tolist() == ["completed", "failed"]
    assert (tuning["spent_device_s"] > 0).all()
    row = by_arm(troubled)["clr"]
    assert row["tuning_standalone_device_s"] == pytest.approx(tuning["standalone_device_s"].sum())
    assert row["tuning_spent_device_s"] == pytest.approx(tuning["spent_device_s"].sum())


def test_lost_time_is_that_of_the_arm_whose_worker_died(study):
    """The ledger has its successor's boot under the trial that came next, and the time before that under none."""
    ledger = pd.read_parquet(study / "ledger.parquet")
    lost = ledger[ledger["category"] == "lost"]
    assert (lost["trial_id"] == "").any()
    assert (lost["duration_s"] > 0).sum() > 1
    found = {arm: row["lost_device_s"] for arm, row in by_arm(study).items()}
    assert found == pytest.approx(dict.fromkeys(found, 0.0) | {KILLED.partition("-")[0]: lost["duration_s"].sum()})
    assert sum(found.values()) > SETUP_S + DATA_S


def test_a_margin_makes_an_interval_inside_it_equivalent(make):
    rows = by_arm(make("complete", "compare.margin=0.015"))
    assert rows["batch_increase"]["verdict"] == "equivalent"
    assert rows["sgdr_dlr"]["verdict"] == "better"


def test_less_is_better_where_the_mode_is_min(make):
    rows = summary(make(lock={"mode": "min", "metric": "log_loss"}))
    assert rows[0]["test_metric"] == min(row["test_metric"] for row in rows)
    assert {row["arm"]: row["verdict"] for row in rows}["sgdr_dlr"] == "worse"


def test_one_seed_decides_nothing(tmp_path):
    folder = run_study(tmp_path, SMALL, "confirm.seeds=1")
    rows = by_arm(folder)
    assert {row["verdict"] for row in rows.values()} == {"control", "undecided"}
    assert rows["step"]["test_low"] is None
    assert rows["step"]["note"] == "one pair of seeds gives no interval"
    assert "One seed gives no interval" in answer(folder)


def test_an_arm_that_diverges_in_every_seed_is_reported_as_that(troubled):
    row = by_arm(troubled)["clr"]
    assert (row["rank"], row["test_metric"], row["verdict"]) == (None, None, "undecided")
    assert row["note"] == "5 of 5 seeds diverged"
    assert "Confirm trials diverged in sgdr_dlr (1 of 5) and clr (5 of 5)." in answer(troubled)


def test_the_seeds_that_survived_do_not_make_an_arm_better(troubled):
    row = by_arm(troubled)["sgdr_dlr"]
    assert (row["verdict"], row["rank"], row["pairs"]) == ("undecided", None, 4)
    assert "'better' withheld" in row["note"]


def test_a_seed_that_failed_withholds_the_verdict_as_a_diverged_one_does(troubled):
    """A network that needs more memory as its batch grows fails where it is largest: that is no accident."""
    row = by_arm(troubled)["sgdr"]
    assert (row["verdict"], row["pairs"], row["rank"]) == ("undecided", 4, None)
    assert row["note"] == "1 of 5 seeds failed; 'better' withheld: the seeds left may not speak for all"
    assert "Confirm trials failed in sgdr (1 of 5)." in answer(troubled)


def test_a_retired_arm_is_shown_but_neither_tested_nor_counted(make):
    """Of the four comparisons one belongs to an arm that the study file no longer has: Holm corrects for three."""
    folder = make()
    lock = json.loads((folder / "study.lock.json").read_text())
    lock["arms"]["batch_increase"]["retired"] = True
    edit_lock(folder, **lock)
    rows, values = by_arm(folder), confirmed(folder)
    assert (rows["batch_increase"]["verdict"], rows["batch_increase"]["rank"]) == ("retired", None)
    assert rows["batch_increase"]["difference"] is not None
    p_values = [stats.ttest_rel(values[arm], values["constant"]).pvalue for arm in ("step", "clr", "sgdr_dlr")]
    expected = multipletests(p_values, method="holm")[1]
    assert [rows[arm]["p_holm"] for arm in ("step", "clr", "sgdr_dlr")] == pytest.approx(expected)
    assert rows["batch_increase"]["may_be_best"] is None


def test_equivalence_is_corrected_for_all_comparisons(make):
    """At a margin where the interval of batch_increase alone lies within, but not once three more are looked at."""
    folder = make("complete", "compare.margin=0.007")
    rows, values = by_arm(folder), confirmed(folder)
    arms = ["step", "batch_increase", "clr", "sgdr_dlr"]
    alone = [min(1, 2 * ttost_paired(values[a], values["constant"], -0.007, 0.007)[0]) for a in arms]
    assert [rows[arm]["p_equivalence"] for arm in arms] == pytest.approx(multipletests(alone, method="holm")[1])
    assert -0.007 < rows["batch_increase"]["difference_low"] < rows["batch_increase"]["difference_high"] < 0.007
    assert rows["batch_increase"]["verdict"] == "undecided"


def test_two_seeds_give_no_interval(tmp_path):
    folder = run_study(tmp_path, SMALL, "confirm.seeds=2")
    row = by_arm(folder)["step"]
    assert (row["seeds"], row["test_low"], row["difference_low"], row["p"]) == (2, None, None, None)
    assert row["note"] == "2 pairs of seeds give no interval"
    assert "2 seeds give no interval, so no difference could have been shown." in answer(folder)
    assert "2 seeds give no intervals." in Path(build(folder)).read_text()


def test_the_headline_names_no_difference_that_the_table_contradicts(make):
    """One arm scatters far more than the others: what it could have shown says nothing of those."""

    def scatter(trials):
        sign = trials["seed"].map(lambda seed: 1 if seed % 2 else -1)
        noisy = (trials["arm"] == "clr") & (trials["phase"] == "confirm")
        better = (trials["arm"] == "sgdr_dlr") & (trials["phase"] == "confirm")
        values = trials["test_metric"].where(~noisy, trials["test_metric"] - 0.3 + 0.3 * sign)
        return trials.assign(test_metric=values.where(~better, trials["test_metric"] - 0.02))

    folder = make(edit_trials=scatter)
    rows, text = by_arm(folder), answer(folder)
    assert rows["clr"]["smallest_detectable"] > 0.25
    assert "Seeds scatter too much to compare clr with constant." in text
    for arm in ("step", "batch_increase"):
        assert rows[arm]["smallest_detectable"] < 0.02
    assert "would have shown in 4 of 5 such studies" in text


def test_an_interval_without_zero_and_no_verdict_are_explained(make):
    """The interval of one difference holds for itself; the verdict corrects for four comparisons."""

    def weaken(trials):
        shifted = trials["test_metric"] - 0.012
        is_best = (trials["arm"] == "sgdr_dlr") & (trials["phase"] == "confirm")
        return trials.assign(test_metric=trials["test_metric"].where(~is_best, shifted))

    folder = make(edit_trials=weaken)
    row = by_arm(folder)["sgdr_dlr"]
    assert row["difference_low"] > 0
    assert row["p"] < 0.05 < row["p_holm"]
    assert row["verdict"] == "undecided"
    assert row["note"] == "the interval alone leaves out 0, but not once corrected for 4 comparisons (Holm)"
    text = (Path(build(folder)).parent / "report.md").read_text()
    assert "p is corrected for all 4 comparisons (Holm), and the verdict follows p: an interval may leave out 0" in text


def test_an_arm_that_trained_exactly_what_the_control_did_is_equivalent(tmp_path):
    row = by_arm(run_study(tmp_path, SMALL, "arms={constant: , same: {policy: constant}}"))["same"]
    assert (row["verdict"], row["note"]) == ("equivalent", "the very same training as the control")
    assert row["difference"] == 0


def test_no_verdict_while_confirm_trials_of_an_arm_or_the_control_run(ran):
    trials = pd.read_parquet(ran.interim / "trials.parquet")
    ended = trials[(trials["phase"] == "confirm") & (trials["status"] == "completed")]
    seeds = {arm: set(rows["seed"]) for arm, rows in ended.groupby("arm")}
    rows = by_arm(ran.interim)
    assert len([arm for arm in rows if len(seeds.get(arm, ())) < 5]) >= 2
    assert any(len(seeds[arm]) == 5 for arm in rows if arm != "constant"), "one that has all is not judged either"
    for arm in set(rows) - {"constant"}:
        pairs = len(seeds.get(arm, set()) & seeds["constant"])
        assert (rows[arm]["verdict"], rows[arm]["p_holm"]) == ("undecided", None)
        assert rows[arm]["note"] == f"interim: {pairs} of 5 pairs of seeds"
    assert answer(ran.interim).startswith("No answer yet (running, 75 of 85 trials)")


@pytest.mark.parametrize(
    ("control", "note"), [(None, "no control named"), ("gone", "gone, the control, is not an arm")]
)
def test_without_a_control_nothing_is_tested(make, control, note):
    folder = make("small", lock={"control": control})
    rows = by_arm(folder)
    assert {row["verdict"] for row in rows.values()} == {"undecided"}
    assert rows["step"]["note"] == note
    assert "no difference to it was tested" in answer(folder)


def test_several_confirmed_configurations_leave_the_first_ranked_one_as_the_arm(tmp_path):
    """Here the first-ranked one was also suggested first, as the point at which the cohort begins often is."""
    folder = run_study(tmp_path, SMALL, "confirm.top=2")
    trials = pd.read_parquet(folder / "trials.parquet")
    first, second = (trials[trials["trial_id"].str.contains(f"-confirm-{rank}-")] for rank in (1, 2))
    assert len(first) == len(second) == 10
    assert first["index"].max() < second["index"].min()
    for arm, row in by_arm(folder).items():
        assert row["seeds"] == 5
        assert row["test_metric"] == pytest.approx(first[first["arm"] == arm]["test_metric"].mean())


@pytest.fixture(scope="module")
def second_best_first(tmp_path_factory):
    """A study in which what ranks first in an arm was suggested after what ranks second."""
    rates = ("common.lr={choice: [0.001, 0.1, 0.05]}", "common.weight_decay=0")
    overrides = (*rates, "search.trials=3", "search.cohort=0", "search.method=grid", "confirm.top=2")
    return run_study(tmp_path_factory.mktemp("top"), SMALL, *overrides)


def test_the_arm_is_the_configuration_that_ranked_first_and_not_the_one_suggested_first(second_best_first):
    """Three of five arms of a study with `confirm.top` 2 were reported by their second-best configuration."""
    trials = pd.read_parquet(second_best_first / "trials.parquet")
    confirm = trials[trials["phase"] == "confirm"]
    assert trials[trials["phase"] != "confirm"]["rank"].isna().all()
    index = confirm.groupby(["arm", "rank"])["index"].first().unstack()
    assert (index[1] > index[2]).any(), "not the study that this test needs"
    for arm, row in by_arm(second_best_first).items():
        first = confirm[(confirm["arm"] == arm) & (confirm["rank"] == 1)]
        assert row["configuration"] == first["configuration"].iloc[0]
        assert row["test_metric"] == pytest.approx(first["test_metric"].mean())
        assert row["seeds"] == len(first) == 5


def test_tables_without_ranks_have_them_in_the_ids_of_trials(second_best_first, tmp_path):
    older = copied(second_best_first, tmp_path / "older")
    table = pq.read_table(older / "trials.parquet")
    pq.write_table(table.drop_columns(["rank"]), older / "trials.parquet")
    assert summary(older) == summary(second_best_first)


class Peaking(Training):
    """Best in the second of three epochs, by as much as the seed says."""

    def value(self, trial, epoch):
        return (0.5, 0.9, 0.7)[epoch] + 0.001 * (trial.seed % 10) + 0.01 * trial.configuration["lr"]


@pytest.mark.parametrize(("select", "epoch"), [("final", 2), ("best", 1), ("last_cycle", 1)])
def test_values_and_choices_are_those_of_the_selected_epoch(tmp_path, select, epoch):
    cycle = "arms={constant: , sgdr: {t0: 2, t_mult: 1}}"
    folder = run_study(tmp_path, SMALL, cycle, f"select={select}", training=Peaking())
    trials = pd.read_parquet(folder / "trials.parquet")
    row, mine = by_arm(folder)["sgdr"], trials[(trials["arm"] == "sgdr") & (trials["phase"] == "confirm")]
    assert (mine["selected_epoch"] == epoch).all()
    expected = (0.5, 0.9, 0.7)[epoch] + 0.002 + 0.01 * json.loads(row["configuration"])["lr"]
    assert row["val_metric"] == pytest.approx(expected)
    assert row["test_metric"] == pytest.approx(expected - 0.004, abs=0.004)
    control = trials[(trials["arm"] == "constant") & (trials["phase"] == "confirm")]
    assert row["target"] == pytest.approx(0.98 * control["selected_val_metric"].mean())
    assert row["training_device_s"] == pytest.approx(by_arm(folder)["constant"]["training_device_s"]), "whole trainings"
    older = pq.read_table(folder / "trials.parquet").drop_columns(["selected_val_metric"])
    if select != "last_cycle":
        pq.write_table(older, folder / "trials.parquet")
        assert by_arm(folder)["sgdr"] == row, "tables of earlier versions"


def test_a_target_that_few_trials_reach_is_censored(make):
    folder = make("complete", "target.value=0.96")
    rows = by_arm(folder)
    epochs = pd.read_parquet(folder / "epochs.parquet")
    confirm = epochs[epochs["trial_id"].str.contains("sgdr_dlr-confirm")]
    reached = (confirm.groupby("trial_id")["val_metric"].max() >= 0.96).sum()
    assert rows["sgdr_dlr"]["target_reached"] == reached >= 3
    assert rows["sgdr_dlr"]["target_device_s"] > 0
    assert rows["constant"]["target_reached"] == 0
    assert rows["constant"]["target_device_s"] is None
    assert rows["constant"]["target_trials"] == 5


def test_money_is_device_hours_times_price(make):
    row = by_arm(make("complete", "price.cpu_core_hour=2", "price.currency=EUR"))["clr"]
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


def test_missing_values_are_none_and_never_nan(ran):
    for row in summary(ran.tuned):
        assert not any(isinstance(value, float) and math.isnan(value) for value in row.values())
