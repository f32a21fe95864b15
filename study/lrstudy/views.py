"""Views: the study's tables, rebuilt from journal and records and replaced atomically; readable at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lrstudy import __version__
from lrstudy.admission import Admission, Trial
from lrstudy.ledger import Span, Worker, slot_lines
from lrstudy.records import EPOCHS, LEDGER, PREDICTIONS, SCHEMA_VERSION, SETTINGS, TRIALS, Record
from lrstudy.settings import Settings

_TRIAL_COSTS = ("data", "train", "evaluate", "range_test", "features", "state", "recompute", "waiting")


def write_tables(admission: Admission, folder: Path, now: float) -> None:
    """Write all tables of a study. `now` (monotonic) is where the ledger of a run in progress ends."""
    lines = ledger_lines(admission.journal.lines, now)
    spent: dict[str, float] = {}
    for line in lines:
        if line["category"] in _TRIAL_COSTS and line["trial_id"]:
            spent[line["trial_id"]] = spent.get(line["trial_id"], 0.0) + line["duration_s"] * line["share"]
    shown = [trial for trial in admission.trials.values() if trial.status != "waiting"]
    plan = admission.plan
    metric = plan.study.metric
    settings: dict[str, Settings] = {}
    _write(folder / "trials.parquet", [_trial_row(t, admission, spent) for t in shown], _with_parameters(shown))
    _write(
        folder / "epochs.parquet",
        [row for t in shown for row in _epoch_rows(t, metric, settings)],
        _EPOCH_SCHEMA,
    )
    _write(folder / "settings.parquet", [_settings_row(digest, s) for digest, s in settings.items()], SETTINGS)
    _write(folder / "ledger.parquet", lines, LEDGER)
    ended = {t.trial_id for t in shown if t.test}
    parts = [pq.read_table(path) for path in sorted((folder / "predictions").glob("*.parquet")) if path.stem in ended]
    _replace(folder / "predictions.parquet", pa.concat_tables(parts) if parts else PREDICTIONS.empty_table())


def ledger_lines(journal: Iterable[Mapping[str, Any]], now: float) -> list[dict[str, Any]]:
    """The ledger of all runs, from the journal's lines; times count from the start of each run's slots.

    A run that was killed ends at its last heartbeat, as the run after it found it.
    """
    runs: dict[int, list[Mapping[str, Any]]] = {}
    ends: dict[int, float] = {}
    killed: set[int] = set()
    for line in journal:
        runs.setdefault(line["run"], []).append(line)
        if line["kind"] == "end":
            ends[line["run"]] = line["at"]
        elif line["kind"] == "killed":
            ends[line["of"]] = line["at"]
            killed.add(line["of"])
    rows: list[dict[str, Any]] = []
    for run, lines in runs.items():
        slots = next((line for line in lines if line["kind"] == "slots"), None)
        if slots is None:
            continue  # everything was recalled: no device was allocated
        start, end = slots["start"], ends.get(run, now)
        idle = [(line["start"], line["end"]) for line in lines if line["kind"] == "idle"]
        done = next((line["at"] for line in lines if line["kind"] == "done"), end)
        for slot in range(slots["count"]):
            workers = _workers(
                [line for line in lines if line["kind"] == "spans" and line["slot"] == slot], run in killed
            )
            for span in slot_lines(workers, start, end, idle, done):
                rows.append(
                    {
                        "run": run, "host": slots["host"], "device": f"{slots['device']}:{slot}", "share": slots["share"],
                        "start": span.start - start, "duration_s": span.duration_s, "category": span.category,
                        "trial_id": span.trial_id,
                    }
                )  # fmt: skip
    return rows


def _workers(lines: list[Mapping[str, Any]], run_was_killed: bool) -> list[Worker]:
    """The workers of one slot in order; each but the last one died, and the last one too if the driver was killed."""
    spans: dict[str, list[Span]] = {}
    for line in lines:
        spans.setdefault(line["worker"], []).extend(Span(*span) for span in line["spans"])
    names = list(spans)
    return [Worker(spans[name], died=name != names[-1] or run_was_killed) for name in names]


def _trial_row(trial: Trial, admission: Admission, spent: Mapping[str, float]) -> dict[str, Any]:
    plan = admission.plan
    metric = plan.study.metric
    values = [record.metrics.get(f"val_{metric}") for record in trial.records]
    known = [(value, epoch) for epoch, value in enumerate(values) if value is not None]
    best = max(known, key=lambda item: (item[0], -item[1]), default=(None, None))
    last = trial.records[-1] if trial.records else None
    test = trial.test or {}
    row = {
        "trial_id": trial.trial_id,
        "arm": trial.arm,
        "workload": plan.study.workload.model,
        "policy": plan.arms[trial.arm].policy,
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
        "updates": sum(record.updates for record in trial.records),
        "examples": sum(record.examples for record in trial.records),
        "standalone_device_s": sum(record.device_s for record in trial.records),
        "spent_device_s": spent.get(trial.trial_id, 0.0),
        "recalled_epochs": sum(trial.recalled),
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
    }
    return row | {f"test_{m}": test.get(m) for m in plan.study.report_metrics} | _parameters(trial)


def _parameters(trial: Trial) -> dict[str, Any]:
    return {f"p_{name}": value for name, value in trial.configuration.items() if value is not None}


def _with_parameters(trials: Iterable[Trial]) -> pa.Schema:
    """The trials schema with one column per parameter: numbers where all values are numbers, else text."""
    kinds: dict[str, set[str]] = {}
    extra: set[str] = set()
    for trial in trials:
        for name, value in _parameters(trial).items():
            kinds.setdefault(name, set()).add(
                "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else "text"
            )
        extra |= {f"test_{name}" for name in (trial.test or {}) if f"test_{name}" not in TRIALS.names}
    schema = TRIALS
    for name, kind in sorted(kinds.items()):
        schema = schema.append(pa.field(name, pa.float64() if kind == {"number"} else pa.string()))
    for name in sorted(extra):
        schema = schema.append(pa.field(name, pa.float64()))
    return schema


def _epoch_rows(trial: Trial, metric: str, settings: dict[str, Settings]) -> Iterable[dict[str, Any]]:
    """Rows of a trial's epochs; the settings are computed again and must be those that the record names."""
    policy = trial.spec.build_policy()
    history: list[Mapping[str, float]] = []
    total = 0.0
    for record, recalled in zip(trial.records, trial.recalled, strict=True):
        applied = settings.get(record.settings) or policy.settings(record.epoch, history, trial.spec.run)
        if applied.digest != record.settings:
            raise RuntimeError(
                f"epoch {record.epoch} of {trial.trial_id} was trained with other settings than its policy gives"
            )
        settings[record.settings] = applied
        history.append(record.metrics)
        total += record.device_s
        yield _epoch_row(trial, record, recalled, applied, metric, total)


def _epoch_row(
    trial: Trial, record: Record, recalled: bool, applied: Settings, metric: str, total: float
) -> dict[str, Any]:
    head = applied.lr[:, -1]
    row = {name: getattr(record, name) for name in _FROM_RECORD}
    return row | {
        "trial_id": trial.trial_id,
        "arm": trial.arm,
        "recalled": recalled,
        "lr_first": float(head[0]),
        "lr_min": float(head.min()),
        "lr_max": float(head.max()),
        "lr_last": float(head[-1]),
        "momentum": float(applied.momentum.mean()),
        "train_loss": record.metrics.get("train_loss"),
        "val_loss": record.metrics.get("val_loss"),
        "val_metric": record.metrics.get(f"val_{metric}"),
        "val_accuracy": record.metrics.get("val_accuracy"),
        "val_balanced_accuracy": record.metrics.get("val_balanced_accuracy"),
        "cumulative_device_s": total,
    }


_EPOCH_SCHEMA = pa.schema([*EPOCHS, ("val_accuracy", pa.float64()), ("val_balanced_accuracy", pa.float64())])
_FROM_RECORD = [name for name in EPOCHS.names if name in Record.__dataclass_fields__]


def _settings_row(digest: str, settings: Settings) -> dict[str, Any]:
    return {
        "settings": digest,
        "batch_size": settings.batch_size,
        "updates": settings.num_updates,
        "sections": settings.num_sections,
        "lr": settings.lr.reshape(-1),
        "momentum": settings.momentum.reshape(-1),
        "recipe": json.dumps(asdict(settings.recipe), sort_keys=True),
    }


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    texts = [f.name for f in schema if f.name.startswith("p_") and f.type == pa.string()]
    for row in rows:
        for name in texts:
            if (value := row.get(name)) is not None:
                row[name] = value if isinstance(value, str) else json.dumps(value)
    _replace(path, pa.Table.from_pylist(rows, schema=schema))


def _replace(path: Path, table: pa.Table) -> None:
    metadata = {"lrstudy": __version__, "lrstudy_schema": str(SCHEMA_VERSION), "pyarrow": pa.__version__}
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table.replace_schema_metadata(metadata), fresh, compression="zstd")
    fresh.replace(path)
