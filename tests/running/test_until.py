"""Training until a target: a trial ends where it is reached, shares its training all the same, and is never trained further."""

from __future__ import annotations

import random

import pyarrow.parquet as pq
import pytest

from lrstudy.memo.memo import Memo
from lrstudy.running.tables import TableWriter
from serial import Serial, study

pytestmark = pytest.mark.slow

TARGET = 0.6
STUDY = f"""
lrstudy: 1
name: small
workload: {{data: digits, subset: 120, split: {{test: 0.5, validation: 40}}, model: small_cnn}}
budget: {{epochs: 6, until: {{accuracy: {TARGET}}}}}
common: {{lr: {{ordered: [0.001, 0.05, 0.1], default: 0.05}}, batch_size: 10}}
arms:
  stops: {{policy: constant}}
  goes_on: {{policy: constant, until: none}}
  plateau: {{patience: 0, threshold: 0.3, metric: val_accuracy, factor: 0.5, until: {{accuracy: 0.7}}}}
search: {{method: grid, trials: 3, cohort: 1}}
confirm: {{top: 1, seeds: 2}}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return study(tmp_path_factory.mktemp("until"), STUDY).plan()[0]


@pytest.fixture(scope="module")
def ran(plan, tmp_path_factory):
    runner = Serial(plan, tmp_path_factory.mktemp("ran"), slots=2)
    runner.run()
    return runner


def values(trial, metric="accuracy"):
    return [record.metrics[f"val_{metric}"] for record in trial.records]


def of_arm(runner, arm):
    return [trial for trial in runner.admission.trials.values() if trial.arm == arm]


def outcome(runner):
    return {t.trial_id: (t.status, t.chain, values(t), t.test) for t in runner.admission.trials.values()}


def test_a_trial_ends_with_the_first_epoch_that_reaches_the_target(ran):
    ended_early = 0
    for trial in (t for arm in ("stops", "plateau") for t in of_arm(ran, arm)):
        target = trial.spec.until.value
        assert trial.status == "completed"
        assert all(value < target for value in values(trial)[:-1])
        reached = values(trial)[-1] >= target
        assert reached or len(trial.records) == 6
        assert trial.chain == [record.lineage for record in trial.records], "nobody plans epochs that will not come"
        ended_early += reached
    assert 5 <= ended_early < 10, "some reach it, and one never does"


def test_an_arm_without_a_target_trains_the_whole_budget_and_shares_what_the_others_trained(ran):
    assert {len(trial.records) for trial in of_arm(ran, "goes_on")} == {6}
    for stopped, whole in zip(of_arm(ran, "stops"), of_arm(ran, "goes_on"), strict=True):
        assert whole.chain[: len(stopped.chain)] == stopped.chain, "the target is in no name"
    assert len(ran.trained) == len(set(ran.trained)), "a state was trained twice"
    assert not any(span.category == "recompute" for step in ran.steps for span in step.spans), (
        "it goes on from their ends"
    )


def test_the_state_at_the_target_is_stored_and_is_the_one_that_is_tested(ran):
    memo = Memo(ran.memo.location)
    for trial in of_arm(ran, "stops"):
        assert memo.state_of(trial.records[-1]) is not None
        assert trial.selected in (None, len(trial.records) - 1)
    confirmed = [trial for trial in of_arm(ran, "stops") if trial.phase == "confirm"]
    assert [trial.test is not None for trial in confirmed] == [True, True]
    other = {t.seed: t.test for t in of_arm(ran, "goes_on") if t.phase == "confirm"}
    assert all(trial.test["loss"] != other[trial.seed]["loss"] for trial in confirmed)


def test_a_large_state_is_stored_before_the_record_that_ends_the_trial(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("lrstudy.memo.state_writer.SMALL_STATE_BYTES", 0)
    runner = Serial(plan, tmp_path)
    runner.run()
    ends = [t.records[-1] for t in of_arm(runner, "stops") if t.records[-1].origin["trial"] == t.trial_id]
    assert all(record.state is not None for record in ends)


@pytest.mark.parametrize("seed", [0, 1])
def test_order_slots_and_kills_change_nothing(plan, ran, tmp_path, seed):
    pick = random.Random(seed)
    killed = Serial(plan, tmp_path, 3, lambda n: pick.randrange(n))
    killed.run(stop_after=7 + 6 * seed)
    again = Serial(plan, tmp_path, 2, lambda n: pick.randrange(n))
    again.run()
    assert outcome(again) == outcome(ran)
    assert sorted(killed.trained + again.trained) == sorted(ran.trained)


def test_a_second_run_recalls_everything(plan, ran):
    again = Serial(plan, ran.folder)
    again.run()
    assert again.trained == []
    assert outcome(again) == outcome(ran)


def test_the_table_says_when_the_target_was_reached_and_at_what_cost(ran, tmp_path):
    TableWriter(ran.admission, tmp_path).write(0.0)
    rows = {row["trial_id"]: row for row in pq.read_table(tmp_path / "trials.parquet").to_pylist()}
    for trial in ran.admission.trials.values():
        row, until = rows[trial.trial_id], trial.spec.until
        if until is None or values(trial)[-1] < until.value:
            assert [row["reached_epoch"], row["reached_s"], row["reached_device_s"]] == [None] * 3
            assert row["until_value"] == (until and until.value)
            continue
        assert (row["until_metric"], row["until_value"]) == ("accuracy", until.value)
        assert row["reached_epoch"] == row["epochs"] - 1
        assert row["reached_device_s"] == row["standalone_device_s"]
        seconds = sum(record.train_s + record.eval_s + record.state_s for record in trial.records)
        assert row["reached_s"] == pytest.approx(seconds, rel=1e-9)
    assert rows["stops-grid-1-0"]["reached_epoch"] is None, "the lowest rate never gets there: censored"
