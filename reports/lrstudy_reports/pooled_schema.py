"""The columns of pooled.parquet, which lies in the folder above those of several workloads; docs/tables.md shows them."""

from __future__ import annotations

import pyarrow as pa

from lrstudy_reports.table_description import Column, TableDescription

TEXT, INT32, FLOAT = pa.string(), pa.int32(), pa.float64()

POOLED = TableDescription(
    "pooled",
    "arm over all workloads of a study file, best mean first",
    (
        Column("arm", TEXT, "", "the arm's name"),
        Column("workloads", INT32, "", "workloads that have a difference to the control; of the control a test value"),
        Column("test_metric", FLOAT, "", "mean over workloads of the test metric, itself the mean over seeds"),
        Column("wins", INT32, "", "workloads on which its mean is better than the control's"),
        Column("ties", INT32, "", "on which it is equal"),
        Column("losses", INT32, "", "on which it is worse"),
        Column("difference", FLOAT, "",
               "mean over workloads of the difference to the control, of each the mean over paired seeds"),
        Column("difference_low", FLOAT, "", "lower end of its 95% t interval over workloads; null for fewer than three"),
        Column("difference_high", FLOAT, "", "its upper end"),
        Column("difference_sd", FLOAT, "", "standard deviation of the difference over workloads"),
        Column("p", FLOAT, "", "p-value of the paired t-test over workloads, two-sided"),
        Column("p_holm", FLOAT, "", "`p` adjusted by Holm over the arms; null before all workloads are complete"),
        Column("p_equivalence", FLOAT, "", "p-value of equivalence within the study's margin, as in arms.parquet"),
        Column("p_wilcoxon", FLOAT, "",
               "p-value of Wilcoxon's signed-rank test over workloads, exact and two-sided; null for fewer than six "
               "differences that are not 0"),
        Column("p_wilcoxon_holm", FLOAT, "", "`p_wilcoxon` adjusted by Holm"),
        Column("verdict", TEXT, "",
               "`control`, `better`, `worse`, `equivalent` or `undecided` by the t-test; null before all are complete"),
        Column("cost_ratio", FLOAT, "", "geometric mean over workloads of `cost_ratio` in arms.parquet"),
        Column("cost_ratio_low", FLOAT, "", "lower end of its interval, the t interval of the logarithms"),
        Column("cost_ratio_high", FLOAT, "", "its upper end"),
    ),
)  # fmt: skip
