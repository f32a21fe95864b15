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
    """Write the predictions of one trial, replacing earlier ones.

    Args:
        folder: The study's folder for predictions, made if it does not exist.
        trial_id: The trial, which names the file.
        arm: Its arm.
        index: Positions of the examples in the data set, shape (examples,).
        labels: Class indices, int64 of shape (examples,); or, where an example may have several labels, 0 and 1 of
            shape (examples, classes).
        logits: Shape (examples, classes).
        groups: The name of each example's group, if there are groups.

    Raises:
        StorageError: The file cannot be written.
    """
    num_examples = len(index)
    is_multilabel = labels.ndim == 2
    table = pa.table(
        {
            "trial_id": [trial_id] * num_examples,
            "arm": [arm] * num_examples,
            "example": index,
            "group": list(groups) if groups is not None else [""] * num_examples,
            "label": pa.nulls(num_examples, pa.int32()) if is_multilabel else labels.astype(np.int32),
            "labels": _rows(labels.astype(np.int8)) if is_multilabel else pa.nulls(num_examples, pa.list_(pa.int8())),
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
