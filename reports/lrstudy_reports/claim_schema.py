"""The columns of claims.parquet."""

from __future__ import annotations

import pyarrow as pa

from lrstudy_reports.table_description import Column, TableDescription

_TEXT, _FLAG, _INT32, _FLOAT = pa.string(), pa.bool_(), pa.int32(), pa.float64()

CLAIMS = TableDescription(
    "claims",
    "claim of the study file",
    (
        Column("claim", _TEXT, "", "id of the published claim; null for one that the study file writes out"),
        Column("text", _TEXT, "", "what is claimed"),
        Column("source", _TEXT, "", "who claims it, and where"),
        Column("printed", _TEXT, "", "the number as the source prints it, with its unit"),
        Column("source_note", _TEXT, "", "what is known of that number; null if nothing"),
        Column("measure", _TEXT, "", "`value`, `difference`, `cost_ratio` or `equal`; null if it cannot be tested"),
        Column("not_testable", _TEXT, "", "why it cannot"),
        Column("arm", _TEXT, "", "the arm that it is about"),
        Column("against", _TEXT, "", "the arm that this one is compared with; null for `value`"),
        Column("metric", _TEXT, "", "the metric, on the test part or, if its name begins with `train_`, on the training part"),
        Column("label", _TEXT, "", "the class whose metric it is; null if it is that of all"),
        Column("margin", _FLOAT, "", "of `equal`: what does not count as a difference"),
        Column("expected", _FLOAT, "",
               "the claimed number: a fraction, or of `cost_ratio` the cost of `against` over that of `arm`; null if none is"),
        Column("side", _INT32, "", "1 if a difference above 0 or a ratio above 1 is claimed, -1 if below; else null"),
        Column("bound", _TEXT, "", "`at least` or `at most` if `expected` is claimed as a bound"),
        Column("measured", _FLOAT, "",
               "what the study measured, mean over completed confirm trials: a metric, a difference paired by seed, or the "
               "geometric mean of the ratios of calibrated costs, stand-alone"),
        Column("low", _FLOAT, "", "lower end of its interval, at the level of those in arms.parquet; of a ratio made of logarithms"),
        Column("high", _FLOAT, "", "its upper end; both are the number itself where all seeds cost the same"),
        Column("n", _INT32, "", "how many seeds, pairs of seeds or searches it is the mean of"),
        Column("counted", _TEXT, "", "which of them: `seed` or `search`"),
        Column("verdict", _TEXT, "", "`supported`, `contradicted`, `undecided` or `not testable`"),
        Column("size_in_interval", _FLAG, "",
               "of a difference or ratio: whether the interval holds the claimed size, or one that keeps to the bound"),
        Column("note", _TEXT, "", "what a reader must know of the verdict; null if nothing"),
        Column("needed", _INT32, "",
               "seeds or searches that would decide an undecided claim with power 0.8, if mean and spread stay; null if more "
               "than 1,000, or if no number of them would"),
        Column("more_device_s", _FLOAT, "device-seconds", "what those that are missing cost at most, in the arms that it is about"),
        Column("exploratory", _FLAG, "", "as in arms.parquet"),
        Column("study", _TEXT, "", "as in arms.parquet, as are the next two"),
        Column("data", _TEXT, "", "its data"),
        Column("model", _TEXT, "", "its model"),
    ),
)  # fmt: skip
