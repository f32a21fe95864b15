"""Which stored states `storage.keep_gb` must not delete: those that some study of the storage may go on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from lrstudy.memo.records import Record
from lrstudy.running.admission import Admission

_UNFINISHED = ("waiting", "running", "interrupted", "failed")


def needed_states(admission: Admission, folder: Path) -> set[str]:
    """Digests of the ancestors of unfinished trials and the ends of confirmed ones, of this study and its neighbours.

    `folder` is this study's; the others of its storage are known by their tables, which a running one writes every few
    seconds. What it has trained since is newer than what is deleted first.
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
    return records if status in _UNFINISHED else records[-1:] if phase == "confirm" else []


def _lineages(folder: Path) -> Iterator[str]:
    """The states that another study needs; none if its tables cannot be read."""
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
