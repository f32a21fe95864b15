"""The study's tables: rebuilt from journal and records and replaced atomically, so they are readable at any moment."""

from __future__ import annotations

import itertools
import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lrstudy import __version__
from lrstudy.errors import StorageError
from lrstudy.running import calibration
from lrstudy.running.admission import Admission
from lrstudy.running.calibration import UpdateKind
from lrstudy.running.epoch_tables import EpochTables
from lrstudy.running.ledger_rows import ledger_rows
from lrstudy.running.range_test_table import range_test_table
from lrstudy.running.split_table import split_table
from lrstudy.running.trials import Trial
from lrstudy.study_folder.replace_file import replacing
from lrstudy.study_folder.schemas import CALIBRATION, LEDGER, PREDICTIONS, SCHEMA_VERSION, TRIALS

REFRESH_COST = 20.0
"""Tables are refreshed only when this many times what it last took has passed."""
_ROWS_AT_ONCE = 20_000
_TESTED = {"test": "", "train": "train_"}
"""The parts that the state of a confirm trial is evaluated on, with what its metrics begin with in `Trial.test`."""
_TRIAL_COSTS = ("data", "train", "evaluate", "range_test", "features", "state", "recompute", "waiting")


class TableWriter:
    """Writes the tables of one study again and again; epochs and settings that have not changed are not computed anew.

    `bring` is called with the trials that have predictions, before these are read: of a study in a bucket they lie there.
    """

    def __init__(
        self, admission: Admission, folder: Path, bring: Callable[[Iterable[str]], None] = lambda trials: None
    ) -> None:
        self._admission, self._folder, self._bring = admission, folder, bring
        self._epochs = EpochTables(admission.plan, admission.memo.known)
        self._predicted: set[str] | None = None
        self._num_found: int | None = None
        self._finished, self._cost_s = -math.inf, 0.0

    def refresh(self, now: float) -> None:
        """Write, unless that would take more than a twentieth of the time since it was last done."""
        if time.monotonic() - self._finished >= REFRESH_COST * self._cost_s:
            self.write(now)

    def write(self, now: float) -> None:
        """Write all tables; `now` (monotonic) is where the ledger of a run in progress ends.

        Raises StorageError when the storage does not take them.
        """
        begin = time.monotonic()
        shown = [trial for trial in self._admission.trials.values() if trial.status != "waiting"]
        ledger, spent = _ledger(ledger_rows(self._admission.journal.lines, now))
        self._write("trials", _trials_table(shown, self._admission, spent))
        self._write("epochs", self._epochs.epochs(self._admission.trials.values()))
        self._write("settings", self._epochs.settings())
        self._write("ledger", ledger)
        self._write_range_tests()
        self._write_predictions({trial.trial_id for trial in shown if trial.test})
        if not (self._folder / "split.parquet").exists():
            self._write("split", split_table(self._admission.plan.workload), self._classes)
        self._finished = time.monotonic()
        self._cost_s = self._finished - begin

    def write_calibration(self) -> None:
        """Write what the trials' updates cost alone on the device, as far as it is known. Raises StorageError."""
        admission = self._admission
        kinds = admission.kinds.used(admission.trials.values())
        costs = calibration.prices(admission.memo, admission.plan.workload, kinds)
        rows = [asdict(cost) | {"update_kind": cost.kind.digest, **_kind_columns(cost.kind)} for cost in costs]
        self._write("calibration", pa.Table.from_pylist(rows, schema=CALIBRATION))

    def _write_range_tests(self) -> None:
        """Write the table of range tests, again only if there are more of them."""
        admission = self._admission
        num_found = sum(1 for _ in admission.journal.of_kind("found"))
        if num_found != self._num_found:
            self._write("range_tests", range_test_table(admission.rates.tests, admission.journal, admission.memo))
            self._num_found = num_found

    def _write_predictions(self, ended: set[str]) -> None:
        if ended != self._predicted:
            self._bring(ended)
            paths = sorted((self._folder / "predictions").glob("*.parquet"))
            # Parts that an earlier version wrote lack columns.
            whole = pa.concat_tables(
                [PREDICTIONS.empty_table(), *(_predictions(path) for path in paths if path.stem in ended)],
                promote_options="default",
            )
            self._write("predictions", whole, self._classes)
            self._predicted = ended

    @property
    def _classes(self) -> dict[str, str]:
        """What the metadata of a table with labels says of them."""
        return {"lrstudy_classes": json.dumps(list(self._admission.plan.workload.classes))}

    def _write(self, name: str, table: pa.Table, metadata: Mapping[str, str] = MappingProxyType({})) -> None:
        """Replace one table atomically; `metadata` is added to what all tables have."""
        path = self._folder / f"{name}.parquet"
        try:
            with replacing(path, has_one_writer=True) as fresh:
                pq.write_table(table.replace_schema_metadata({**_metadata(), **metadata}), fresh, compression="zstd")
        except OSError as error:
            raise StorageError(
                f"storage.path: cannot write {path}: {error}. What was recorded before is safe; free space or fix "
                "permissions, then run the same command again."
            ) from error


def _predictions(path: Path) -> pa.Table:
    """The predictions of one trial. Raises StorageError for a file that is none, which somebody else must have put there."""
    try:
        table = pq.read_table(path)
        schema = pa.schema([PREDICTIONS.field(name) for name in table.column_names])
        return table.cast(schema)
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise StorageError(
            f"storage.path: {path} holds no predictions ({' '.join(str(error).split())[:200]}). Remove it, from the bucket "
            "too if the study lies in one, then run the same command again: the trial is tested anew."
        ) from error


def _ledger(rows: Iterator[dict[str, Any]]) -> tuple[pa.Table, dict[str, float]]:
    """The table of the ledger, and what the study paid for each trial, in device-seconds.

    A study of 100,000 trials has millions of rows, which as Python objects would take as much memory as all else.
    """
    tables, spent = [LEDGER.empty_table()], dict[str, float]()
    while some := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        tables.append(pa.Table.from_pylist(some, schema=LEDGER))
        for row in some:
            if row["category"] in _TRIAL_COSTS and row["trial_id"]:
                spent[row["trial_id"]] = spent.get(row["trial_id"], 0.0) + row["duration_s"] * row["share"]
    return pa.concat_tables(tables).combine_chunks(), spent


def _trials_table(trials: list[Trial], admission: Admission, spent: Mapping[str, float]) -> pa.Table:
    """Trials with one column per parameter: numbers where all its values are numbers, else JSON text."""
    rows = [_trial_row(trial, admission, spent) for trial in trials]
    schema = TRIALS
    for name in sorted({name for trial in trials for name in _parameters(trial)}):
        values = [row[name] for row in rows if name in row]
        is_number = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        schema = schema.append(pa.field(name, pa.float64() if is_number else pa.string()))
        if not is_number:
            for row in rows:
                if name in row and not isinstance(row[name], str):
                    row[name] = json.dumps(row[name])
    measured = admission.plan.workload.task.metrics if any(trial.test for trial in trials) else ()
    for name in sorted({f"{part}_{name}" for part in _TESTED for name in measured} - set(TRIALS.names)):
        schema = schema.append(pa.field(name, pa.float64()))
    return pa.Table.from_pylist(rows, schema=schema)


def _trial_row(trial: Trial, admission: Admission, spent: Mapping[str, float]) -> dict[str, Any]:
    plan = admission.plan
    metric = plan.study.metric
    values = [record.metrics.get(f"val_{metric}") for record in trial.records]
    known = [(value, epoch) for epoch, value in enumerate(values) if value is not None]
    best = max(known, key=lambda item: (item[0], -item[1]), default=(None, None))
    last = trial.records[-1] if trial.records else None
    selected = None if trial.selected is None else trial.records[trial.selected]
    test, recipe, features = trial.test or {}, trial.spec.run.recipe, trial.features(admission.memo.known).values()
    row = {
        "trial_id": trial.trial_id,
        "arm": trial.arm,
        "workload": plan.study.name.partition("/")[2] or plan.study.workload.model,
        "policy": plan.arms[trial.arm].definition["policy"],
        "searcher": trial.method,
        "phase": trial.phase,
        "index": trial.index,
        "configuration": json.dumps(trial.configuration, sort_keys=True),
        "seed": trial.seed,
        "status": trial.status,
        "error": trial.error,
        "epochs": len(trial.records),
        "lineage": last.lineage if last else "",
        "final_val_loss": last.metrics.get("val_loss") if last else None,
        "final_val_metric": values[-1] if values else None,
        "best_val_metric": best[0],
        "best_epoch": best[1],
        "test_loss": test.get("loss"),
        "test_metric": test.get(metric),
        "train_loss": test.get("train_loss"),
        "train_metric": test.get(f"train_{metric}"),
        "updates": sum(record.updates for record in trial.records),
        "examples": sum(record.examples for record in trial.records),
        "standalone_device_s": sum(record.device_s for record in (*trial.records, *features)),
        "spent_device_s": spent.get(trial.trial_id, 0.0),
        "recalled_epochs": sum(trial.recalled),
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
        "optimizer": recipe.optimizer,
        "augmentation": recipe.augment,
        "class_weights": recipe.class_weights,
        "proposed_by": trial.proposed_by,
        "repeat": trial.repeat,
        "rank": trial.rank,
        "selected_epoch": trial.selected,
        "selected_lineage": selected.lineage if selected else None,
        "selected_val_metric": trial.value,
        **_by_norm(test, plan.workload.numerics_spec.batchnorm, metric),
    }
    row |= _of_target(trial, row["standalone_device_s"])
    measured = {
        f"{part}_{name}": test.get(f"{prefix}{name}")
        for part, prefix in _TESTED.items()
        for name in plan.workload.task.metrics
    }
    return row | measured | _parameters(trial)


def _of_target(trial: Trial, device_s: float) -> dict[str, Any]:
    """The columns on the target that ends the training; what its epochs cost by now is `device_s`."""
    until = trial.spec.until
    if until is None:
        return {}
    target = {"until_metric": until.metric, "until_value": until.value}
    if not trial.records or not until.is_reached(trial.records[-1].metrics):
        return target
    seconds = sum(record.train_s + record.eval_s + record.state_s for record in trial.records)
    return target | {"reached_epoch": len(trial.records) - 1, "reached_s": seconds, "reached_device_s": device_s}


def _by_norm(test: Mapping[str, Any], used: str, metric: str) -> dict[str, Any]:
    """The test metric with running and with recomputed statistics of BatchNorm, where a trial was tested with both."""
    other = next((name for name in ("running", "precise") if name in test), None)
    return {} if other is None else {f"test_metric_{used}": test.get(metric), f"test_metric_{other}": test[other]}


def _parameters(trial: Trial) -> dict[str, Any]:
    """Its configuration as columns; an inactive parameter has none, one that is null is the text `null`."""
    return {f"p_{name}": value for name, value in trial.configuration.items()}


def _kind_columns(kind: UpdateKind) -> dict[str, Any]:
    return {"batch_size": kind.batch_size, "recipe": json.dumps(asdict(kind.recipe), sort_keys=True)}


@cache
def _metadata() -> dict[str, str]:
    """What every table says about where it comes from."""
    packages = {name: version(name) for name in ("torch", "torchvision", "ray", "numpy", "pyarrow")}
    return {
        "lrstudy": __version__,
        "lrstudy_schema": str(SCHEMA_VERSION),
        "python": platform.python_version(),
    } | packages
