"""Predictions of confirm trials on the test part: one Parquet file per trial, written by its worker."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lrstudy.faults import StorageError
from lrstudy.records import PREDICTIONS


def write(
    folder: Path,
    trial_id: str,
    arm: str,
    index: NDArray[np.int64],
    labels: NDArray[np.int64],
    logits: NDArray[np.float32],
) -> None:
    """Write one trial's predictions, replacing earlier ones; logits have shape (examples, classes).

    Raises StorageError when the storage does not take them.
    """
    count = len(index)
    table = pa.table(
        {
            "trial_id": [trial_id] * count,
            "arm": [arm] * count,
            "example": index,
            "group": [""] * count,
            "label": labels.astype(np.int32),
            "scores": pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), logits.shape[1]).cast(
                pa.list_(pa.float32())
            ),
        },
        schema=PREDICTIONS,
    )
    fresh = folder / f".{trial_id}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())  # a torn file under the final name would stop every later run
        fresh.replace(folder / f"{trial_id}.parquet")
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise StorageError(
            f"storage.path: cannot write the predictions in {folder}: {error}. What was recorded before is safe; free "
            "space or fix permissions, then run the same command again."
        ) from error
