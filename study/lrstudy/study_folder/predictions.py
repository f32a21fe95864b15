"""Predictions of confirm trials on the test part: one Parquet file per trial, written by its worker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lrstudy.errors import StorageError
from lrstudy.study_folder.replace_file import replacing
from lrstudy.study_folder.schemas import PREDICTIONS


def write(
    folder: Path,
    trial_id: str,
    arm: str,
    index: NDArray[np.int64],
    labels: NDArray[Any],
    logits: NDArray[np.float32],
    groups: Sequence[str] | None = None,
) -> None:
    """Write one trial's predictions, replacing earlier ones; logits have shape (examples, classes).

    `labels` is int64 (examples,), or 0 and 1 of shape (examples, classes) where an example has several; `groups`
    names the group of each example.

    Raises StorageError when the storage does not take them.
    """
    count = len(index)
    several = labels.ndim == 2
    table = pa.table(
        {
            "trial_id": [trial_id] * count,
            "arm": [arm] * count,
            "example": index,
            "group": list(groups) if groups is not None else [""] * count,
            "label": pa.nulls(count, pa.int32()) if several else labels.astype(np.int32),
            "labels": _rows(labels.astype(np.int8)) if several else pa.nulls(count, pa.list_(pa.int8())),
            "scores": _rows(logits),
        },
        schema=PREDICTIONS,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A torn file under the final name would stop every later run.
        with replacing(folder / f"{trial_id}.parquet", durable=True) as fresh:
            pq.write_table(table, fresh, compression="zstd")
    except OSError as error:
        raise StorageError(
            f"storage.path: cannot write the predictions in {folder}: {error}. What was recorded before is safe; free "
            "space or fix permissions, then run the same command again."
        ) from error


def _rows(values: NDArray[Any]) -> pa.Array:
    """A matrix as a column of lists, one per row."""
    flat = pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]).cast(pa.list_(flat.type))
