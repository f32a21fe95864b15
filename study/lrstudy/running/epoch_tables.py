"""The tables of epochs and settings: their rows are computed once, while trials go on, and kept in little memory.

Of a large study these are the two largest tables. Until the trials next to it have ended, a trial has a table of its own;
as every column of it takes memory, those of trials that have ended become one. Of settings only what epochs say of them is
kept beside their rows: the settings themselves, a rate for every update and section, took as much memory again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from lrstudy.memo.records import Record
from lrstudy.planning.plan import Plan
from lrstudy.running.calibration import UpdateKind
from lrstudy.running.trials import Trial
from lrstudy.settings import Settings
from lrstudy.study_folder.schemas import EPOCHS, SETTINGS
from lrstudy.tasks.kinds import COUNTED_IN_TRAINING

_BLOCK = 100
"""So many trials, one after the other in the order in which they were made, become one table once all have ended."""

_Rates = dict[str, float | None]
"""What the row of an epoch says of its settings."""
_NO_RATES: _Rates = dict.fromkeys(("lr_first", "lr_min", "lr_max", "lr_last", "momentum"))
"""What the row of features says of them: there are none."""


class EpochTables:
    """The rows of epochs and settings as far as they were asked for, of one study.

    Features that a trial was trained on have a row before the first epoch that used them; `known` is asked for their record.
    """

    def __init__(self, plan: Plan, known: Callable[[str], Record | None] = lambda name: None) -> None:
        self._known = known
        self._metric, self._num_examples = plan.study.metric, plan.workload.counts[0]
        self._schema = _epochs_schema(plan.workload.task.metrics)
        self._rates: dict[str, _Rates] = {}  # by the digest of the settings
        self._settings: list[pa.Table] = []
        self._of_trials: dict[str, tuple[str, pa.Table]] = {}  # with the name of the last state
        self._of_blocks: dict[int, pa.Table] = {}

    def epochs(self, trials: Iterable[Trial]) -> pa.Table:
        """The rows of the epochs of all trials of the study, in the order in which they were made; `trials` only grow.

        Those of trials with no new epochs are not computed anew. Raises RuntimeError if an epoch was trained with settings
        that its policy does not give.
        """
        every = list(trials)
        blocks = (every[begin : begin + _BLOCK] for begin in range(0, len(every), _BLOCK))
        tables = [self._of_block(number, block) for number, block in enumerate(blocks)]
        return pa.concat_tables([self._schema.empty_table(), *tables])

    def settings(self) -> pa.Table:
        """The rows of all settings of the epochs that were asked for."""
        met = pa.concat_tables([SETTINGS.empty_table(), *self._settings])
        return met.sort_by("settings")  # else in the order met, another one in every run

    def _of_block(self, number: int, trials: list[Trial]) -> pa.Table:
        if number in self._of_blocks:
            return self._of_blocks[number]
        shown = [trial for trial in trials if trial.status != "waiting"]
        table = pa.concat_tables([self._schema.empty_table(), *map(self._of_trial, shown)])
        if len(shown) == _BLOCK and all(trial.status != "running" for trial in shown):
            table = self._of_blocks[number] = table.combine_chunks()
            for trial in shown:
                self._of_trials.pop(trial.trial_id, None)
        return table

    def _of_trial(self, trial: Trial) -> pa.Table:
        """The rows of a trial's epochs, computed anew only if there are more or others of them than the last time."""
        if not trial.records:
            return self._schema.empty_table()
        last = trial.records[-1].lineage
        known, table = self._of_trials.get(trial.trial_id, ("", None))
        if table is None or known != last:
            rows = list(_epoch_rows(trial, self._applied(trial), trial.features(self._known), self._metric))
            table = pa.Table.from_pylist(rows, schema=self._schema)
            self._of_trials[trial.trial_id] = (last, table)
        return table

    def _applied(self, trial: Trial) -> list[_Rates]:
        """The rates of a trial's epochs; settings that no epoch had before become rows of the table of settings."""
        new: list[dict[str, Any]] = []
        for settings in _unmet(trial, self._rates):
            self._rates[settings.digest] = _rates(settings)
            new.append(_settings_row(settings, self._num_examples))
        if new:
            self._settings.append(pa.Table.from_pylist(new, schema=SETTINGS))
        return [self._rates[record.settings] for record in trial.records]


def _unmet(trial: Trial, met: dict[str, _Rates]) -> Iterator[Settings]:
    """Those settings of a trial's epochs, as its policy gives them, that are not among those `met`, each once.

    Raises RuntimeError if the policy gives others than the record names.
    """
    policy = trial.spec.build_policy()
    history = [record.metrics for record in trial.records]
    for epoch, record in enumerate(trial.records):
        if record.settings in met:  # asked after the settings of the epochs before were met
            continue
        applied = policy.settings(epoch, history[:epoch], trial.spec.run)
        if applied.digest != record.settings:
            raise RuntimeError(
                f"epoch {record.epoch} of {trial.trial_id} was trained with other settings than its policy gives"
            )
        yield applied


def _rates(settings: Settings) -> _Rates:
    """What the row of an epoch says of its settings: the rates of the head section, and momentum."""
    head = settings.lr[:, -1]
    return {
        "lr_first": float(head[0]),
        "lr_min": float(head.min()),
        "lr_max": float(head.max()),
        "lr_last": float(head[-1]),
        "momentum": float(settings.momentum.mean()),
    }


def _epoch_rows(
    trial: Trial, applied: Iterable[_Rates], features: Mapping[int, Record], metric: str
) -> Iterator[dict[str, Any]]:
    """The rows of a trial's epochs, each of which was trained with these rates, and of the features before some of them."""
    total = 0.0
    for epoch, (record, rates) in enumerate(zip(trial.records, applied, strict=True)):
        told = [(features[epoch], _NO_RATES)] if epoch in features else []
        for one, applied_rates in (*told, (record, rates)):
            total += one.device_s
            of_trial = {"trial_id": trial.trial_id, "arm": trial.arm, "recalled": trial.is_recalled(one)}
            yield _epoch_row(one, metric) | applied_rates | of_trial | {"cumulative_device_s": total}


def _epoch_row(record: Record, metric: str) -> dict[str, Any]:
    """What the row of an epoch says of it, whichever trial it belongs to."""
    row = {name: getattr(record, name) for name in _FROM_RECORD}
    if record.kind == "features":
        row |= {"settings": None, "batch_size": None}
    return row | {
        "train_loss": record.metrics.get("train_loss"),
        "val_loss": record.metrics.get("val_loss"),
        "val_metric": record.metrics.get(f"val_{metric}"),
        **{name: value for name, value in record.metrics.items() if name not in ("train_loss", "val_loss")},
    }


def _epochs_schema(metrics: Iterable[str]) -> pa.Schema:
    """The columns of epochs.parquet: more for the metrics of the task; null where a metric is undefined or was not counted."""
    names = [f"val_{name}" for name in metrics] + [f"train_{name}" for name in metrics if name in COUNTED_IN_TRAINING]
    return pa.schema([*EPOCHS, *((name, pa.float64()) for name in names)])


_FROM_RECORD = [name for name in EPOCHS.names if name in Record.__dataclass_fields__]


def _settings_row(settings: Settings, num_examples: int) -> dict[str, Any]:
    tail = UpdateKind.of_tail(settings, num_examples)
    return {
        "settings": settings.digest,
        "batch_size": settings.batch_size,
        "updates": settings.num_updates,
        "sections": settings.num_sections,
        "lr": settings.lr.reshape(-1),
        "momentum": settings.momentum.reshape(-1),
        "recipe": json.dumps(asdict(settings.recipe), sort_keys=True),
        "update_kind": UpdateKind.of(settings).digest,
        "tail_kind": None if tail is None else tail.digest,
    }
