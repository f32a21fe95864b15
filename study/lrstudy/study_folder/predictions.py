"""Predictions of confirm trials on the test part: one Parquet file per trial, written by its worker."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lrstudy.errors import StorageError
from lrstudy.storage.bucket import Bucket
from lrstudy.storage.place import is_url
from lrstudy.study_folder.examples import Examples, rows_of
from lrstudy.study_folder.replace_file import replacing
from lrstudy.study_folder.schemas import PREDICTIONS

FOLDER = "predictions"


def write(
    study: str | Path,
    trial_id: str,
    arm: str,
    index: NDArray[np.int64],
    labels: NDArray[Any],
    logits: NDArray[np.float32],
    groups: Sequence[str] | None = None,
    classes: Sequence[str] = (),
    sources: Sequence[str] | None = None,
) -> None:
    """Write the predictions of one trial, replacing earlier ones.

    Args:
        study: Where the study lies: its folder, or a URL in a bucket.
        trial_id: The trial, which names the file.
        arm: Its arm.
        index: Positions of the examples in the data set, shape (examples,).
        labels: Class indices, int64 of shape (examples,); or, where an example may have several labels, 0 and 1 of
            shape (examples, classes).
        logits: Shape (examples, classes).
        groups: The name of each example's group, if there are groups.
        classes: The names of the classes.
        sources: The file of each example, or its row in the source, if that is known.

    Raises:
        StorageError: The storage does not take them.
    """
    examples = Examples(index, labels, classes, groups, sources)
    columns = {
        **examples.columns(),
        "trial_id": [trial_id] * len(index),
        "arm": [arm] * len(index),
        "scores": rows_of(logits),
        "probabilities": rows_of(_probabilities(logits, examples.is_multilabel)),
    }
    table = pa.table(columns).select(PREDICTIONS.names).cast(PREDICTIONS)
    if is_url(study):
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        Bucket(str(study)).put(f"{FOLDER}/{trial_id}.parquet", sink.getvalue())
        return
    folder = Path(study) / FOLDER
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


def _probabilities(logits: NDArray[np.float32], is_multilabel: bool) -> NDArray[np.float32]:
    """Of each class, float32 of shape (examples, classes): they sum to 1, or are of each label by itself."""
    exact = logits.astype(np.float64)
    if is_multilabel:
        return np.asarray(
            0.5 * (1 + np.tanh(exact / 2)), dtype=np.float32
        )  # the logistic function, which never overflows so
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)
