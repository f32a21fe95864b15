"""The columns of the tables of predictions: classes, confusions, exact matches. The others are in schemas.py."""

from __future__ import annotations

import pyarrow as pa

from lrstudy_reports.table_description import Column, TableDescription

_TEXT, _INT32, _INT64, _FLOAT = pa.string(), pa.int32(), pa.int64(), pa.float64()

CLASSES = TableDescription(
    "classes",
    "class",
    (Column("class", _TEXT, "", "the class's name"),),
    (
        Column("<arm>", _FLOAT, "",
               "area under the ROC curve of the class against the rest on the test part, mean over confirm trials; "
               "empty where undefined"),
    ),
)  # fmt: skip

_MEAN = "mean over the confirm trials for which it is defined"

CLASS_METRICS = TableDescription(
    "class_metrics",
    "arm and class, of predictions on the test part: the class with the highest score, or every label with a probability "
    "above one half",
    (
        Column("arm", _TEXT, "", "the arm"),
        Column("label", _INT32, "", "number of the class, as in predictions.parquet"),
        Column("class", _TEXT, "", "its name"),
        Column("trials", _INT32, "", "confirm trials with predictions, those of the first-ranked configuration"),
        Column("support", _INT64, "examples", "examples of the test part that are of the class"),
        Column("tp", _INT64, "examples", "examples of the class that were predicted to be of it, sum over trials"),
        Column("fp", _INT64, "examples", "others that were predicted to be of it, likewise"),
        Column("fn", _INT64, "examples", "examples of the class that were not predicted to be of it, likewise"),
        Column("tn", _INT64, "examples", "others that were not predicted to be of it, likewise"),
        Column("precision", _FLOAT, "", f"tp / (tp + fp), {_MEAN}: a trial that never predicts the class has none"),
        Column("precision_low", _FLOAT, "",
               "lower end of its interval, as `test_low` in arms.parquet: over seeds, null for fewer than three or without "
               "spread"),
        Column("precision_high", _FLOAT, "", "its upper end"),
        Column("recall", _FLOAT, "",
               f"tp / (tp + fn), {_MEAN}; of the second class of two, or of a label, this is the sensitivity"),
        Column("recall_low", _FLOAT, "", "lower end of its interval, likewise"),
        Column("recall_high", _FLOAT, "", "its upper end"),
        Column("f1", _FLOAT, "", f"2 tp / (2 tp + fp + fn), {_MEAN}"),
        Column("f1_low", _FLOAT, "", "lower end of its interval, likewise"),
        Column("f1_high", _FLOAT, "", "its upper end"),
        Column("specificity", _FLOAT, "", f"tn / (tn + fp), {_MEAN}"),
        Column("specificity_low", _FLOAT, "", "lower end of its interval, likewise"),
        Column("specificity_high", _FLOAT, "", "its upper end"),
        Column("predicted_by", _INT32, "", "trials that predicted the class for any example; `precision` is their mean"),
    ),
)  # fmt: skip

CONFUSION = TableDescription(
    "confusion",
    "arm, true and predicted class that any example of the test part has; where an example may have several labels, arm, "
    "label, whether it is true and whether it was predicted",
    (
        Column("arm", _TEXT, "", "the arm"),
        Column("class", _TEXT, "", "the label that the row is about; null where every example has one class"),
        Column("true", _TEXT, "", "the true class; of a label `yes` or `no`"),
        Column("predicted", _TEXT, "", "the predicted one, likewise"),
        Column("count", _INT64, "examples", "how many examples, sum over confirm trials"),
        Column("fraction", _FLOAT, "", "`count` over the sum of those with the same truth"),
        Column("trials", _INT32, "", "confirm trials with predictions"),
    ),
)  # fmt: skip

EXACT_MATCH = TableDescription(
    "exact_match",
    "arm and number of wrong labels; no rows where every example has one class",
    (
        Column("arm", _TEXT, "", "the arm"),
        Column("wrong", _INT32, "", "how many of an example's labels are predicted wrongly, from 0 to all"),
        Column("count", _INT64, "examples", "examples of the test part with so many, sum over confirm trials"),
        Column("fraction", _FLOAT, "", "their share of the test part, mean over confirm trials"),
        Column("fraction_low", _FLOAT, "", "lower end of its interval, as in class_metrics.parquet"),
        Column("fraction_high", _FLOAT, "", "its upper end"),
        Column("trials", _INT32, "", "confirm trials with predictions"),
    ),
)  # fmt: skip
