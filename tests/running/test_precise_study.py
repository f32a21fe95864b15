"""A study whose evaluations recompute BatchNorm's statistics: trained alike, judged by other values, under other names."""

from __future__ import annotations

import time

import pyarrow.parquet as pq
import pytest

from lrstudy.memo import state_writer
from lrstudy.running.tables import TableWriter
from serial import SMALL, Serial, study

pytestmark = pytest.mark.slow

BRIEF = ("arms=[constant]", "search.trials=1", "search.cohort=1", "confirm.seeds=1")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same study with running and with precise statistics, in one storage."""
    storage = tmp_path_factory.mktemp("both")
    found = {}
    for kind in ("running", "precise"):
        ran = Serial(study(storage, SMALL, *BRIEF, f"workload.batchnorm={kind}").plan()[0], storage / kind)
        ran.run()
        TableWriter(ran.admission, storage / kind).write(time.monotonic())
        found[kind] = (ran, pq.read_table(storage / kind / "trials.parquet").to_pylist())
    return found


def test_training_is_the_same_and_evaluation_is_not(both):
    (running, _), (precise, _) = both["running"], both["precise"]
    for trial_id, trial in running.admission.trials.items():
        for one, other in zip(trial.records, precise.admission.trials[trial_id].records, strict=True):
            assert one.lineage != other.lineage, "another evaluation is another record"
            assert one.state == other.state, "training goes on with its own statistics"
            assert one.metrics["train_loss"] == other.metrics["train_loss"]
            assert one.metrics["val_loss"] != other.metrics["val_loss"]


def test_confirm_trials_are_tested_with_both_statistics(both):
    values = {}
    for kind, (_, trials) in both.items():
        for trial in trials:
            assert (trial["test_metric_precise"] is None) == (trial["phase"] != "confirm")
            assert trial[f"test_metric_{kind}"] == trial["test_metric"]
            values[kind, trial["trial_id"]] = (trial["test_metric_running"], trial["test_metric_precise"])
    assert all(values["running", name] == pair for (kind, name), pair in values.items() if kind == "precise")
    assert any(running != precise for running, precise in values.values())


def test_precise_statistics_are_the_same_when_an_epoch_is_trained_again(both, tmp_path, monkeypatch):
    monkeypatch.setattr(state_writer, "SMALL_STATE_BYTES", 0)
    monkeypatch.setattr(state_writer, "STATE_EVERY", 1e9)
    plan = both["precise"][0].plan
    Serial(plan, tmp_path).run(stop_after=3)  # only the first state is stored
    again = Serial(plan, tmp_path)
    again.run()
    assert any(span.category == "recompute" for step in again.steps for span in step.spans)
    assert {t.trial_id: t.test for t in again.admission.trials.values()} == {
        t.trial_id: t.test for t in both["precise"][0].admission.trials.values()
    }
