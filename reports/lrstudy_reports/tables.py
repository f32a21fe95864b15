"""A study folder as data frames. Missing tables and columns are read as empty ones; nothing is repaired."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lrstudy_reports.lock import Lock, read_lock

FloatArray = NDArray[np.float64]
TUNING = ("tune", "cohort")
FEATURES = "features"
"""The kind of the rows of epochs.parquet that tell what computing features cost, and the input of what trains on them."""
ENDED = ("completed", "stopped", "diverged", "failed")

_TEXT, _NUMBER, _FLAG = "str", "float64", "bool"
_TRIALS = {
    "trial_id": _TEXT,
    "arm": _TEXT,
    "workload": _TEXT,
    "policy": _TEXT,
    "searcher": _TEXT,
    "phase": _TEXT,
    "index": _NUMBER,
    "configuration": _TEXT,
    "seed": _NUMBER,
    "status": _TEXT,
    "error": _TEXT,
    "epochs": _NUMBER,
    "lineage": _TEXT,
    "final_val_metric": _NUMBER,
    "best_val_metric": _NUMBER,
    "test_metric": _NUMBER,
    "standalone_device_s": _NUMBER,
    "spent_device_s": _NUMBER,
    "started_at": _NUMBER,
    "ended_at": _NUMBER,
    "repeat": _NUMBER,
    "updates": _NUMBER,
    "examples": _NUMBER,
    "rank": _NUMBER,
    "selected_lineage": _TEXT,
    "selected_val_metric": _NUMBER,
    "test_metric_running": _NUMBER,
    "test_metric_precise": _NUMBER,
    "until_metric": _TEXT,
    "until_value": _NUMBER,
    "reached_epoch": _NUMBER,
    "reached_s": _NUMBER,
    "train_metric": _NUMBER,
}
_EPOCHS = {
    "trial_id": _TEXT,
    "arm": _TEXT,
    "epoch": _NUMBER,
    "lineage": _TEXT,
    "recalled": _FLAG,
    "kind": _TEXT,
    "batch_size": _NUMBER,
    "updates": _NUMBER,
    "val_metric": _NUMBER,
    "train_accuracy": _NUMBER,
    "train_exact_match": _NUMBER,
    "train_s": _NUMBER,
    "eval_s": _NUMBER,
    "device_kind": _TEXT,
    "device_share": _NUMBER,
    "device_s": _NUMBER,
    "settings": _TEXT,
}
_LEDGER = {
    "run": _NUMBER,
    "host": _TEXT,
    "device": _TEXT,
    "share": _NUMBER,
    "start": _NUMBER,
    "duration_s": _NUMBER,
    "category": _TEXT,
    "trial_id": _TEXT,
}
_CALIBRATION = {
    "update_kind": _TEXT,
    "batch_size": _NUMBER,
    "recipe": _TEXT,
    "device_kind": _TEXT,
    "device_s_per_update": _NUMBER,
    "device_s_per_epoch": _NUMBER,
    "device_s_per_evaluation": _NUMBER,
    "source": _TEXT,
}


_RANGE_TESTS = {
    "arm": _TEXT,
    "parameter": _TEXT,
    "lr": _NUMBER,
    "range_test": _TEXT,
    "suggestion": _TEXT,
    "recalled": _FLAG,
    "device_s": _NUMBER,
    "spent_device_s": _NUMBER,
    "form": _TEXT,
    "low": _NUMBER,
    "high": _NUMBER,
    "update_kind": _TEXT,
    "updates": _NUMBER,
    "evaluations": _NUMBER,
}


@dataclass(frozen=True, eq=False)
class StudyTables:
    """The tables of a study as they were when read, with its lock. The frames must not be modified.

    `arms` are the lock's arms in its order, followed by arms that occur only in the trials. `missing` names the
    tables that the folder does not have.
    """

    folder: Path
    lock: Lock
    trials: pd.DataFrame
    epochs: pd.DataFrame
    ledger: pd.DataFrame
    calibration: pd.DataFrame
    range_tests: pd.DataFrame
    arms: tuple[str, ...]
    missing: tuple[str, ...]

    @cached_property
    def trained(self) -> pd.DataFrame:
        """The epochs, without what was computed or tried before them."""
        return self.epochs[self.epochs["kind"].fillna("train") == "train"]

    @cached_property
    def tuning(self) -> pd.DataFrame:
        """The tuning trials: those of the cohort and of the searchers."""
        return self.trials[self.trials["phase"].isin(TUNING)]

    @cached_property
    def confirming(self) -> pd.DataFrame:
        """The trials that confirm the first-ranked configuration of each of an arm's searches, by arm, search and seed.

        With `confirm.top` above 1 an arm has several confirmed configurations. The one that ranked first on
        validation represents the arm: choosing by test values would be selection on the test set.
        """
        confirm = self.trials[(self.trials["phase"] == "confirm") & (self.trials["rank"] == 1)]
        return confirm.sort_values(["arm", "repeat", "seed"], kind="stable")

    @cached_property
    def num_searches(self) -> int:
        """How many times each searcher searched, each time with a seed of its own."""
        last = self.trials["repeat"].max()
        return 1 if pd.isna(last) else int(last) + 1

    def searchers(self) -> tuple[str, ...]:
        """The searchers; the first is the one whose configurations are confirmed."""
        if self.lock.searchers:
            return self.lock.searchers
        tune = self.trials.loc[self.trials["phase"] == "tune", "searcher"].dropna()
        return tuple(dict.fromkeys(tune.tolist()))

    def of_searcher(self, searcher: str, repeat: int = 0) -> pd.DataFrame:
        """The tuning trials whose results `searcher` saw in the arms' searches number `repeat`.

        Cohort trials under no searcher's name count for all.
        """
        tuning = self.tuning[self.tuning["repeat"] == repeat]
        shared = (tuning["phase"] == "cohort") & ~tuning["searcher"].isin(self.searchers())
        return tuning[(tuning["searcher"] == searcher) | shared]

    def policy(self, arm: str) -> str:
        """The policy of `arm`: the lock's word, else the trials', else the arm's own name."""
        if arm in self.lock.arms:
            return self.lock.arms[arm]
        known = self.trials.loc[self.trials["arm"] == arm, "policy"].dropna()
        return str(known.iloc[0]) if len(known) else arm


def load(folder: Path) -> StudyTables:
    """Read the study in `folder`.

    Raises ValueError if there is none, if a table cannot be read, or if it has more than one workload.
    """
    if not (folder / "study.lock.json").exists() and not (folder / "trials.parquet").exists():
        raise ValueError(f"no study in {folder}: it has neither study.lock.json nor trials.parquet")
    lock = read_lock(folder / "study.lock.json", folder.resolve().name)
    trials = _selected(_ranked(_read(folder / "trials.parquet", _TRIALS)), lock)
    trials["repeat"] = trials["repeat"].fillna(0.0)  # earlier versions had one search per arm and searcher
    workloads = sorted(trials["workload"].dropna().unique())
    if len(workloads) > 1:
        raise ValueError(f"a report compares arms on one workload; more is not yet possible; got {workloads}")
    arms = dict.fromkeys([*lock.arms, *trials["arm"].dropna().tolist()])
    names = ("trials", "epochs", "settings", "ledger")
    return StudyTables(
        folder=folder,
        lock=lock,
        trials=trials,
        epochs=_read(folder / "epochs.parquet", _EPOCHS),
        ledger=_read(folder / "ledger.parquet", _LEDGER),
        calibration=_read(folder / "calibration.parquet", _CALIBRATION),
        range_tests=_read(folder / "range_tests.parquet", _RANGE_TESTS),
        arms=tuple(arms),
        missing=tuple(name for name in names if not (folder / f"{name}.parquet").exists()),
    )


def is_on_features(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe trains on features, computed beforehand."""
    return recipe.get("input") == FEATURES


def trainable_sections(folder: Path) -> dict[str, str]:
    """Trainable sections by settings digest, as 0 and 1 for each section; only where not all are trainable.

    For settings that train the head on features it is ``features``, as nothing else is computed then.
    """
    path = folder / "settings.parquet"
    if not path.exists():
        return {}
    table = _parquet(path, ["settings", "recipe"], dictionary=["recipe"]).combine_chunks()
    partly: dict[str, str] = {}
    for chunk in table.column("recipe").chunks:
        for recipe in chunk.dictionary.to_pylist():
            told = json.loads(recipe) if recipe else {}
            flags = told.get("trainable") or []
            if not all(flags):
                partly[recipe] = FEATURES if is_on_features(told) else "".join("1" if flag else "0" for flag in flags)
    if not partly:
        return {}
    rows = zip(table.column("settings").to_pylist(), table.column("recipe").to_pylist(), strict=True)
    return {digest: partly[recipe] for digest, recipe in rows if recipe in partly}


def update_kinds(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Kind of update by settings digest, as calibration.parquet names it: of all updates, and of a smaller last one.

    Settings whose updates are all alike are not in the second one. Empty for tables of an earlier version.
    """
    path = folder / "settings.parquet"
    if not path.exists():
        return {}, {}
    table = _parquet(path, ["settings", "update_kind", "tail_kind"])
    digests = table.column("settings").to_pylist()
    kinds, tails = (
        dict(zip(digests, table.column(name).to_pylist(), strict=True)) if name in table.column_names else {}
        for name in ("update_kind", "tail_kind")
    )
    return kinds, {digest: kind for digest, kind in tails.items() if kind is not None}


def learning_rates(folder: Path, digests: Iterable[str]) -> dict[str, FloatArray]:
    """Learning rates as applied by settings digest, shape (updates, sections); unknown digests are left out.

    Reads in batches and keeps only what is asked for, since the table can be larger than memory.
    """
    path, wanted = folder / "settings.parquet", pa.array(sorted(set(digests)), pa.string())
    if not path.exists() or not len(wanted):
        return {}
    rates_of: dict[str, FloatArray] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=2048, columns=["settings", "sections", "lr"]):
            chosen = batch.filter(pc.is_in(batch.column("settings"), value_set=wanted))
            for row in chosen.to_pylist():
                rates = np.array(row["lr"], dtype=np.float64)
                rates_of[row["settings"]] = rates.reshape(-1, max(int(row["sections"] or 1), 1))
    return rates_of


def test_metrics(folder: Path, names: Sequence[str]) -> pd.DataFrame:
    """The metrics `names` on the test part, one column each beside `trial_id`; NaN where a trial has no value."""
    frame = trial_values(folder, [f"test_{name}" for name in names])
    return frame.rename(columns={f"test_{name}": name for name in names})


def trial_values(folder: Path, names: Sequence[str]) -> pd.DataFrame:
    """The columns `names` of trials.parquet as numbers beside `trial_id`; NaN where a trial, or the table, has no value."""
    return _read(folder / "trials.parquet", {"trial_id": _TEXT, **dict.fromkeys(names, _NUMBER)})


def predictions(folder: Path, trial_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Predictions by trial: `scores` (examples, classes), and `label` (examples,) or `labels` (examples, classes).

    Of the last two, `labels` is None where every example has one label, else `label` is. Trials without
    predictions are left out.
    """
    path = folder / "predictions.parquet"
    if not path.exists():
        return {}
    table = _parquet(path, ["trial_id", "label", "labels", "scores"])
    of_trial: dict[str, dict[str, Any]] = {}
    for trial_id in trial_ids:
        rows = table.filter(pc.equal(table.column("trial_id"), trial_id))
        if not rows.num_rows or not {"label", "scores"} <= set(table.column_names):
            continue
        several = "labels" in table.column_names and rows.column("labels").null_count == 0
        of_trial[trial_id] = {
            "scores": _matrix(rows.column("scores")),
            "label": None if several else rows.column("label").to_numpy(),
            "labels": _matrix(rows.column("labels")) if several else None,
        }
    return of_trial


def _ranked(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with the ranks of confirm trials, which tables of earlier versions have in the trial's id alone."""
    if trials["rank"].notna().any():
        return trials
    of_id = trials["trial_id"].str.extract(r"-confirm-(\d+)-\d+$", expand=False).astype("float64")
    return trials.assign(rank=of_id.where(trials["phase"] == "confirm"))


def _selected(trials: pd.DataFrame, lock: Lock) -> pd.DataFrame:
    """The trials with the value that they are judged by, for which tables of earlier versions have no column."""
    if trials["selected_val_metric"].notna().any():
        return trials
    older = trials["best_val_metric" if lock.select == "best" else "final_val_metric"]
    return trials.assign(selected_val_metric=older.where(trials["status"].isin(["completed", "stopped"])))


def _matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of lists, all of one length, as a matrix."""
    values: NDArray[Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def _read(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    frame: pd.DataFrame = _parquet(path, list(columns)).to_pandas()
    return pd.DataFrame({name: _column(frame, name, kind) for name, kind in columns.items()})


def _column(frame: pd.DataFrame, name: str, kind: str) -> pd.Series[Any]:
    if name not in frame:
        empty: object = False if kind == _FLAG else None
        return pd.Series([empty] * len(frame), index=frame.index, dtype=kind)
    column = frame[name]
    if kind == _FLAG and column.hasnans:
        column = column.eq(True)
    return column.astype(kind)  # type: ignore[call-overload, no-any-return]


def _parquet(path: Path, columns: list[str], dictionary: list[str] | None = None) -> pa.Table:
    try:
        with pq.ParquetFile(path, read_dictionary=dictionary) as file:
            known = set(file.schema_arrow.names)
            return file.read(columns=[name for name in columns if name in known])
    except pa.ArrowException as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
