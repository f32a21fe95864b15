"""Several workloads of one study file together: their tables below each other, and arms compared over workloads.

What is pooled are the workloads' own results, which stay as they are: of each the mean difference to the control over seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lrstudy_reports.lock import Lock, read_lock
from lrstudy_reports.pooled_schema import POOLED
from lrstudy_reports.statistics import (
    FloatArray,
    equivalence_p,
    holm,
    mean_interval,
    paired_t,
    verdict,
    wilcoxon_p,
)

INDEX = "workloads.json"


@dataclass(frozen=True)
class Workloads:
    """The reported studies of a file's workloads, in its order: names, locks, and rows of their arms.parquet and trials.parquet.

    `expected` are all workloads of the file, those without a report yet included.
    """

    name: str
    names: tuple[str, ...]
    expected: tuple[str, ...]
    locks: tuple[Lock, ...]
    arms: pa.Table
    trials: pa.Table

    @property
    def complete(self) -> bool:
        """Whether all confirm trials of all workloads have ended."""
        return len(self.names) == len(self.expected) and all(lock.complete for lock in self.locks)

    @property
    def rows(self) -> pd.DataFrame:
        """The arms of all workloads that are in the study file."""
        frame: pd.DataFrame = self.arms.to_pandas()
        return frame[frame["verdict"].fillna("") != "retired"]

    @property
    def shares_data(self) -> bool:
        """Whether two workloads read the same source: their results then depend on the same examples."""
        sources = [lock.data.get("source") for lock in self.locks]
        return len(set(sources)) < len(sources)


def load_workloads(folder: Path) -> Workloads:
    """Read what the studies of all workloads below `folder` have so far. Raises ValueError if it is none of such a file."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        expected = tuple(map(str, index["workloads"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no study with a map of workloads in {folder}: {INDEX} cannot be read") from error
    known = [name for name in expected if (folder / name / "arms.parquet").is_file()]
    locks = tuple(read_lock(folder / name / "study.lock.json", name) for name in known)
    tables = [
        _below([pq.read_table(folder / name / f"{table}.parquet") for name in known]) for table in ("arms", "trials")
    ]
    return Workloads(str(index.get("name") or folder.name), tuple(known), expected, locks, tables[0], tables[1])


def pool(workloads: Workloads) -> pd.DataFrame:
    """Compare the arms with the control over workloads: the columns of pooled.parquet, a row per arm, best mean first.

    With d_w the mean difference to the control of an arm on workload w, over seeds, its rows have the mean of d_w with
    the t interval and the paired t-test over n workloads (t = mean / (sd / √n), n - 1 degrees of freedom), which speaks of
    workloads like these: the spread of d_w has that of seeds in it. Beside it the signed-rank test of Wilcoxon, which Demšar
    (2006, Statistical comparisons of classifiers over multiple data sets) prefers there, as it asks for no normal
    distribution and commensurable differences need not be. Both are adjusted by Holm over the arms.
    """
    rows = workloads.rows
    arms = list(dict.fromkeys(rows["arm"]))
    compared = [arm for arm in arms if rows.loc[rows["arm"] == arm, "verdict"].fillna("").ne("control").any()]
    lock = workloads.locks[0] if workloads.locks else Lock(name=workloads.name)
    differences = {arm: _values(rows, arm, "difference") for arm in compared}
    level, is_final = lock.level, workloads.complete
    tests = {arm: paired_t(of_arm, np.zeros(len(of_arm)), level) for arm, of_arm in differences.items()}
    ranks = [wilcoxon_p(differences[arm]) if is_final else math.nan for arm in compared]
    p_holm = holm([tests[arm].p if is_final else math.nan for arm in compared])
    p_same = holm([equivalence_p(tests[arm].difference, lock.margin) if is_final else math.nan for arm in compared])
    found: list[dict[str, Any]] = []
    for k, arm in enumerate(compared):
        difference, values = tests[arm].difference, lock.sign * differences[arm]
        found.append(
            {
                "arm": arm,
                "workloads": len(values),
                "test_metric": float(np.mean(_values(rows, arm, "test_metric"))),
                "wins": int((values > 0).sum()),
                "ties": int((values == 0).sum()),
                "losses": int((values < 0).sum()),
                "difference": difference.mean,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "difference_sd": difference.sd,
                "p": tests[arm].p,
                "p_holm": float(p_holm[k]),
                "p_equivalence": float(p_same[k]),
                "p_wilcoxon": ranks[k],
                "p_wilcoxon_holm": float(holm(ranks)[k]),
                "verdict": verdict(difference, p_holm[k], p_same[k], lock.sign, lock.alpha) if is_final else None,
                **_cost_ratio(_values(rows, arm, "cost_ratio"), level),
            }
        )
    for arm in (arm for arm in arms if arm not in compared):
        values = _values(rows, arm, "test_metric")
        found.append(
            {
                "arm": arm,
                "workloads": len(values),
                "test_metric": float(np.mean(values)) if len(values) else math.nan,
                "verdict": "control",
            }
        )
    table = pd.DataFrame(found).reindex(columns=POOLED.names)
    return table.sort_values("test_metric", ascending=lock.sign < 0, kind="stable").reset_index(drop=True)


def _values(rows: pd.DataFrame, arm: str, column: str) -> FloatArray:
    """The values of an arm on the workloads that have one."""
    values = rows.loc[rows["arm"] == arm, column].to_numpy(dtype=np.float64)
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)


def _cost_ratio(ratios: FloatArray, level: float) -> dict[str, float]:
    """The geometric mean of cost ratios over workloads, with the t interval of their logarithms."""
    interval = mean_interval(np.log(ratios), level)
    return {
        "cost_ratio": math.exp(interval.mean) if len(ratios) else math.nan,
        "cost_ratio_low": math.exp(interval.low),
        "cost_ratio_high": math.exp(interval.high),
    }


def _below(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables below each other, with the columns of all; one that is a number in some and a text in others is a text."""
    types: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            types.setdefault(field.name, set()).add(field.type)
    mixed = [name for name, found in types.items() if len(found) > 1]
    alike = []
    for table in tables:
        for name in (name for name in mixed if name in table.column_names):
            texts = [None if value is None else str(value) for value in table.column(name).to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(texts, pa.string()))
        alike.append(table)
    return pa.concat_tables(alike, promote_options="default") if alike else pa.table({})
