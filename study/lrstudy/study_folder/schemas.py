"""The columns of a study's tables: trials, epochs, settings, ledger, calibration, range tests, predictions, split; docs/tables.md has them.

Columns may be added; their meaning never changes. Files hold names and types; units and meanings stand here alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Column:
    """One column of a table; `unit` is empty where its values have none."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str


@dataclass(frozen=True)
class TableDescription:
    """A table: what a row of it is, and its columns in their order.

    `patterns` stand for the columns that depend on the study, such as ``p_<name>``; in the file they come last.
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    patterns: tuple[Column, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """The columns that every such table has, for Arrow."""
        return pa.schema([(column.name, column.type) for column in self.columns])


_TEXT, _FLAG, _INT32, _INT64, _FLOAT = pa.string(), pa.bool_(), pa.int32(), pa.int64(), pa.float64()
_DEVICE_S = "device-seconds"
_LABEL_NAME = "name of its class; names joined by `|` where an example may have several"
_SOURCE = (
    "its file, or its row in the source; null where the data was decoded by a version that did not keep it, until it is "
    "decoded anew"
)

_TRIALS = TableDescription(
    "trials",
    "trial",
    (
        Column("trial_id", _TEXT, "",
               "`<arm>-<searcher>-<index>-<seed>`; of a confirm trial `<arm>-confirm-<rank>-<seed>`, ranks from 1; of an "
               "arm's later searches `<searcher>.<repeat>` and `confirm.<repeat>`"),
        Column("arm", _TEXT, "", "the arm's name; one that has changed since an earlier run is `<name>@2`, `@3`, ..."),
        Column("workload", _TEXT, "", "the study's workload: its name in `workloads`; of a file without such a map its model, as the file names it"),
        Column("policy", _TEXT, "", "the arm's policy: a name, or a reference such as `./mine.py:knee`"),
        Column("searcher", _TEXT, "",
               "the searcher that the trial counts for; of a confirm trial the study's first, which chose it"),
        Column("phase", _TEXT, "", "`cohort`, `tune` or `confirm`"),
        Column("index", _INT32, "",
               "which suggestion of its arm and searcher the configuration is, from 0; likewise of a confirm trial"),
        Column("configuration", _TEXT, "", "JSON: every active parameter with its value, the fixed ones too"),
        Column("seed", _INT64, "",
               "seed of weights, order, augmentation and dropout; confirm trials have 1000, 1001, ..."),
        Column("status", _TEXT, "", "`running`, `completed`, `diverged`, `failed` or `interrupted`"),
        Column("error", _TEXT, "", "why it failed or diverged, if a worker of this run said so; else empty"),
        Column("epochs", _INT32, "epochs", "how many it has so far, recalled ones included"),
        Column("lineage", _TEXT, "", "name of its last state; empty before the first epoch"),
        Column("final_val_loss", _FLOAT, "",
               "mean validation loss per example after its last epoch; null if it is not finite"),
        Column("final_val_metric", _FLOAT, "", "the study's metric on the validation part after its last epoch"),
        Column("best_val_metric", _FLOAT, "", "the highest value of that metric after any of its epochs"),
        Column("best_epoch", _INT32, "", "the first epoch, from 0, with that value"),
        Column("test_loss", _FLOAT, "",
               "mean loss per example on the test part after the selected epoch; of completed confirm trials, else null"),
        Column("test_metric", _FLOAT, "", "the study's metric on the test part, likewise"),
        Column("updates", _INT64, "updates", "updates of all its epochs"),
        Column("examples", _INT64, "examples", "examples trained on in all its epochs, counted each time"),
        Column("standalone_device_s", _FLOAT, _DEVICE_S,
               "what this training costs whoever adopts it: `device_s` of all its epochs and of the features that it uses, "
               "recalled ones and those after the selected one included"),
        Column("spent_device_s", _FLOAT, _DEVICE_S,
               "what this study paid for it in all its runs: `data`, `train`, `evaluate`, `features`, `state`, `recompute` "
               "and `waiting` under it in the ledger; recalled epochs cost nothing"),
        Column("recalled_epochs", _INT32, "epochs",
               "those that were trained for another trial, of this study or any other"),
        Column("started_at", _FLOAT, "s, Unix time",
               "when it was last handed to a worker; of one that is wholly recalled, when that was found"),
        Column("ended_at", _FLOAT, "s, Unix time", "when it ended; null while it runs"),
        Column("optimizer", _TEXT, "", "the optimizer; its constants are in settings.parquet (`recipe`)"),
        Column("augmentation", _TEXT, "",
               "`none`, `flip`, `crop_flip`, a list of transforms as JSON, or `mine.py:augment`, a function of the user's"),
        Column("class_weights", pa.list_(_FLOAT), "", "weight of each class in the loss; null without weights"),
        Column("proposed_by", _TEXT, "",
               "where the configuration comes from: `cohort`; `default`, the cohort's point with every parameter at its "
               "default; `model`, of the searcher's results; `grid`; or `random`, also of a searcher that has no model "
               "yet or whose model proposes only what is known. Likewise of a confirm trial"),
        Column("repeat", _INT32, "",
               "which of the arm's searches by this searcher it belongs to, from 0; of a confirm trial the one that "
               "chose its configuration"),
        Column("rank", _INT32, "",
               "of a confirm trial, the place of its configuration among those of its arm when they were chosen, from 1, "
               "the best on validation; else null"),
        Column("selected_epoch", _INT32, "",
               "the epoch, from 0, that `select` in the study file chooses: the last one, the end of the last completed "
               "cycle, or `best_epoch`; null unless the trial is completed"),
        Column("selected_lineage", _TEXT, "", "name of the state after that epoch, which the test columns tell of"),
        Column("selected_val_metric", _FLOAT, "",
               "the study's metric on the validation part after that epoch, by which configurations are chosen"),
        Column("test_metric_running", _FLOAT, "",
               "`test_metric` with the running statistics that BatchNorm has from training; null without BatchNorm"),
        Column("test_metric_precise", _FLOAT, "",
               "`test_metric` with BatchNorm's statistics recomputed over the training part; likewise. One of the two is "
               "`test_metric`, as `batchnorm` in the study file says"),
        Column("until_metric", _TEXT, "",
               "the metric that ends the training once it is reached, as `until` in the study file says; null without"),
        Column("until_value", _FLOAT, "", "the value on the validation part that has to be reached; likewise"),
        Column("reached_epoch", _INT32, "",
               "the epoch, from 0, that reached it, which is the trial's last; null if none has: of a trial that has ended, "
               "its time to the target is then censored at its end"),
        Column("reached_s", _FLOAT, "s", "wall time to it: `train_s`, `eval_s` and `state_s` of all epochs; likewise"),
        Column("reached_device_s", _FLOAT, _DEVICE_S, "what it cost to get there, stand-alone; likewise"),
        Column("train_loss", _FLOAT, "",
               "mean loss per example on the training part, of the same state as `test_loss` and evaluated alike: without "
               "augmentation, dropout and class weights; null where an earlier version tested the trial"),
        Column("train_metric", _FLOAT, "", "the study's metric on the training part, likewise"),
    ),
    (
        Column("p_<name>", _FLOAT, "the parameter's",
               "a parameter of the configuration, a column each; if not all its values are numbers, strings (JSON of "
               "what is none); null where it is inactive or the arm has no such parameter"),
        Column("test_<metric>", _FLOAT, "",
               "each metric of the task on the test part, as `test_metric`; there once a test part has been read"),
        Column("train_<metric>", _FLOAT, "", "each metric of the task on the training part, as `train_metric`; likewise"),
    ),
)  # fmt: skip

_EPOCHS = TableDescription(
    "epochs",
    "trial and epoch",
    (
        Column("trial_id", _TEXT, "", "the trial"),
        Column("arm", _TEXT, "", "the trial's arm"),
        Column("epoch", _INT32, "", "number of the epoch, from 0; of features that of the first epoch that uses them"),
        Column("lineage", _TEXT, "",
               "name of the state after the epoch: trials that share it share the training up to here"),
        Column("parent", _TEXT, "", "name of the state before the epoch"),
        Column("recalled", _FLAG, "",
               "whether it was trained for another trial, of this study or any other; the columns after this one then "
               "tell of that training"),
        Column("kind", _TEXT, "",
               "`train`, or `features`: what the features cost that the head is trained on from this epoch on, in a row of "
               "its own before that of the epoch. They have neither updates nor rates nor metrics"),
        Column("batch_size", _INT32, "examples", "examples of an update"),
        Column("updates", _INT32, "updates", "updates of the epoch"),
        Column("examples", _INT64, "examples", "examples trained on; of features those that they were computed of"),
        Column("lr_first", _FLOAT, "", "learning rate of the head section in the first update"),
        Column("lr_min", _FLOAT, "", "lowest learning rate of the head section"),
        Column("lr_max", _FLOAT, "", "highest learning rate of the head section"),
        Column("lr_last", _FLOAT, "", "learning rate of the head section in the last update"),
        Column("momentum", _FLOAT, "", "mean momentum over updates and sections"),
        Column("train_loss", _FLOAT, "", "mean loss per training example, as the epoch went; null if it is not finite"),
        Column("val_loss", _FLOAT, "", "mean loss per validation example after the epoch; null if it is not finite"),
        Column("val_metric", _FLOAT, "", "the study's metric on the validation part after the epoch"),
        Column("train_s", _FLOAT, "s", "wall time of the training, or of computing features"),
        Column("eval_s", _FLOAT, "s", "wall time of evaluating the validation part"),
        Column("state_s", _FLOAT, "s", "wall time of storing the state, as far as training waited for it"),
        Column("device_kind", _TEXT, "", "what it was trained on: `<device>: <model>`"),
        Column("device_share", _FLOAT, "devices", "how much it occupied: GPUs, or CPU cores where there is none"),
        Column("device_s", _FLOAT, _DEVICE_S, "stand-alone cost: `device_share` x (`train_s` + `eval_s` + `state_s`)"),
        Column("cumulative_device_s", _FLOAT, _DEVICE_S, "`device_s` of this and all earlier epochs of the trial"),
        Column("host", _TEXT, "", "where it was trained"),
        Column("settings", _TEXT, "", "digest of what it was trained with: a row of settings.parquet"),
    ),
    (
        Column("val_<metric>", _FLOAT, "",
               "each metric of the task on the validation part, as `val_metric`; null where it is undefined"),
        Column("train_<metric>", _FLOAT, "",
               "`accuracy`, and `exact_match` where an example may have several labels, of the training examples as the "
               "epoch went: augmented, with dropout, and by weights that changed with every update; null with a train step "
               "of yours, and of epochs that an earlier version trained"),
    ),
)  # fmt: skip

_SETTINGS = TableDescription(
    "settings",
    "distinct settings of an epoch",
    (
        Column("settings", _TEXT, "", "digest of all the following but `update_kind` and `tail_kind`"),
        Column("batch_size", _INT32, "examples", "examples of an update"),
        Column("updates", _INT32, "updates", "updates of the epoch"),
        Column("sections", _INT32, "", "parameter groups of the model, input to head"),
        Column("lr", pa.list_(_FLOAT), "", "learning rates as applied: updates x sections, row by row"),
        Column("momentum", pa.list_(_FLOAT), "", "momenta as applied, in the same order"),
        Column("recipe", _TEXT, "",
               "JSON: optimizer and its constants, weight decay, loss, class weights, augmentation and whatever else "
               "shapes an update"),
        Column("update_kind", _TEXT, "", "what its updates cost: a row of calibration.parquet, once that is measured"),
        Column("tail_kind", _TEXT, "",
               "likewise of the epoch's last update, if its size is not `batch_size`; null if it is"),
    ),
)  # fmt: skip

_CALIBRATION = TableDescription(
    "calibration",
    "kind of update that trials used, once its cost is known",
    (
        Column("update_kind", _TEXT, "", "digest of the following two"),
        Column("batch_size", _INT32, "examples", "examples of an update"),
        Column("recipe", _TEXT, "",
               "JSON, as in settings.parquet, with one value for all that changes numbers and no times"),
        Column("device_kind", _TEXT, "", "what it was measured on: `<device>: <model>`"),
        Column("device_s_per_update", _FLOAT, _DEVICE_S, "cost of an update, alone on the device"),
        Column("device_s_per_epoch", _FLOAT, _DEVICE_S, "cost of an epoch beyond its updates"),
        Column("device_s_per_evaluation", _FLOAT, _DEVICE_S, "cost of an evaluation of the validation part"),
        Column("source", _TEXT, "",
               "`measured`, or, of what only tuning trials used, `interpolated` between measured batch sizes of the "
               "same recipe"),
    ),
)  # fmt: skip

_LEDGER = TableDescription(
    "ledger",
    "span of a slot; a slot is what one trial runs on",
    (
        Column("run", _INT32, "",
               "number of the run, from 1; one that recalled everything allocated nothing and has no rows"),
        Column("host", _TEXT, "", "where the run's driver was"),
        Column("device", _TEXT, "", "the slot: `<device>:<number>`"),
        Column("share", _FLOAT, "devices", "what the slot occupies: GPUs, or CPU cores where there is none"),
        Column("start", _FLOAT, "s", "since the devices were allocated to the run (monotonic clock)"),
        Column("duration_s", _FLOAT, "s", "wall time; times `share` it is device-seconds"),
        Column("category", _TEXT, "",
               "`setup` (the driver gets ready, a worker starts, or compiles), `data` (it opens the data), `train`, "
               "`evaluate`, `features` (computed for a head to train on), `state` (stored or loaded), `recompute` (a recorded epoch trained again, as its state is not "
               "stored), `range_test`, `calibrate`, `between` (a worker between two trials or after its last one, or looking up what is "
               "recorded), `waiting` (for the driver, between a report and the trial's next step), `idle` (the driver had "
               "nothing to hand out), `lost` (with a worker that died or was stopped in its work, until its successor was "
               "ready), `teardown`, or `unaccounted`: nobody measured it, or it is not reported yet"),
        Column("trial_id", _TEXT, "", "the trial that the time was for; empty where it was for none"),
    ),
)  # fmt: skip

_RANGE_TESTS = TableDescription(
    "range_tests",
    "rate of an arm that a range test found",
    (
        Column("arm", _TEXT, "", "the arm"),
        Column("parameter", _TEXT, "", "what the rate is of the arm: `lr`, or of a stage, as `stage2_lr`"),
        Column("lr", _FLOAT, "", "the rate that was found: the arm's from then on"),
        Column("range_test", _TEXT, "", "name of the test; arms that begin alike have one in common"),
        Column("suggestion", _TEXT, "",
               "which rate of the curve it is; this column and all after `spent_device_s` are null for an arm that is no "
               "longer in the study, and where the study goes on on another kind of device"),
        Column("recalled", _FLAG, "", "whether another study, or `lrstudy lr-find`, ran the test"),
        Column("device_s", _FLOAT, _DEVICE_S, "stand-alone cost, that of tuning for every arm with this test"),
        Column("spent_device_s", _FLOAT, _DEVICE_S,
               "what this study paid for it: once, under the first arm with this test; `range_test` in the ledger has "
               "what surrounds it as well"),
        Column("form", _TEXT, "", "`exponential` or `linear`"),
        Column("low", _FLOAT, "", "the first rate"),
        Column("high", _FLOAT, "", "the rate that it rises towards"),
        Column("epochs_before", _INT32, "epochs",
               "after how many epochs of the arm's default configuration it began: those of the stages before. They are the "
               "arm's first trial's"),
        Column("planned_updates", _INT32, "updates", "updates that it was to have"),
        Column("batch_size", _INT32, "examples", "examples of an update"),
        Column("seed", _INT64, "", "seed of weights, order, augmentation and dropout"),
        Column("update_kind", _TEXT, "", "what its updates cost: a row of calibration.parquet, if trials used it too"),
        Column("device_kind", _TEXT, "", "what it ran on: `<device>: <model>`; this and the following are null where the memo has lost the test"),
        Column("host", _TEXT, "", "where it ran"),
        Column("updates", _INT32, "updates", "updates that it had; fewer than planned if the loss rose to four times the lowest, or diverged"),
        Column("evaluations", _INT32, "", "how often the accuracy was measured"),
        Column("rates", pa.list_(_FLOAT), "", "rate of every update whose loss is finite"),
        Column("losses", pa.list_(_FLOAT), "", "loss of its batch before that update"),
        Column("smoothed_losses", pa.list_(_FLOAT), "", "their exponential mean, which suggestions read"),
        Column("measured_after", pa.list_(_INT32), "updates", "after how many updates the accuracy was measured"),
        Column("accuracies", pa.list_(_FLOAT), "", "accuracy on the validation part then"),
    ),
)  # fmt: skip

_PREDICTIONS = TableDescription(
    "predictions",
    "example of the test part and completed confirm trial",
    (
        Column("trial_id", _TEXT, "", "the trial"),
        Column("arm", _TEXT, "", "the trial's arm"),
        Column("example", _INT64, "", "position of the example in the data set, from 0"),
        Column("group", _TEXT, "", "its group, such as a patient; empty where the data has none"),
        Column("label", _INT32, "",
               "number of its class, from 0, in the order of the lock's `data.classes`; null where an example has "
               "several"),
        Column("labels", pa.list_(pa.int8()), "", "0 or 1 for each class where an example has several; else null"),
        Column("scores", pa.list_(pa.float32()), "", "logits, one per class"),
        Column("probabilities", pa.list_(pa.float32()), "",
               "softmax of the logits; of each label by itself (logistic function) where an example may have several"),
        Column("source", _TEXT, "", _SOURCE),
        Column("label_name", _TEXT, "", _LABEL_NAME),
    ),
)  # fmt: skip

_SPLIT = TableDescription(
    "split",
    "example that the study uses",
    (
        Column("example", _INT64, "", "position of the example in the data set, from 0"),
        Column("part", _TEXT, "", "`train`, `validation` or `test`"),
        Column("group", _TEXT, "", "its group, as in predictions.parquet"),
        Column("label", _INT32, "", "number of its class, likewise"),
        Column("labels", pa.list_(pa.int8()), "", "likewise"),
        Column("label_name", _TEXT, "", _LABEL_NAME),
        Column("source", _TEXT, "", _SOURCE),
    ),
)  # fmt: skip

TABLES = (_TRIALS, _EPOCHS, _SETTINGS, _LEDGER, _CALIBRATION, _RANGE_TESTS, _PREDICTIONS, _SPLIT)
TRIALS, EPOCHS, SETTINGS, LEDGER, CALIBRATION, RANGE_TESTS, PREDICTIONS, SPLIT = (table.schema for table in TABLES)
