"""The columns of the tables that a report writes: Parquet files and report/tables/*.csv. docs/tables.md shows them.

Columns may be added; their meaning never changes. Types are those of the Parquet files, or what the text of a
CSV file stands for.
"""

from __future__ import annotations

import pyarrow as pa

from lrstudy_reports.claim_schema import CLAIMS
from lrstudy_reports.class_schemas import CLASS_METRICS, CLASSES, CONFUSION, EXACT_MATCH
from lrstudy_reports.table_description import Column, TableDescription

SCHEMA_VERSION = 1

_TEXT, _FLAG, _INT32, _INT64, _FLOAT = pa.string(), pa.bool_(), pa.int32(), pa.int64(), pa.float64()
_DEVICE_S = "device-seconds"
_STUDY = (
    Column("study", _TEXT, "", "the study's name"),
    Column("data", _TEXT, "", "its data, as the study file names it, with absolute paths"),
    Column("model", _TEXT, "", "its model"),
)
_DEVICE = (
    Column("device_kind", _TEXT, "", "what calibrated costs are of: `<device>: <model>`"),
    Column("unit", _TEXT, "", "unit of the study's costs in hours: `GPU-hours` or `CPU-core-hours`"),
)

ARMS = TableDescription(
    "arms",
    "arm, best first",
    (
        Column("rank", _INT32, "",
               "by `test_metric`, from 1, equal ones alike; null where confirm trials diverged or failed or none was "
               "tested, and for a retired arm"),
        Column("arm", _TEXT, "", "the arm's name"),
        Column("workload", _TEXT, "", "as in trials.parquet"),
        Column("policy", _TEXT, "", "the arm's policy"),
        Column("configuration", _TEXT, "", "JSON: the confirmed one, or the best so far"),
        Column("configuration_source", _TEXT, "",
               "`confirmed` or `best so far`; null where there is no configuration yet"),
        Column("metric", _TEXT, "", "name of the study's metric"),
        Column("seeds", _INT32, "", "confirm trials with a test value"),
        Column("seeds_expected", _INT32, "", "confirm trials that the study asks for"),
        Column("diverged", _INT32, "", "confirm trials that diverged"),
        Column("failed", _INT32, "", "confirm trials that failed"),
        Column("val_metric", _FLOAT, "",
               "validation metric after the selected epoch, mean over completed confirm trials; before there are any, "
               "that of the best configuration"),
        Column("test_metric", _FLOAT, "", "metric on the test part, mean over completed confirm trials"),
        Column("test_low", _FLOAT, "",
               "lower end of the test metric's 95% t interval, made on the logit scale; null for fewer than three "
               "seeds, or without spread. With several looks its level is 1 - 0.05 / looks, as that of all intervals"),
        Column("test_high", _FLOAT, "", "its upper end"),
        Column("test_sd", _FLOAT, "", "standard deviation of the test metric over seeds"),
        Column("difference", _FLOAT, "",
               "test metric minus the control's, paired by seed, mean; null for the control"),
        Column("difference_low", _FLOAT, "", "lower end of the difference's 95% t interval, -1 at least"),
        Column("difference_high", _FLOAT, "", "its upper end, 1 at most"),
        Column("difference_sd", _FLOAT, "", "standard deviation of the difference over pairs"),
        Column("pairs", _INT32, "", "seeds that both the arm and the control have a test value for; of three or more searches, how many there are; "
               "0 for the control"),
        Column("p", _FLOAT, "", "p-value of the paired t-test against the control, two-sided"),
        Column("p_holm", _FLOAT, "",
               "`p` adjusted by Holm over all arms but the control and retired ones; an arm without a p-value counts as "
               "p = 1; null before all confirm trials have ended"),
        Column("verdict", _TEXT, "", "`control`, `better`, `worse`, `equivalent` or `undecided`; `retired` if an earlier run's"),
        Column("note", _TEXT, "", "what a reader must know of the verdict; null if nothing"),
        Column("smallest_detectable", _FLOAT, "",
               "true difference that so many pairs with this spread detect with power 0.8, at 0.05 over the number of "
               "comparisons"),
        Column("training_device_s", _FLOAT, _DEVICE_S,
               "calibrated cost of one training, mean over completed confirm trials"),
        Column("training_recorded_device_s", _FLOAT, _DEVICE_S, "the same as recorded, stand-alone"),
        Column("cost_ratio", _FLOAT, "", "`training_device_s` over the control's"),
        Column("tuning_standalone_device_s", _FLOAT, _DEVICE_S,
               "stand-alone cost of all tuning trials, of all searchers, stopped, diverged and failed ones too, and of the range "
               "tests that found the arm's rates, if any did"),
        Column("tuning_spent_device_s", _FLOAT, _DEVICE_S, "what the study paid for these trials and tests"),
        Column("confirm_spent_device_s", _FLOAT, _DEVICE_S, "what the study paid for the arm's confirm trials"),
        Column("lost_device_s", _FLOAT, _DEVICE_S,
               "what the ledger has as `recompute` under the arm's trials, and as `lost` after them, as their worker died"),
        Column("area_over_log_cost", _FLOAT, "",
               "validation metric, mean over the logarithm of calibrated cost, between the costs at which every "
               "completed confirm trial was observed"),
        Column("metric_at_25", _FLOAT, "",
               "validation metric last observed at 25% of `common_device_s`, mean over completed confirm trials"),
        Column("metric_at_50", _FLOAT, "", "the same at 50%"),
        Column("metric_at_100", _FLOAT, "", "the same at 100%"),
        Column("common_device_s", _FLOAT, _DEVICE_S,
               "calibrated cost at which the cheapest completed confirm trial of the study ends"),
        Column("target", _FLOAT, "", "value of the validation metric whose cost is compared"),
        Column("target_device_s", _FLOAT, _DEVICE_S,
               "calibrated cost at which it was first observed, median over trials; null if half of them or more did "
               "not reach it"),
        Column("target_reached", _INT32, "", "confirm trials that reached it"),
        Column("target_trials", _INT32, "", "confirm trials that completed or diverged, of which so many reached it"),
        Column("metric_per_device_hour", _FLOAT, "per device-hour",
               "`test_metric` over `training_device_s`; nothing is ranked by it, as it rewards not training"),
        Column("training_money", _FLOAT, "`currency`", "`training_device_s` at the study's price"),
        Column("tuning_money", _FLOAT, "`currency`", "`tuning_spent_device_s` at the study's price"),
        Column("currency", _TEXT, "", "currency of the study's price; null if it states none"),
        Column("tuning_device_s", _FLOAT, _DEVICE_S,
               "calibrated cost of tuning, stand-alone: one search of the searcher that chose, with its cohort, stopped, "
               "diverged and failed trials; the mean over its repeats; and the range tests that found the arm's rates; null where a kind of update has no measured "
               "cost, as in tables of an earlier version"),
        Column("tuning_paid_device_s", _FLOAT, _DEVICE_S,
               "the arm's part in what the study trained for tuning, of all searchers: an epoch that several arms used "
               "is paid by them in equal parts, whoever trained it, at its recorded cost; so is a range test"),
        Column("confirm_paid_device_s", _FLOAT, _DEVICE_S, "its part in what was trained for confirm trials, likewise"),
        Column("paid_money", _FLOAT, "`currency`", "the last two at the study's price"),
        *_STUDY,
        Column("budget_epochs", _FLOAT, "epochs", "the study's budget of a training"),
        *_DEVICE,
        Column("p_equivalence", _FLOAT, "",
               "p-value of equivalence: twice the larger of two one-sided t-tests against the margin, adjusted by Holm "
               "as `p_holm`; null without a margin"),
        Column("best_difference", _FLOAT, "",
               "mean test metric minus the highest of the other arms; null where seeds were lost, and before all confirm "
               "trials have ended"),
        Column("best_low", _FLOAT, "", "lower end of its simultaneous 95% interval (Hsu's comparison with the best), 0 at most"),
        Column("best_high", _FLOAT, "", "its upper end, 0 at least"),
        Column("may_be_best", _FLAG, "",
               "whether the arm may be the best: its interval does not end at 0 and it is not `worse`; the control may be "
               "as long as no arm is `better`"),
        Column("tuned_val_metric", _FLOAT, "",
               "validation metric by which the configuration was chosen: that of the best tuning trial of the first "
               "searcher, mean over tuning seeds"),
        Column("confirmed_val_metric", _FLOAT, "",
               "the same of its confirm trials, mean over those that completed: what is left of it with fresh seeds"),
        Column("exploratory", _FLAG, "",
               "whether the plan was changed after the test part had been read, so that verdicts are exploratory"),
        Column("train_metric", _FLOAT, "",
               "metric of the tested states on the training part, without augmentation, mean over completed confirm trials"),
        Column("train_low", _FLOAT, "", "lower end of its interval, as `test_low`"),
        Column("train_high", _FLOAT, "", "its upper end"),
    ),
)  # fmt: skip

_METRIC_COST = "`test_value` over the hours of the training; nothing is ranked by it, as it rewards not training"

ACCURACY = TableDescription(
    "accuracy_per_gpu_hour",
    "arm, best first, then one per confirm trial; those of several studies can be put below each other",
    (
        Column("row", _TEXT, "", "what the row is of: `arm` or `trial`"),
        *_STUDY,
        Column("policy", _TEXT, "", "the arm's policy"),
        Column("arm", _TEXT, "", "the arm's name"),
        Column("searcher", _TEXT, "", "the searcher that chose the configuration"),
        Column("seed", _INT64, "", "the trial's seed; null for an arm"),
        Column("epochs", _FLOAT, "epochs", "what it trained; of an arm the mean over completed confirm trials"),
        Column("updates", _FLOAT, "updates", "likewise"),
        Column("examples", _FLOAT, "examples", "likewise, counted each time"),
        *_DEVICE,
        Column("gpu_hours", _FLOAT, "GPU-hours",
               "calibrated cost of the training, of an arm the mean over completed confirm trials; null without a GPU"),
        Column("gpu_hours_with_tuning", _FLOAT, "GPU-hours",
               "the same with the calibrated cost of one search for the arm, `tuning_device_s` in arms.parquet"),
        Column("cpu_core_hours", _FLOAT, "CPU-core-hours", "as `gpu_hours`, where there is no GPU; else null"),
        Column("cpu_core_hours_with_tuning", _FLOAT, "CPU-core-hours", "as `gpu_hours_with_tuning`, likewise"),
        Column("metric", _TEXT, "", "name of the study's metric"),
        Column("test_value", _FLOAT, "", "that metric on the test part, of an arm the mean over seeds"),
        Column("test_low", _FLOAT, "", "lower end of an arm's 95% interval, as in arms.parquet"),
        Column("test_high", _FLOAT, "", "its upper end"),
        Column("accuracy_per_gpu_hour", _FLOAT, "per GPU-hour", _METRIC_COST),
        Column("accuracy_per_cpu_core_hour", _FLOAT, "per CPU-core-hour", "the same where there is no GPU"),
        Column("on_frontier", _FLAG, "",
               "of an arm: no other one has at least its mean test value for at most its cost of a training, and more or "
               "cheaper; null for a trial, and for an arm of which seeds diverged or failed"),
        Column("money", _FLOAT, "`currency`", "the training at the study's price"),
        Column("money_with_tuning", _FLOAT, "`currency`", "the training and the search at that price"),
        Column("currency", _TEXT, "", "currency of the study's price; null if it states none"),
        Column("trial_id", _TEXT, "", "the trial; null for an arm"),
        Column("status", _TEXT, "", "the trial's status, as in trials.parquet"),
        Column("configuration", _TEXT, "", "JSON: what was trained with"),
        Column("cost_source", _TEXT, "",
               "`alone` if updates were measured alone on the device; else `medians` of recorded epochs"),
        Column("repeat", _INT32, "",
               "of a trial, which search of the arm chose its configuration, from 0; an arm is that of the first one"),
    ),
)  # fmt: skip

BEST_AFTER = TableDescription(
    "best_after",
    "searcher, arm and number of trials",
    (
        Column("searcher", _TEXT, "", "the searcher"),
        Column("arm", _TEXT, "", "the arm"),
        Column("trials", _INT32, "", "number of configurations, from 1"),
        Column("expected_best", _FLOAT, "",
               "best validation value that so many of the arm's configurations have on average, over all subsets; one "
               "without a value counts as the worst of the study"),
    ),
)  # fmt: skip

CALIBRATION = TableDescription(
    "calibration",
    "kind of update that was measured alone on the device; else, with medians of recorded epochs, batch size, sections "
    "and device kind",
    (
        Column("batch_size", _INT32, "examples", "examples of an update"),
        Column("device_kind", _TEXT, "", "`<device>: <model>`"),
        Column("device_s_per_update", _FLOAT, _DEVICE_S, "cost of an update"),
        Column("source", _TEXT, "",
               "`alone` if measured, `interpolated` if it lies between such; of a median whether its epochs were `trained` "
               "here or all `recalled`"),
    ),
    (
        Column("recipe", _TEXT, "", "measured: as in calibration.parquet"),
        Column("device_s_per_epoch", _FLOAT, _DEVICE_S, "measured: cost of an epoch beyond its updates"),
        Column("device_s_per_evaluation", _FLOAT, _DEVICE_S, "measured: cost of an evaluation of the validation part"),
        Column("kind", _TEXT, "", "median: `kind` in epochs.parquet"),
        Column("sections", _TEXT, "", "median: which sections are trainable, `all` or 0 and 1 for each"),
        Column("epochs", _INT32, "epochs", "median: over how many epochs it was taken"),
    ),
)  # fmt: skip

CONFIRMED = TableDescription(
    "confirmed",
    "confirm trial; columns as in trials.parquet",
    (
        Column("trial_id", _TEXT, "", "the trial"),
        Column("arm", _TEXT, "", "its arm"),
        Column("seed", _INT32, "", "its seed"),
        Column("status", _TEXT, "", "its status"),
        Column("test_metric", _FLOAT, "", "metric on the test part"),
        Column("final_val_metric", _FLOAT, "", "validation metric after the last epoch"),
        Column("standalone_device_s", _FLOAT, _DEVICE_S, "recorded cost of the training"),
        Column("lineage", _TEXT, "", "name of the last state"),
        Column("configuration", _TEXT, "", "JSON"),
        Column("selected_lineage", _TEXT, "", "name of the state that was tested"),
    ),
)  # fmt: skip

CURVES = TableDescription(
    "curves",
    "arm and epoch that all its completed confirm trials have",
    (
        Column("arm", _TEXT, "", "the arm"),
        Column("epoch", _INT32, "", "number of finished epochs, from 1"),
        Column("device_s", _FLOAT, _DEVICE_S, "calibrated cost up to here, mean over trials"),
        Column("value", _FLOAT, "", "validation metric, mean over trials"),
        Column("low", _FLOAT, "", "lower end of the value's 95% t interval, made on the logit scale"),
        Column("high", _FLOAT, "", "its upper end"),
        Column("n", _INT32, "", "trials with a value"),
        Column("study", _TEXT, "", "the study's name"),
    ),
)  # fmt: skip

LEDGER = TableDescription(
    "ledger",
    "category of the ledger",
    (
        Column("category", _TEXT, "",
               "as in ledger.parquet; at the end `unaccounted`, what no category holds, and `allocated`, all of it"),
        Column("device_s", _FLOAT, _DEVICE_S, "sum over all runs"),
        Column("fraction", _FLOAT, "", "share of what was allocated"),
    ),
)  # fmt: skip

SEARCHERS = TableDescription(
    "searchers",
    "searcher and arm",
    (
        Column("searcher", _TEXT, "", "the searcher"),
        Column("arm", _TEXT, "", "the arm"),
        Column("configurations", _INT32, "", "how many it saw to their end"),
        Column("without_value", _INT32, "", "those of which a seed diverged or failed"),
        Column("best", _FLOAT, "", "best validation value, mean over tuning seeds"),
        Column("device_s", _FLOAT, _DEVICE_S, "recorded cost of their trials, stand-alone"),
        Column("searches", _INT32, "",
               "searches of the arm with a value; the columns before this one are over all of them"),
        Column("mean_best", _FLOAT, "", "best validation value of a search, mean over searches"),
        Column("difference", _FLOAT, "",
               "best validation value minus the first searcher's, paired by the number of the search, mean; empty for "
               "the first searcher"),
        Column("difference_low", _FLOAT, "",
               "lower end of the difference's 95% t interval over searches; empty for a single one, or without spread"),
        Column("difference_high", _FLOAT, "", "its upper end"),
        Column("pairs", _INT32, "", "searches that both have a value for; 0 for the first searcher"),
    ),
)  # fmt: skip

SEARCHES = TableDescription(
    "searches",
    "searcher and repeat: its tuning trials, as if it had been the only search",
    (
        Column("searcher", _TEXT, "", "the searcher"),
        Column("repeat", _INT32, "", "which of its searches, from 0"),
        Column("trials", _INT32, "", "tuning trials, those of the cohort included"),
        Column("asked", _INT32, "epochs", "epochs of these trials"),
        Column("distinct", _INT32, "epochs", "different epochs among them, which this search alone would train"),
        Column("asked_device_s", _FLOAT, _DEVICE_S, "recorded cost of the epochs asked for"),
        Column("distinct_device_s", _FLOAT, _DEVICE_S, "recorded cost of the distinct ones"),
    ),
)  # fmt: skip

SHARING = TableDescription(
    "sharing",
    "arm",
    (
        Column("arm", _TEXT, "", "the arm"),
        Column("asked", _INT32, "epochs", "epochs of all its trials, recalled ones included"),
        Column("distinct", _INT32, "epochs", "different epochs among them"),
        Column("trained", _INT32, "epochs", "epochs trained by its trials; the rest was recalled"),
        Column("asked_device_s", _FLOAT, _DEVICE_S, "recorded cost of the epochs asked for"),
        Column("trained_device_s", _FLOAT, _DEVICE_S, "recorded cost of the epochs trained"),
        Column("search_asked", _INT32, "epochs",
               "epochs of one search, the first one of the first searcher, and of the confirm trials"),
        Column("search_distinct", _INT32, "epochs", "different epochs among these"),
    ),
)  # fmt: skip

TROUBLE = TableDescription(
    "trouble",
    "trial that diverged, failed or was interrupted; columns as in trials.parquet",
    (
        Column("trial_id", _TEXT, "", "the trial"),
        Column("arm", _TEXT, "", "its arm"),
        Column("phase", _TEXT, "", "its phase"),
        Column("seed", _INT32, "", "its seed"),
        Column("status", _TEXT, "", "its status"),
        Column("epochs", _INT32, "epochs", "how many it has"),
        Column("configuration", _TEXT, "", "JSON"),
        Column("error", _TEXT, "", "what went wrong"),
    ),
)  # fmt: skip

UNTIL = TableDescription(
    "until",
    "arm whose trainings end at a target, of its confirm trials",
    (
        Column("arm", _TEXT, "", "the arm"),
        Column("metric", _TEXT, "", "the metric to be reached on the validation part"),
        Column("value", _FLOAT, "", "the value to be reached"),
        Column("trials", _INT32, "", "confirm trials that completed or diverged"),
        Column("reached", _INT32, "", "those of them that reached it; the others are censored at the end of their budget"),
        Column("share_low", _FLOAT, "", "lower end of the 95% interval of `reached` over `trials` (Clopper and Pearson)"),
        Column("share_high", _FLOAT, "", "its upper end"),
        Column("statistic", _TEXT, "",
               "what the following are over trials: `mean` if all reached it, else `median`, censored ones being longer "
               "than all others"),
        Column("epochs", _FLOAT, "epochs", "epochs to the target; empty where half of the trials or more are censored"),
        Column("epochs_low", _FLOAT, "epochs", "lower end of the mean's 95% t interval; empty for a median"),
        Column("epochs_high", _FLOAT, "epochs", "its upper end"),
        Column("device_s", _FLOAT, _DEVICE_S, "calibrated cost to the target, likewise"),
        Column("device_s_low", _FLOAT, _DEVICE_S, "lower end of its interval"),
        Column("device_s_high", _FLOAT, _DEVICE_S, "its upper end"),
        Column("wall_s", _FLOAT, "s", "wall time to the target as recorded, `reached_s` in trials.parquet, likewise"),
        Column("wall_s_low", _FLOAT, "s", "lower end of its interval"),
        Column("wall_s_high", _FLOAT, "s", "its upper end"),
    ),
)  # fmt: skip

CSV_TABLES = (
    ARMS, BEST_AFTER, CALIBRATION, CLAIMS, CLASS_METRICS, CLASSES, CONFIRMED, CONFUSION, CURVES, EXACT_MATCH, LEDGER, SEARCHERS,
    SEARCHES, SHARING, TROUBLE, UNTIL,
)  # fmt: skip
"""Those in report/tables, by the names of their files."""
PARQUET_TABLES = (ARMS, ACCURACY, CLAIMS, CLASS_METRICS, CONFUSION, CURVES, EXACT_MATCH)
"""Those beside the tables of a run, by the names of their files."""
