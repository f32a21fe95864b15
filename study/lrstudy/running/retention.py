"""The stored states that `storage.keep_gb` must not delete: those that a study of the storage may go on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from lrstudy.memo.records import Record
from lrstudy.running.admission import Admission

_UNFINISHED = ("waiting", "running", "interrupted", "failed")


def needed_states(admission: Admission, folder: Path) -> set[str]:
    """Digests of the ancestors of unfinished trials and the ends of confirmed ones, in all studies of the storage.

    `folder` is this study's. The other studies are known from their tables, which a running study writes every few
    seconds; states newer than its tables are safe, as the oldest are deleted first.
    """
    memo = admission.memo
    records = [
        record for trial in admission.trials.values() for record in _kept(trial.records, trial.status, trial.phase)
    ]
    for other in folder.parent.iterdir():
        if other != folder and (other / "study.lock.json").is_file():
            records += filter(None, map(memo.find, _lineages(other)))
    return {digest for record in records for digest in memo.digests_of(record)}


def _kept(records: list[Record], status: str, phase: str) -> list[Record]:
    """The records of a trial whose states are needed."""
    if status in _UNFINISHED:
        return records
    return records[-1:] if phase == "confirm" else []


def _lineages(folder: Path) -> Iterator[str]:
    """The lineages of the states that another study needs; none if its tables cannot be read."""
    try:
        trials = pq.read_table(
            folder / "trials.parquet", columns=["trial_id", "phase", "status", "lineage"]
        ).to_pylist()
        epochs = pq.read_table(folder / "epochs.parquet", columns=["trial_id", "lineage"])
    except (OSError, ValueError):
        return
    yield from (row["lineage"] for row in trials if row["phase"] == "confirm" and row["lineage"])
    unfinished = {row["trial_id"] for row in trials if row["status"] in _UNFINISHED}
    yield from (row["lineage"] for row in epochs.to_pylist() if row["trial_id"] in unfinished)
