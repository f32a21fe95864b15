"""The stored states that `storage.keep_gb` must not delete: those that a study of the storage may go on from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lrstudy.memo.records import Record
from lrstudy.running.admission import Admission
from lrstudy.running.protocol import Trial

_UNFINISHED = ("waiting", "running", "interrupted", "failed")


def needed_states(admission: Admission, folder: Path) -> set[str]:
    """Digests of the ancestors of unfinished trials, the ends of confirmed ones and what was tested, in all studies.

    `folder` is this study's. The other studies are known from their tables, which a running study writes every few
    seconds; states newer than its tables are safe, as the oldest are deleted first.
    """
    memo = admission.memo
    records = [record for trial in admission.trials.values() for record in _kept(trial)]
    for other in folder.parent.iterdir():
        if other != folder and (other / "study.lock.json").is_file():
            records += filter(None, map(memo.find, _lineages(other)))
    return {digest for record in records for digest in memo.digests_of(record)}


def _kept(trial: Trial) -> list[Record]:
    """The records of a trial whose states are needed."""
    if trial.status in _UNFINISHED:
        return trial.records
    if trial.phase != "confirm":
        return []
    tested = [] if trial.selected is None else [trial.records[trial.selected]]
    return trial.records[-1:] + tested


def _lineages(folder: Path) -> Iterator[str]:
    """The lineages of the states that another study needs; none if its tables cannot be read."""
    try:
        trials = _rows(folder / "trials.parquet", ("trial_id", "phase", "status", "lineage", "selected_lineage"))
        epochs = pq.read_table(folder / "epochs.parquet", columns=["trial_id", "lineage"])
    except (OSError, ValueError):
        return
    confirmed = [row for row in trials if row["phase"] == "confirm"]
    yield from filter(None, (row.get(name) for row in confirmed for name in ("lineage", "selected_lineage")))
    unfinished = {row["trial_id"] for row in trials if row["status"] in _UNFINISHED}
    yield from (row["lineage"] for row in epochs.to_pylist() if row["trial_id"] in unfinished)


def _rows(path: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a table with those of the columns that it has: tables of earlier versions have fewer."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=[name for name in names if name in file.schema_arrow.names]).to_pylist()
