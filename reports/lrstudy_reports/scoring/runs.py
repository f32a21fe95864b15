"""Reads runs in the long form: one row per evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

By = Literal["time", "steps"]
COST: dict[By, str] = {"time": "submission_time_s", "steps": "global_step"}
"""The column that counts: seconds of the submission's own time, without evaluations, or optimizer steps."""
_TEXTS = ("submission", "workload", "metric_name")
_NUMBERED = ("study", "trial")


def read_runs(path: Path, by: By) -> pd.DataFrame:
    """The evaluations in a Parquet file, in the order in which each trial made them.

    A row is an evaluation: `submission` (the training algorithm; of a study of ours the arm), `workload`, `study` (a
    repetition, from which the median is taken), `trial` (one of the tries within it, of which the first to reach the target
    counts), `metric_name`, `metric` (on validation data), and `submission_time_s` or `global_step`. Further columns are left
    out.

    Args:
        path: The file.
        by: Which of the two cost columns is needed.

    Returns:
        These columns, the cost under the name `cost`, sorted by it within each trial.

    Raises:
        ValueError: The file cannot be read, lacks columns, or has values that are no numbers or names.
    """
    names = [*_TEXTS, *_NUMBERED, "metric", COST[by]]
    try:
        present = pq.read_schema(path).names
        missing = [name for name in names if name not in present]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}: expected one row per evaluation with {', '.join(names)}; "
                f"got {', '.join(present)}"
            )
        frame = pq.read_table(path, columns=names).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())[:200]}") from None
    if frame.empty:
        raise ValueError(f"{path} has no evaluations")
    for name in ("metric", COST[by]):
        if not pd.api.types.is_numeric_dtype(frame[name]):
            raise ValueError(f"{path}: expected numbers in {name}; got {frame[name].iloc[0]!r}")
    if unnamed := [name for name in (*_TEXTS, *_NUMBERED, COST[by]) if frame[name].isna().any()]:
        raise ValueError(f"{path}: rows without {', '.join(unnamed)}; every evaluation needs them")
    frame = frame.rename(columns={COST[by]: "cost"}).astype(dict.fromkeys(_TEXTS, str))
    keys: list[Any] = ["submission", "workload", "study", "trial", "cost"]
    ordered: pd.DataFrame = frame.sort_values(keys, kind="stable", ignore_index=True)
    return ordered
