"""Studies whose arms train in stages: what they share, what the features cost, and what the tables say of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load
from torch import nn

from lrstudy.memo.memo import Memo
from lrstudy.models.build import build_model
from lrstudy.planning import study_lock
from lrstudy.running import calibration
from lrstudy.running.forecast import forecast
from lrstudy.running.tables import TableWriter
from lrstudy.study_folder.journal import Journal
from lrstudy.training.randomness import generator, seed_for
from lrstudy_reports.calibration import calibrate
from lrstudy_reports.costs import sharing
from lrstudy_reports.tables import load as load_tables
from serial import Serial, study

pytestmark = pytest.mark.slow

FIRST = "{train: head, epochs: 3, policy: sgdr, t0: 1, t_mult: 1, min_ratio: 0}"
TEXT = f"""
lrstudy: 1
name: small
workload: {{data: digits, subset: 120, split: {{test: 0.5, validation: 40}}, model: small_cnn}}
budget: {{epochs: 6}}
common: {{lr: 0.1, batch_size: 20}}
arms:
  constant: {{stages: [{FIRST}, {{train: all, policy: constant}}]}}
  sgdr: {{stages: [{FIRST}, {{train: all, policy: sgdr, t0: 1, t_mult: 2, min_ratio: 0}}]}}
  dlr: {{stages: [{FIRST}, {{train: all, policy: sgdr_dlr, t0: 1, t_mult: 2, section_ratios: [0.1, 0.3, 1]}}]}}
  upper: {{stages: [{FIRST}, {{train: upper, policy: constant, batchnorm: frozen}}]}}
search: {{method: grid, trials: 1, cohort: 1}}
confirm: {{seeds: 2}}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Serial, Path]:
    """A study that was run on two slots, and its tables."""
    storage = tmp_path_factory.mktemp("stages")
    runner = Serial(study(storage, TEXT).plan()[0], storage, slots=2, order=lambda running: running - 1)
    runner.run()
    folder = runner.journal.folder.parent
    TableWriter(runner.admission, folder).write(time.monotonic())
    return runner, folder


def test_all_second_stages_go_on_from_one_first_stage(ran):
    runner, _ = ran
    epochs = Counter((step.record.epoch, step.record.root) for step in runner.steps if not step.recalled)
    seeds = {root for _, root in epochs}
    assert len(seeds) == 3
    assert all(epochs[epoch, seed] == 1 for seed in seeds for epoch in range(3)), "once per seed"
    assert all(epochs[epoch, seed] == 4 for seed in seeds for epoch in range(3, 6)), "once per arm"
    assert len(runner.trained) == len(set(runner.trained)), "nothing is trained twice"


def test_features_are_computed_once_per_seed_and_found_by_all_others(ran):
    """Weights that are drawn from the seed give other features under every seed."""
    runner, _ = ran
    found = {step.features.lineage: step.features for step in runner.steps if step.features is not None}
    assert len(found) == 3
    made = [record for record in found.values() if record.kind == "features"]
    assert {record.examples for record in made} == {120}
    spans = Counter(span.category for step in runner.steps for span in step.spans)
    assert spans["features"] == 3


def test_every_trial_is_charged_with_the_features_that_it_uses(ran):
    _, folder = ran
    epochs, trials = pd.read_parquet(folder / "epochs.parquet"), pd.read_parquet(folder / "trials.parquet")
    rows = epochs[epochs["kind"] == "features"]
    assert sorted(rows["trial_id"]) == sorted(trials["trial_id"]), "one row each"
    assert (rows["epoch"] == 0).all()
    assert rows["settings"].isna().all()
    assert rows["lr_first"].isna().all()
    assert (rows["updates"] == 0).all()
    assert (~rows["recalled"]).sum() == 3, "who computed them"
    assert rows.groupby("lineage").size().tolist() == [4, 4, 4], "shared like epochs"
    total = epochs.groupby("trial_id")["device_s"].sum()
    assert trials.set_index("trial_id")["standalone_device_s"].to_dict() == pytest.approx(total.to_dict())
    last = epochs.groupby("trial_id")["cumulative_device_s"].last()
    assert last.to_dict() == pytest.approx(total.to_dict())
    assert (trials["epochs"] == 6).all(), "features are no epoch"
    of_trial = epochs[epochs["trial_id"] == trials["trial_id"][0]]
    assert of_trial["kind"].tolist() == ["features", *["train"] * 6], "before the epoch that uses them first"


def test_a_study_that_is_run_again_trains_and_computes_nothing(ran):
    runner, folder = ran
    before = pd.read_parquet(folder / "trials.parquet").set_index("trial_id")["standalone_device_s"]
    again = Serial(runner.plan, runner.folder)
    again.run()
    assert again.steps == []
    TableWriter(again.admission, folder).write(time.monotonic())
    after = pd.read_parquet(folder / "trials.parquet").set_index("trial_id")["standalone_device_s"]
    assert after.to_dict() == pytest.approx(before.to_dict()), "recalled features cost what they cost"


def test_features_that_were_deleted_are_computed_again_without_a_second_record(ran):
    """A first stage at another rate finds their record, and not them."""
    runner, _ = ran
    root = runner.plan.root(0).name()
    record = next(step.features for step in runner.steps if step.features is not None and step.features.root == root)
    (Path(runner.memo.location) / "states" / record.state).unlink()
    other = study(runner.folder, TEXT.replace("lr: 0.1", "lr: 0.05"), "name=other", "confirm.top=0")
    again = Serial(other.plan()[0], runner.folder)
    again.run()
    told = [step.features for step in again.steps if step.features is not None]
    assert told
    assert all(features == record for features in told)
    assert sum(span.category == "features" for step in again.steps for span in step.spans) == 1
    assert runner.memo.state_of(record) is not None, "they are stored again"
    assert len({step.record.lineage for step in again.steps}) == 3 + 4 * 3


def test_a_plain_loop_over_both_stages_gives_the_same_numbers(ran):
    """What the tables say is enough for it: settings, and that the second stage begins with a new optimizer."""
    runner, folder = ran
    trial = next(trial for trial in runner.admission.trials.values() if trial.arm == "dlr" and trial.phase != "confirm")
    epochs = pd.read_parquet(folder / "epochs.parquet").query("trial_id == @trial.trial_id and kind == 'train'")
    settings = pd.read_parquet(folder / "settings.parquet").set_index("settings")
    part = runner.trainers[0].train_part
    (_, pixels, labels) = next(part.batches(None, [(0, len(part))]))
    images = (pixels.float() - part.mean) * part.scale
    model = build_model("small_cnn", 10, 1, 8, seed_for(0, "init"))
    with torch.no_grad():
        body = nn.Sequential(*[module for name, module in model.module.named_children() if name != "head"]).eval()
        features = body(images).flatten(1)
    named = dict(model.module.named_parameters())
    optimizer = None
    for epoch in range(6):
        applied = settings.loc[epochs["settings"].iloc[epoch]]
        recipe = json.loads(applied["recipe"])
        assert (recipe["input"], recipe["reset_optimizer"]) == (
            ("features", False) if epoch < 3 else ("images", epoch == 3)
        )
        rates = np.reshape(applied["lr"], (applied["updates"], 3))
        if optimizer is None or recipe["reset_optimizer"]:
            groups = [{"params": [named[name] for name in section]} for section in model.sections]
            optimizer = torch.optim.SGD(
                groups[2:] if epoch < 3 else groups, 0.1, 0.9, weight_decay=recipe["weight_decay"]
            )
        model.module.train()
        for update, chosen in enumerate(torch.randperm(80, generator=generator(0, "order", epoch)).split(20)):
            for group, rate in zip(reversed(optimizer.param_groups), reversed(rates[update]), strict=False):
                group["lr"] = rate
            optimizer.zero_grad()
            logits = model.module.head(features[chosen]) if epoch < 3 else model.module(images[chosen])
            nn.functional.cross_entropy(logits, labels[chosen]).backward()
            optimizer.step()
    state = load(runner.memo.state_of(trial.records[-1]))
    for name, tensor in model.module.state_dict().items():
        assert torch.allclose(state[f"model.{name}"], tensor, rtol=1e-4, atol=1e-6), name


def test_trials_that_begin_at_once_wait_for_the_one_that_computes_the_features(tmp_path):
    """Other rates share nothing else. On four slots all would compute them."""
    text = TEXT.replace("lr: 0.1", "lr: {choice: [0.1, 0.2, 0.05, 0.02]}").replace(
        "trials: 1, cohort: 1", "trials: 4, cohort: 4"
    )
    arm = text[text.index("  sgdr:") : text.index("search:")]
    plan = study(tmp_path, text.replace(arm, ""), "confirm.top=0").plan()[0]
    runner = Serial(plan, tmp_path / "runs", slots=4, order=lambda running: running - 1)
    runner.run()
    steps = [(step.record.origin["trial"], [span.category for span in step.spans]) for step in runner.steps]
    assert len({trial for trial, _ in steps}) == 4
    assert sum(categories.count("features") for _, categories in steps) == 1
    before_it_was_told = steps[0]
    assert "features" in before_it_was_told[1]
    assert len({trial for trial, _ in steps[:8]}) > 1, "then they train beside each other"


def test_a_killed_computation_does_not_hold_the_others_back(ran, tmp_path):
    plan = study(
        tmp_path,
        TEXT.replace("lr: 0.1", "lr: {choice: [0.1, 0.2]}").replace("trials: 1, cohort: 1", "trials: 2, cohort: 2"),
    ).plan()[0]
    admission = Serial(plan, tmp_path / "runs").admission
    first = admission.next()
    assert first is not None
    assert admission.next() is None, "whoever needs the same features waits"
    admission.ended(first.trial_id, "failed", "its worker died")
    assert admission.next() is not None


def test_stages_are_priced_by_what_they_train_and_features_by_what_they_cost(ran):
    runner, folder = ran
    admission = runner.admission
    kinds = admission.kinds.to_measure(admission.trials.values())
    assert {(kind.recipe.input, kind.recipe.trainable, kind.recipe.batchnorm) for kind in kinds} == {
        ("features", (False, False, True), "eval"), ("images", (), "train"), ("images", (False, True, True), "frozen"),
    }  # fmt: skip
    calibration.measure(runner.trainers[0], runner.memo, kinds)
    costs = {
        kind.recipe.input + str(kind.recipe.trainable): calibration.update_cost(runner.memo, runner.plan.workload, kind)
        for kind in kinds
    }
    on_features = costs["features(False, False, True)"]
    assert on_features.device_s_per_update > 0
    TableWriter(admission, folder).write_calibration()
    (folder / "study.lock.json").write_text(study_lock.render(runner.plan, (), is_complete=True, versions={}))
    tables = load_tables(folder)
    priced = calibrate(tables)
    assert priced.is_alone
    rows = priced.priced
    of_features, trained = rows[rows["kind"] == "features"], rows[rows["kind"] == "train"]
    assert of_features["calibrated_s"].tolist() == of_features["device_s"].tolist()
    head = trained[trained["epoch"] < 3]["calibrated_s"]
    assert head.to_numpy() == pytest.approx(
        4 * on_features.device_s_per_update + on_features.device_s_per_epoch + on_features.device_s_per_evaluation
    )
    shared = sharing(tables)
    assert shared.total == 3 * (3 + 4 * 3), "features are no epochs"
    (folder / "calibration.parquet").unlink()
    recorded = calibrate(load_tables(folder))
    assert not recorded.is_alone
    assert recorded.priced["calibrated_s"].notna().all()
    rows = recorded.priced[recorded.priced["kind"] == "features"]
    assert rows["calibrated_s"].tolist() == rows["device_s"].tolist()


def test_a_forecast_counts_the_features_once_and_their_epochs_apart(ran, tmp_path):
    runner, _ = ran
    plan = study(tmp_path, TEXT).plan()[0]
    ahead = forecast(plan, Journal(tmp_path / "none"), Memo(tmp_path / "memo"))
    assert (ahead.passes, ahead.asked_passes) == (1, 4), "confirm trials are not known yet"
    efforts = Counter()
    for kind, count in ahead.asked_work.items():
        efforts[kind.effort] += count
    assert efforts == {"features": 12 * 3, "all": 9 * 3, "some": 3 * 3}
    recorded = forecast(plan, runner.journal, runner.memo)
    assert recorded.passes == 0
