"""What tuning and training cost: every number is computed once more, from the tables that the engine wrote."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

from lrstudy_reports import build, summary
from prescribed import EPOCH_S, EVALUATION_S, UPDATE_S, Training, run_study
from report_studies import SMALL, edit_table


def by_arm(folder: Path) -> dict[str, dict]:
    return {row["arm"]: row for row in summary(folder)}


def tables(folder: Path, *names: str) -> list[pd.DataFrame]:
    return [pd.read_parquet(folder / f"{name}.parquet") for name in names]


def epoch_s(updates: int, batch_size: int, examples: int) -> float:
    """Seconds of an epoch alone on the device, with its evaluation."""
    last = examples - (updates - 1) * batch_size
    return (updates - 1) * UPDATE_S[batch_size] + UPDATE_S[last] + EPOCH_S + EVALUATION_S


def alone_s(folder: Path) -> dict[str, float]:
    """Seconds that each trial would take alone."""
    (epochs,) = tables(folder, "epochs")
    cost: dict[str, float] = defaultdict(float)
    for row in epochs.to_dict("records"):
        cost[row["trial_id"]] += epoch_s(row["updates"], row["batch_size"], row["examples"])
    return cost


def test_tuning_cost_is_calibrated_and_of_the_searcher_that_chose(study):
    (trials,), alone = tables(study, "trials"), alone_s(study)
    rows = by_arm(study)
    for arm, row in rows.items():
        mine = trials[(trials["arm"] == arm) & (trials["searcher"] == "random") & (trials["phase"] != "confirm")]
        assert len(mine) == 6
        assert row["tuning_device_s"] == pytest.approx(sum(alone[trial] for trial in mine["trial_id"]))
    equal = [rows[arm]["tuning_device_s"] for arm in ("constant", "step", "clr", "sgdr_dlr")]
    assert equal == pytest.approx([equal[0]] * 4), "as many updates of the same kind cost the same"
    recorded = [rows[arm]["tuning_standalone_device_s"] for arm in ("constant", "step", "clr", "sgdr_dlr")]
    assert max(recorded) > 1.01 * min(recorded), "which recorded times do not show"


def test_a_trial_that_failed_in_tuning_costs_what_it_trained(troubled):
    (trials,), alone = tables(troubled, "trials"), alone_s(troubled)
    tuning = trials[(trials["arm"] == "clr") & (trials["phase"] != "confirm")]
    assert tuning[["status", "epochs"]].to_numpy().tolist() == [["completed", 4], ["failed", 1]]
    expected = sum(alone[trial] for trial in tuning["trial_id"])
    assert by_arm(troubled)["clr"]["tuning_device_s"] == pytest.approx(expected)
    assert expected == pytest.approx(5 * epoch_s(20, 32, 640))


def test_several_searches_of_one_searcher_cost_what_one_of_them_does(make):
    folder = make("small")
    once = by_arm(folder)["step"]["tuning_device_s"]
    trials, epochs = tables(folder, "trials", "epochs")
    tuned = trials[trials["phase"] != "confirm"]
    again = {trial: f"{trial}-again" for trial in tuned["trial_id"]}
    more = tuned.assign(trial_id=tuned["trial_id"].map(again), repeat=1)
    pd.concat([trials.assign(repeat=0), more]).to_parquet(folder / "trials.parquet")
    further = epochs[epochs["trial_id"].isin(again)]
    pd.concat([epochs, further.assign(trial_id=further["trial_id"].map(again))]).to_parquet(folder / "epochs.parquet")
    assert by_arm(folder)["step"]["tuning_device_s"] == pytest.approx(once)


def test_a_smaller_last_batch_is_priced_by_its_examples(tmp_path):
    """64 on 200 examples was priced as 256, so whoever lets the batch grow paid for examples that there are not."""
    folder = run_study(tmp_path, SMALL, "workload.subset=300", "common.batch_size=64")
    epochs, prices, settings = tables(folder, "epochs", "calibration", "settings")
    assert epochs[["updates", "examples"]].drop_duplicates().to_numpy().tolist() == [[4, 200]]
    assert prices["batch_size"].tolist() == [8, 64]
    assert settings["tail_kind"].unique().tolist() == [prices["update_kind"].iloc[0]]
    expected = 3 * (3 * UPDATE_S[64] + UPDATE_S[8] + EPOCH_S + EVALUATION_S)
    for row in summary(folder):
        assert row["training_device_s"] == pytest.approx(expected)
        assert row["tuning_device_s"] == pytest.approx(3 * expected)
    edit_table(folder / "settings.parquet", lambda rows: rows.assign(tail_kind=None))
    whole = 3 * (4 * UPDATE_S[64] + EPOCH_S + EVALUATION_S)
    assert by_arm(folder)["step"]["training_device_s"] == pytest.approx(whole), "as tables of earlier versions are read"


def test_what_only_tuning_trials_used_and_nobody_measured_has_no_price_but_training_has(make):
    """As in tables of an earlier version, which measured the updates of confirm trials alone."""
    folder = make("small")
    (epochs,) = tables(folder, "epochs")
    confirmed = set(epochs.loc[epochs["trial_id"].str.contains("confirm"), "settings"])
    of_step = epochs.loc[epochs["trial_id"].str.startswith("step-random"), "settings"]
    tuned = of_step[~of_step.isin(confirmed)].iloc[0]
    edit_table(
        folder / "settings.parquet",
        lambda rows: rows.assign(update_kind=rows["update_kind"].where(rows["settings"] != tuned, "another")),
    )
    before, after = by_arm(make("small", name="before")), by_arm(folder)
    for arm in before:
        assert after[arm]["training_device_s"] == pytest.approx(before[arm]["training_device_s"])
    assert after["step"]["tuning_device_s"] is None
    build(folder)


def test_shared_epochs_are_paid_by_all_arms_in_equal_parts_whoever_trained_first(study):
    """constant was handed out first, trained what step shares with it, and paid for both."""
    trials, epochs = tables(study, "trials", "epochs")
    phase = trials.set_index("trial_id")["phase"].to_dict()
    users, trained = defaultdict(set), {}
    for row in epochs.to_dict("records"):
        users[row["lineage"]].add((row["arm"], phase[row["trial_id"]] == "confirm"))
        if not row["recalled"]:
            trained[row["lineage"]] = row["device_s"]
    parts: dict[tuple[str, bool], float] = defaultdict(float)
    for lineage, cost in trained.items():
        arms = {arm for arm, _ in users[lineage]}
        for arm, is_confirm in users[lineage]:
            parts[arm, is_confirm] += cost / len(arms) / sum(user == arm for user, _ in users[lineage])
    rows = by_arm(study)
    for arm, row in rows.items():
        assert row["tuning_paid_device_s"] == pytest.approx(parts[arm, False])
        assert row["confirm_paid_device_s"] == pytest.approx(parts[arm, True])
    paid = sum(row["tuning_paid_device_s"] + row["confirm_paid_device_s"] for row in rows.values())
    assert paid == pytest.approx(epochs.loc[~epochs["recalled"], "device_s"].sum()), "all that was trained, and no more"
    assert any(len({arm for arm, _ in of}) > 1 for of in users.values())


def test_arms_that_train_the_same_pay_the_same(tmp_path):
    """One configuration each, the cohort's: searchers of two arms suggest others."""
    arms = "arms={constant: , same: {policy: constant}}"
    rows = by_arm(run_study(tmp_path, SMALL, arms, "search.trials=1"))
    for name in ("tuning_paid_device_s", "confirm_paid_device_s", "tuning_device_s"):
        assert rows["constant"][name] == pytest.approx(rows["same"][name])
    spent = [rows[arm]["tuning_spent_device_s"] + rows[arm]["confirm_spent_device_s"] for arm in rows]
    assert min(spent) < 0.2 * max(spent), "one of them has trained for both"


def test_money_follows_what_was_paid(make):
    for row in summary(make("complete", "price.cpu_core_hour=2", "price.currency=EUR")):
        paid = row["tuning_paid_device_s"] + row["confirm_paid_device_s"]
        assert row["paid_money"] == pytest.approx(paid / 1800)


def test_half_a_gpu_costs_the_same_unit_in_training_and_tuning(make):
    """Recorded on half a GPU each, priced alone on a whole one: a tuning trial costs what a confirm trial of it costs."""

    def on_half(epochs):
        recorded = ("train_s", "eval_s")
        return epochs.assign(device_share=0.5, **{name: 1.8 * epochs[name] for name in recorded})

    folder = make("small", edit_epochs=on_half)
    for row in summary(folder):
        assert row["tuning_device_s"] == pytest.approx(3 * row["training_device_s"])
    (folder / "calibration.parquet").unlink()
    for row in summary(folder):
        assert row["tuning_device_s"] == pytest.approx(3 * row["training_device_s"]), "by medians as well"


def test_lost_time_is_that_of_the_arm_whose_worker_died(tmp_path):
    """It was that of whichever trial came next in the slot."""
    training = Training(dies=lambda trial: trial.trial_id == "step-random-1-0")
    folder = run_study(tmp_path, SMALL, training=training)
    (ledger,) = tables(folder, "ledger")
    lost = ledger[ledger["category"] == "lost"]
    assert len(lost) > 1
    rows = by_arm(folder)
    assert rows["step"]["lost_device_s"] == pytest.approx(lost["duration_s"].sum())
    assert rows["constant"]["lost_device_s"] == 0
