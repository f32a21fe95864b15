from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lrstudy.errors import StorageError
from lrstudy.running import tables as tables_module
from lrstudy.running.epoch_tables import EpochTables
from lrstudy.running.tables import TableWriter
from lrstudy.study_folder import predictions
from lrstudy.study_folder.ledger import CATEGORIES
from lrstudy.study_folder.schemas import EPOCHS, LEDGER, PREDICTIONS, SETTINGS, SPLIT, TRIALS
from lrstudy.training.epoch import evaluate
from lrstudy.training.trainer import Trainer
from serial import Serial, study

pytestmark = pytest.mark.slow

STUDY = """
lrstudy: 1
name: small
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}, model: small_cnn}
budget: {epochs: 3}
common: {lr: {log: [1e-2, 1], steps: 7}, batch_size: 20}
arms:
  constant:
  same: {policy: constant}
  step: {milestones: {choice: [[1], [1, 2]]}}
  batch_increase: {cap: {choice: [30, null]}}
search: {method: random, trials: 3, cohort: 2}
confirm: {top: 1, seeds: 2}
"""
SCHEMAS = {
    "trials": TRIALS,
    "epochs": EPOCHS,
    "settings": SETTINGS,
    "ledger": LEDGER,
    "predictions": PREDICTIONS,
    "split": SPLIT,
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A study that was run to its end with tables written after every epoch, as a driver does; three trials at a time."""
    storage = tmp_path_factory.mktemp("views")
    plan = study(storage, STUDY).plan()[0]
    runner = Serial(plan, storage, slots=3)
    folder = runner.journal.folder.parent
    begin = time.monotonic()
    runner.journal.write("slots", count=1, start=begin - 1, share=0.5, device="cpu", host="h")
    writer, states, noted = TableWriter(runner.admission, folder), [], 0

    def order(count: int) -> int:
        nonlocal noted
        report(runner, noted)
        noted = len(runner.steps)
        writer.write(time.monotonic())
        states.append({name: pq.read_table(folder / f"{name}.parquet") for name in SCHEMAS})
        return count - 1

    runner.order = order
    admission = runner.run()
    report(runner, noted)
    runner.journal.write("end", at=time.monotonic())
    for trial in admission.trials.values():
        if trial.phase == "confirm":
            predict(folder, trial.trial_id, trial.arm)
    as_before(folder / "predictions" / "same-confirm-1-1000.parquet")
    predict(folder, "constant-confirm-9-1000", "constant")  # of a trial that is not in this study any more
    writer.write(time.monotonic())
    return SimpleNamespace(plan=plan, storage=storage, folder=folder, admission=admission, writer=writer, states=states)


def report(runner: Serial, noted: int) -> None:
    """Note the spans of new steps as a worker's report."""
    spans = [list(span) for step in runner.steps[noted:] for span in step.spans]
    if spans:
        runner.journal.write("spans", worker="w", host="h", slot=0, spans=spans)


def predict(folder: Path, trial_id: str, arm: str) -> None:
    logits = np.arange(6, dtype=np.float32).reshape(3, 2) + len(trial_id)
    predictions.write(folder, trial_id, arm, np.array([4, 7, 1]), np.array([0, 1, 1]), logits, classes=("no", "yes"))


def as_before(path: Path) -> None:
    """Leave the columns that the first version wrote."""
    pq.write_table(pq.read_table(path, columns=PREDICTIONS.names[:7]), path)


def table(ran, name):
    return pq.read_table(ran.folder / f"{name}.parquet")


def rows(ran, name):
    return table(ran, name).to_pylist()


def epochs_of(ran):
    """Rows of the epochs table by trial."""
    found: dict[str, list] = {}
    for row in rows(ran, "epochs"):
        found.setdefault(row["trial_id"], []).append(row)
    return found


# Shape


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_table_has_its_columns_first_and_typed(ran, name):
    found = table(ran, name)
    assert found.num_rows > 0
    assert found.schema.names[: len(SCHEMAS[name])] == SCHEMAS[name].names
    assert [found.schema.field(field.name).type for field in SCHEMAS[name]] == [field.type for field in SCHEMAS[name]]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_table_says_which_versions_wrote_it(ran, name):
    metadata = {key.decode(): value.decode() for key, value in table(ran, name).schema.metadata.items()}
    assert metadata["lrstudy_schema"] == "1"
    assert metadata["pyarrow"] == pa.__version__
    assert {"lrstudy", "python", "torch", "torchvision", "ray", "numpy"} <= metadata.keys()


@pytest.mark.parametrize("name", SCHEMAS)
def test_tables_have_all_columns_before_anything_has_been_trained(ran, name):
    first = ran.states[0][name]
    assert first.schema.names[: len(SCHEMAS[name])] == SCHEMAS[name].names
    assert ran.states[0]["epochs"].num_rows == 0


def test_there_is_one_row_per_trial_and_one_per_trial_and_epoch(ran):
    ids = table(ran, "trials")["trial_id"].to_pylist()
    assert sorted(ids) == sorted(ran.admission.trials)
    assert len(ids) == len(set(ids)) == 4 * 3 + 4 * 2
    assert {trial_id: [row["epoch"] for row in found] for trial_id, found in epochs_of(ran).items()} == {
        trial_id: [0, 1, 2] for trial_id in ids
    }


def test_no_temporary_file_is_left(ran):
    assert sorted(path.name for path in ran.folder.iterdir()) == sorted(
        ["journal", "predictions", *(f"{name}.parquet" for name in SCHEMAS), "range_tests.parquet"]
    )


# Trials


def test_a_trial_row_sums_its_epochs(ran):
    by_trial = epochs_of(ran)
    for trial in rows(ran, "trials"):
        epochs = by_trial[trial["trial_id"]]
        values = [epoch["val_metric"] for epoch in epochs]
        assert trial["epochs"] == 3
        assert trial["lineage"] == epochs[-1]["lineage"]
        assert trial["final_val_metric"] == values[-1]
        assert trial["final_val_loss"] == epochs[-1]["val_loss"]
        assert trial["best_val_metric"] == max(values)
        assert trial["best_epoch"] == values.index(max(values))
        assert trial["updates"] == sum(epoch["updates"] for epoch in epochs)
        assert trial["examples"] == sum(epoch["examples"] for epoch in epochs)
        assert (trial["selected_epoch"], trial["selected_lineage"]) == (2, trial["lineage"])
        assert trial["selected_val_metric"] == trial["final_val_metric"]
        assert trial["rank"] == (1 if trial["phase"] == "confirm" else None)
        assert trial["recalled_epochs"] == sum(epoch["recalled"] for epoch in epochs)
        assert trial["ended_at"] >= trial["started_at"] > 0


def test_the_trial_id_is_made_of_arm_searcher_index_and_seed(ran):
    for trial in rows(ran, "trials"):
        if trial["phase"] == "confirm":
            assert trial["trial_id"] == f"{trial['arm']}-confirm-1-{trial['seed']}"
        else:
            assert trial["trial_id"] == f"{trial['arm']}-random-{trial['index']}-{trial['seed']}"
            assert trial["phase"] == ("cohort" if trial["index"] < 2 else "tune")


def test_only_confirm_trials_have_test_metrics(ran):
    for trial in rows(ran, "trials"):
        is_confirm = trial["phase"] == "confirm"
        names = [f"{part}_{name}" for part in ("test", "train") for name in ("loss", "metric", "accuracy")]
        assert all((trial[name] is not None) == is_confirm for name in names)


def test_the_training_part_is_evaluated_with_the_tested_state(ran):
    trainer = Trainer(ran.plan.workload)
    trial = next(trial for trial in rows(ran, "trials") if trial["trial_id"] == "step-confirm-1-1001")
    record = ran.admission.trials[trial["trial_id"]].records[trial["selected_epoch"]]
    trainer.restore(ran.admission.memo.state_of(record))
    part = trainer.train_part
    found = evaluate(trainer.state, part, "multiclass", keep_logits=True)
    assert trial["train_accuracy"] == float((found.logits.argmax(1) == part.labels).double().mean())
    assert trial["train_metric"] == trial["train_accuracy"] == found.metrics["accuracy"]
    assert (trial["train_loss"], trial["train_f1"]) == (found.loss, found.metrics["f1"])


def test_an_epoch_shows_what_training_counted_and_one_of_an_earlier_version_nothing(ran):
    found = rows(ran, "epochs")
    counts = [row["train_accuracy"] * ran.plan.workload.counts[0] for row in found]
    assert counts == pytest.approx([round(count) for count in counts], abs=1e-9)
    assert len(set(counts)) > 3
    trial = ran.admission.trials["step-confirm-1-1001"]
    before = [replace(r, metrics={k: v for k, v in r.metrics.items() if k != "train_accuracy"}) for r in trial.records]
    earlier = replace(trial, records=before)
    table = EpochTables(ran.plan).epochs([earlier])
    assert table["train_accuracy"].to_pylist() == [None] * 3
    assert table["val_accuracy"].null_count == 0


def test_numeric_parameters_are_numbers_and_mixed_ones_are_text(ran):
    found = table(ran, "trials")
    assert found.schema.field("p_lr").type == pa.float64()
    assert found.schema.field("p_batch_size").type == pa.float64()
    assert found.schema.field("p_cap").type == pa.string()
    assert found.schema.field("p_milestones").type == pa.string()
    shown = {trial["trial_id"]: trial for trial in found.to_pylist()}
    for trial_id, trial in ran.admission.trials.items():
        assert json.loads(shown[trial_id]["configuration"]) == trial.configuration
        for name, value in trial.configuration.items():
            column = shown[trial_id][f"p_{name}"]
            assert (json.loads(column) if isinstance(column, str) and not isinstance(value, str) else column) == value
    of_arm = {arm: {t["p_cap"] for t in shown.values() if t["arm"] == arm} for arm in ("constant", "batch_increase")}
    assert of_arm == {"constant": {None}, "batch_increase": {"30", "null"}}


def test_the_selected_epoch_is_the_one_that_the_study_selects(tmp_path):
    brief = ("arms=[constant]", "search.trials=1", "search.cohort=1", "common.lr=1.0", "select=best", "budget.epochs=4")
    plan = study(tmp_path, STUDY, *brief).plan()[0]
    runner = Serial(plan, tmp_path)
    TableWriter(runner.admission, tmp_path).write(0.0)
    admission = runner.run()
    TableWriter(admission, tmp_path).write(time.monotonic())
    found = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert any(trial["selected_epoch"] < 3 for trial in found), "not the study that this test needs"
    for trial in found:
        chain = admission.trials[trial["trial_id"]].chain
        assert (trial["selected_epoch"], trial["selected_val_metric"]) == (
            trial["best_epoch"],
            trial["best_val_metric"],
        )
        assert trial["selected_lineage"] == chain[trial["selected_epoch"]]
        assert trial["lineage"] == chain[-1]


def test_a_running_trial_shows_what_it_has_so_far(ran):
    seen = {
        (trial["status"], trial["epochs"])
        for state in ran.states
        for trial in state["trials"].to_pylist()
        if trial["status"] != "completed"
    }
    assert {("running", 0), ("running", 1), ("running", 2)} <= seen
    for state in ran.states:
        counts = {trial["trial_id"]: trial["epochs"] for trial in state["trials"].to_pylist()}
        ids = state["epochs"]["trial_id"].to_pylist()
        assert {trial_id: ids.count(trial_id) for trial_id in counts} == counts


# Epochs: lineage, settings, cost


def test_a_trials_epochs_form_a_chain(ran):
    for epochs in epochs_of(ran).values():
        assert all(after["parent"] == before["lineage"] for before, after in pairwise(epochs))


def test_the_settings_table_reproduces_every_name(ran):
    """The hash chain of DESIGN.md, worked from the tables alone."""
    canonical = {}
    for row in rows(ran, "settings"):
        scalars = {
            "batch_size": row["batch_size"],
            "shape": [row["updates"], row["sections"]],
            **json.loads(row["recipe"]),
        }
        arrays = np.array(row["lr"], "<f8").tobytes() + np.array(row["momentum"], "<f8").tobytes()
        canonical[row["settings"]] = (
            json.dumps(scalars, sort_keys=True, separators=(",", ":")).encode() + b"\n" + arrays
        )
    assert all(blake2b(data, digest_size=16).hexdigest() == name for name, data in canonical.items())
    by_trial = epochs_of(ran)
    assert {row["settings"] for epochs in by_trial.values() for row in epochs} == canonical.keys()
    for epochs in by_trial.values():
        name = epochs[0]["parent"]
        for row in epochs:
            digest = blake2b(digest_size=16, person=b"lrstudy-lineage1")
            for part in (bytes.fromhex(name), canonical[row["settings"]]):
                digest.update(len(part).to_bytes(8, "little") + part)
            name = digest.hexdigest()
            assert row["lineage"] == name


def test_epochs_that_share_a_lineage_share_everything_that_was_measured(ran):
    seen: dict[str, dict] = {}
    own = {"trial_id", "arm", "recalled"}
    for row in rows(ran, "epochs"):
        facts = {key: value for key, value in row.items() if key not in own}
        assert seen.setdefault(row["lineage"], facts) == facts


def test_the_rates_of_an_epoch_are_those_of_the_head_in_the_settings_table(ran):
    settings = {row["settings"]: row for row in rows(ran, "settings")}
    for row in rows(ran, "epochs"):
        applied = settings[row["settings"]]
        head = np.array(applied["lr"]).reshape(applied["updates"], applied["sections"])[:, -1]
        assert (row["lr_first"], row["lr_last"]) == (head[0], head[-1])
        assert (row["lr_min"], row["lr_max"]) == (head.min(), head.max())
        assert row["momentum"] == pytest.approx(np.mean(applied["momentum"]), rel=1e-12)  # summed in another order
        assert (row["batch_size"], row["updates"]) == (applied["batch_size"], applied["updates"])


def test_costs_accumulate_over_a_trial_to_its_stand_alone_cost(ran):
    trials = {trial["trial_id"]: trial for trial in rows(ran, "trials")}
    for trial_id, epochs in epochs_of(ran).items():
        total = 0.0
        for row in epochs:
            parts = row["train_s"] + row["eval_s"] + row["state_s"]
            assert row["device_s"] == pytest.approx(row["device_share"] * parts, rel=1e-12)
            total += row["device_s"]
            assert row["cumulative_device_s"] == pytest.approx(total, rel=1e-12)
        assert trials[trial_id]["standalone_device_s"] == pytest.approx(total, rel=1e-12)


def test_a_shared_epoch_was_trained_once_and_recalled_everywhere_else(ran):
    flags: dict[str, list[bool]] = {}
    for row in rows(ran, "epochs"):
        flags.setdefault(row["lineage"], []).append(row["recalled"])
    assert all(sorted(found) == [False] + [True] * (len(found) - 1) for found in flags.values())
    assert any(len(found) > 1 for found in flags.values())


def test_spent_is_what_the_ledger_says_and_nothing_for_what_was_only_recalled(ran):
    costs = ("data", "train", "evaluate", "range_test", "features", "state", "recompute", "waiting")
    paid: dict[str, float] = {}
    for line in rows(ran, "ledger"):
        if line["category"] in costs:
            paid[line["trial_id"]] = paid.get(line["trial_id"], 0.0) + 0.5 * line["duration_s"]
    trials = rows(ran, "trials")
    for trial in trials:
        assert trial["spent_device_s"] == pytest.approx(paid.get(trial["trial_id"], 0.0), rel=1e-9)
        assert (trial["spent_device_s"] > 0) == (trial["recalled_epochs"] < 3)
        assert trial["standalone_device_s"] > 0
    assert any(trial["recalled_epochs"] == 3 for trial in trials)


# Ledger


def test_the_ledger_accounts_for_every_second_of_the_slot(ran):
    lines = rows(ran, "ledger")
    (slots,) = ran.admission.journal.of_kind("slots")
    (end,) = ran.admission.journal.of_kind("end")
    assert sum(line["duration_s"] for line in lines) == pytest.approx(end["at"] - slots["start"], abs=1e-6)
    assert lines[0]["start"] == 0
    assert {line["category"] for line in lines} <= set(CATEGORIES)
    assert {(line["run"], line["host"], line["device"], line["share"]) for line in lines} == {(1, "h", "cpu:0", 0.5)}
    at = 0.0
    for line in lines:
        assert line["start"] == pytest.approx(at, abs=1e-6)
        at = line["start"] + line["duration_s"]


# Predictions


def test_predictions_of_confirm_trials_are_gathered_and_those_of_others_left_out(ran):
    found = rows(ran, "predictions")
    confirmed = {t["trial_id"]: t["arm"] for t in rows(ran, "trials") if t["phase"] == "confirm"}
    assert {(row["trial_id"], row["arm"]) for row in found} == set(confirmed.items())
    (first, *_) = [row for row in found if row["trial_id"] == "step-confirm-1-1000"]
    assert first == {
        "trial_id": "step-confirm-1-1000",
        "arm": "step",
        "example": 4,
        "group": "",
        "label": 0,
        "labels": None,
        "scores": [19.0, 20.0],
        "probabilities": pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)]),
        "source": None,
        "label_name": "no",
    }


def test_predictions_that_an_earlier_version_wrote_are_gathered_too(ran):
    found = [row for row in rows(ran, "predictions") if row["trial_id"] == "same-confirm-1-1000"]
    assert [row["example"] for row in found] == [4, 7, 1]
    assert {row[name] for row in found for name in ("probabilities", "source", "label_name")} == {None}


def test_tables_with_labels_name_the_classes(ran):
    for name in ("predictions", "split"):
        classes = table(ran, name).schema.metadata[b"lrstudy_classes"]
        assert json.loads(classes) == [str(k) for k in range(10)], name


def test_the_split_is_a_table(ran):
    found = rows(ran, "split")
    counts = {part: sum(row["part"] == part for row in found) for part in ("train", "validation", "test")}
    assert tuple(counts.values()) == ran.plan.workload.counts


def test_trials_say_what_the_workload_and_the_arm_trained_with(ran):
    for row in rows(ran, "trials"):
        assert (row["optimizer"], row["augmentation"], row["class_weights"]) == ("sgd", "none", None)


def test_predictions_are_replaced_whole(tmp_path):
    predict(tmp_path, "t", "a")
    predictions.write(tmp_path, "t", "a", np.array([9]), np.array([1]), np.ones((1, 3), np.float32))
    found = pq.read_table(tmp_path / "predictions" / "t.parquet")
    assert found.schema.remove_metadata() == PREDICTIONS
    (row,) = found.to_pylist()
    assert (row["example"], row["label"], row["scores"]) == (9, 1, [1.0, 1.0, 1.0])
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["t.parquet"]


def test_predictions_that_cannot_be_written_are_a_storage_error_and_leave_no_file(tmp_path, monkeypatch):
    predict(tmp_path, "kept", "a")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"storage\.path: cannot write the predictions .* No space left on device"):
        predict(tmp_path, "t", "a")
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["kept.parquet"]


# Writing


def contents(folder):
    """The bytes of all tables: what decides whether a report is built anew."""
    return {name: (folder / f"{name}.parquet").read_bytes() for name in SCHEMAS}


def copied(ran, folder):
    """An empty folder with the predictions of the study that ran."""
    (folder / "predictions").mkdir(parents=True)
    for path in (ran.folder / "predictions").iterdir():
        (folder / "predictions" / path.name).write_bytes(path.read_bytes())
    return folder


def test_tables_written_along_the_way_are_those_written_once_at_the_end(ran, tmp_path):
    TableWriter(ran.admission, copied(ran, tmp_path)).write(time.monotonic())
    assert contents(tmp_path) == contents(ran.folder)


def test_tables_are_rebuilt_identically_from_journal_and_memo(ran, tmp_path):
    fresh = Serial(ran.plan, ran.storage)
    fresh.run()
    assert fresh.trained == []
    TableWriter(fresh.admission, copied(ran, tmp_path)).write(time.monotonic())
    assert contents(tmp_path) == contents(ran.folder)


def full(*arguments, **options):
    raise OSError(28, os.strerror(28))


def test_a_full_disk_is_one_clear_paragraph_and_the_tables_before_stay(ran, tmp_path, monkeypatch):
    TableWriter(ran.admission, tmp_path).write(time.monotonic())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def torn(found, where, **options):
        where.write_bytes(b"PAR1")
        full()

    monkeypatch.setattr(tables_module.pq, "write_table", torn)
    with pytest.raises(
        StorageError, match=r"^storage\.path: cannot write .*trials\.parquet: .*the same command again\.$"
    ):
        TableWriter(ran.admission, tmp_path).write(time.monotonic())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_killed_driver_left_half_written_goes_with_the_next_tables(ran, tmp_path):
    (tmp_path / ".trials.parquet.fresh").write_bytes(b"PAR1")
    TableWriter(ran.admission, tmp_path).write(time.monotonic())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.parquet" for name in (*SCHEMAS, "range_tests")
    )


def test_a_refresh_waits_until_it_is_a_small_part_of_the_time(ran, tmp_path):
    writer = TableWriter(ran.admission, tmp_path)
    writer.refresh(time.monotonic())
    assert (tmp_path / "trials.parquet").exists()
    (tmp_path / "trials.parquet").unlink()
    writer._cost_s = 1000.0
    writer.refresh(time.monotonic())
    assert not (tmp_path / "trials.parquet").exists()
    writer._cost_s = 0.0
    writer.refresh(time.monotonic())
    assert (tmp_path / "trials.parquet").exists()


def test_settings_that_a_policy_does_not_give_are_not_passed_off_as_applied(ran, tmp_path):
    from dataclasses import replace

    trial = next(t for t in ran.admission.trials.values() if t.arm == "step")
    wrong = replace(trial, records=[replace(trial.records[0], settings="0" * 32)])
    admission = SimpleNamespace(
        trials={"t": wrong}, plan=ran.plan, journal=ran.admission.journal, memo=ran.admission.memo
    )
    with pytest.raises(RuntimeError, match=f"epoch 0 of {trial.trial_id} was trained with other settings"):
        TableWriter(admission, tmp_path).write(time.monotonic())
