"""Which stored states a storage keeps: those that a study may go on from. The rest goes at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lrstudy.memo.records import Record
from lrstudy.running.admission import Admission
from lrstudy.running.trials import Trial
from lrstudy.study_folder import driver_lock, of_workloads

_UNFINISHED = ("waiting", "running", "interrupted", "failed")


def clear(
    admission: Admission,
    folder: Path,
    is_held: Callable[[Path], bool] = driver_lock.is_held,
    bring_tables: Callable[[], Path] | None = None,
) -> tuple[str, ...]:
    """Delete the oldest states that no study of the storage needs, until all together take `storage.keep_gb` at most.

    Nothing is deleted while another study of the storage runs: it may go on from any state, and the last one to end clears
    up for all. A driver that starts at this very moment may miss a state, and trains those epochs again.

    Args:
        admission: That of a run which is over.
        folder: The folder of its study.
        is_held: Whether a driver runs the study of another folder.
        bring_tables: Returns the folder in which all studies have their tables; by default that of `folder`.

    Returns:
        A note for the user, if anything was deleted or could not be.

    Raises:
        StorageError: The storage failed.
    """
    memo, keep_gb = admission.memo, admission.plan.study.storage.keep_gb
    if isinstance(keep_gb, str) or sum(memo.state_sizes().values()) <= keep_gb * 1e9:
        return ()
    if bring_tables is not None:
        folder = bring_tables() / of_workloads.name(folder)
    try:
        needed = needed_states(admission, folder)
    except UnreadableError as error:
        return (
            f"No states were deleted, because what {error} needs cannot be read: run it again, or delete its folder.",
        )
    if any(is_held(other) for other in _others(folder)):
        return ()
    freed_bytes = memo.evict(needed, int(keep_gb * 1e9))
    if not freed_bytes:
        return ()
    return (
        f"{freed_bytes / 1e9:.2g} GB of states that no study of this storage needs were deleted, as they took more than "
        f"storage.keep_gb ({keep_gb:g}); `all` keeps them.",
    )


class UnreadableError(Exception):
    """What a study needs cannot be read; the argument is its name."""


def needed_states(admission: Admission, folder: Path) -> set[str]:
    """Digests of the states that the studies of the storage may go on from; `folder` is that of the study of `admission`.

    Of a complete study these are the ends of the confirmed trials, and all states of a trial that failed. Of one that is
    not, they are all: a trial that is yet to come may share any of its prefixes. The other studies are known from their
    tables. Raises UnreadableError.
    """
    memo = admission.memo
    records = [record for trial in admission.trials.values() for record in _kept(trial, admission)]
    for other in _others(folder):
        if (other / "study.lock.json").is_file():
            records += filter(None, map(memo.find, _lineages(other)))
    return {digest for record in records for digest in memo.digests_of(record)}


def _others(folder: Path) -> Iterator[Path]:
    """The other folders of the storage."""
    yield from (other for other in of_workloads.folders(of_workloads.root(folder)) if other != folder)


def _kept(trial: Trial, admission: Admission) -> list[Record]:
    """The records of a trial whose states are needed."""
    if trial.status in _UNFINISHED or not admission.is_done:
        walked = trial.walk(admission.memo.find)
        features = (admission.memo.find(name) for name in trial.spec.features(trial.chain).values())
        return walked + [record for record in features if record is not None]
    if trial.phase != "confirm":
        return []
    tested = [] if trial.selected is None else [trial.records[trial.selected]]
    return trial.records[-1:] + tested


def _lineages(folder: Path) -> Iterator[str]:
    """The lineages of the states that another study needs."""
    try:
        is_complete = json.loads((folder / "study.lock.json").read_text(encoding="utf-8"))["complete"]
        trials = _rows(folder / "trials.parquet", ("trial_id", "phase", "status", "lineage", "selected_lineage"))
        epochs = pq.read_table(folder / "epochs.parquet", columns=["trial_id", "lineage"]).to_pylist()
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UnreadableError(of_workloads.name(folder)) from error
    confirmed = [row for row in trials if row["phase"] == "confirm"]
    yield from filter(None, (row.get(name) for row in confirmed for name in ("lineage", "selected_lineage")))
    unfinished = {row["trial_id"] for row in trials if row["status"] in _UNFINISHED}
    yield from (row["lineage"] for row in epochs if not is_complete or row["trial_id"] in unfinished)


def _rows(path: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a table with those of the columns that it has: tables of earlier versions have fewer."""
    with pq.ParquetFile(path) as file:
        return list(file.read(columns=[name for name in names if name in file.schema_arrow.names]).to_pylist())
