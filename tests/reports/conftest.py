"""A synthetic study folder: every table by its schema, plausible curves, known effects.

`write_study` draws everything from one seed. Faults are made by changing the rows before they are written
(`edit_trials`, `edit_epochs`) or by deleting files afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lrstudy_reports
from lrstudy.study_folder import schemas

EFFECTS = {"constant": 0.0, "step": 0.006, "batch_increase": -0.001, "clr": 0.0, "sgdr_dlr": 0.021}
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
Edit = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Plan:
    arms: tuple[str, ...] = tuple(EFFECTS)
    searchers: tuple[str, ...] = ("hyperopt", "random")
    trials: int = 8
    cohort: int = 4
    epochs: int = 10
    confirm_seeds: int = 5
    examples: int = 640
    seed: int = 0
    lock: dict[str, Any] = field(default_factory=dict)
    edit_trials: Edit = lambda frame: frame
    edit_epochs: Edit = lambda frame: frame


SMALL = {"arms": ("constant", "step"), "searchers": ("random",), "trials": 3, "cohort": 1, "epochs": 3}


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study of five arms; tests read it and write nothing into it."""
    return write_study(tmp_path_factory.mktemp("studies") / "digits", Plan())


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study with its report; tests read it and write nothing into it."""
    folder = write_study(tmp_path_factory.mktemp("reported") / "digits", Plan())
    lrstudy_reports.build(folder)
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A factory of studies: `make(confirm_seeds=1)`; `make(small=True)` for two arms of three trials."""

    def build(name: str = "made", small: bool = False, **changes: Any) -> Path:
        return write_study(tmp_path / name, replace(Plan(), **(SMALL if small else {}), **changes))

    return build


def write_study(folder: Path, plan: Plan) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(plan.seed)
    trials = _trials(plan, rng)
    epochs, settings = _epochs(plan, trials, rng)
    trials = _with_results(trials, epochs, rng)
    trials, epochs = plan.edit_trials(trials), plan.edit_epochs(epochs)
    extra = [pa.field("p_lr", pa.float64()), pa.field("p_factor", pa.float64())]
    _write(trials, pa.schema([*schemas.TRIALS, *extra]), folder / "trials.parquet")
    _write(epochs, schemas.EPOCHS.append(pa.field("val_accuracy", pa.float64())), folder / "epochs.parquet")
    pq.write_table(pa.Table.from_pylist(settings, schemas.SETTINGS), folder / "settings.parquet")
    _write(_ledger(trials, epochs), schemas.LEDGER, folder / "ledger.parquet")
    _write(_predictions(trials, rng), schemas.PREDICTIONS, folder / "predictions.parquet")
    (folder / "study.lock.json").write_text(json.dumps(_lock(plan) | plan.lock))
    (folder / "study.yaml").write_text("lrstudy: 1\nname: digits\n")
    return folder


def _lock(plan: Plan) -> dict[str, Any]:
    return {
        "name": "digits",
        "metric": "accuracy",
        "mode": "max",
        "select": "final",
        "budget_epochs": plan.epochs,
        "control": "constant",
        "margin": None,
        "searchers": list(plan.searchers),
        "arms": {arm: {"policy": arm, "parameters": ["lr", "factor"]} for arm in plan.arms},
        "trials_per_arm": plan.trials,
        "cohort": plan.cohort,
        "seeds": [0],
        "confirm": {"top": 1, "seeds": plan.confirm_seeds},
        "device_kind": "cpu",
        "unit": "CPU-core-hours",
        "price": None,
        "data": {"source": "digits", "classes": 10, "train": plan.examples, "validation": 360, "test": 360},
        "model": {"name": "small_cnn", "parameters": 23_946, "weights": "random"},
        "numerics": {"device": "cpu", "threads": 1, "precision": "float32"},
        "complete": True,
        "versions": {"lrstudy": "0.1.0", "torch": "2.9.0", "ray": "2.60.0", "python": "3.11.9"},
    }


def _trials(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for arm in plan.arms:
        for searcher in plan.searchers:
            for index in range(plan.trials):
                in_cohort = index < plan.cohort
                lr = RATES[(3 + index) % len(RATES)] if in_cohort else float(rng.choice(RATES))
                factor = 2.0 if in_cohort else float(rng.choice([2.0, 5.0]))
                phase = "cohort" if in_cohort else "tune"
                rows.append((f"{arm}-{searcher}-{index}-0", arm, searcher, phase, index, 0, lr, factor))
        for k in range(plan.confirm_seeds):
            seed = 1000 + k
            rows.append((f"{arm}-confirm-0-{seed}", arm, plan.searchers[0], "confirm", 0, seed, 0.05, 2.0))
    names = ["trial_id", "arm", "searcher", "phase", "index", "seed", "p_lr", "p_factor"]
    trials = pd.DataFrame(rows, columns=names)
    trials["policy"], trials["workload"], trials["status"], trials["error"] = trials["arm"], "main", "completed", None
    trials["configuration"] = [
        json.dumps({"lr": lr, "factor": factor, "batch_size": 32})
        for lr, factor in zip(trials["p_lr"], trials["p_factor"], strict=True)
    ]
    return trials


def _epochs(plan: Plan, trials: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    n, count = len(trials), plan.epochs
    epoch = np.tile(np.arange(count), n)
    row = np.repeat(np.arange(n), count)
    frame = pd.DataFrame({"trial_id": trials["trial_id"].to_numpy()[row], "arm": trials["arm"].to_numpy()[row]})
    lr, seed = trials["p_lr"].to_numpy()[row], trials["seed"].to_numpy()[row]
    by_trial = _quality(trials, rng)[row]
    loss = 0.55 * np.exp(-(epoch + 1) / (0.22 * count)) + rng.normal(0, 0.003, n * count)
    frame["epoch"], frame["val_metric"] = epoch, np.clip(by_trial - loss, 0, 1)
    frame["val_accuracy"] = frame["val_metric"]
    frame["val_loss"] = 2.3 * (1 - frame["val_metric"])
    frame["train_loss"] = 0.9 * frame["val_loss"]
    grows = (frame["arm"] == "batch_increase") & (epoch >= count // 2)
    frame["batch_size"] = np.where(grows, 64, 32)
    frame["updates"] = np.ceil(plan.examples / frame["batch_size"]).astype(int)
    frame["examples"] = plan.examples
    prefix = np.where((frame["arm"] == "step") & (epoch < count // 2), "constant", frame["arm"])
    keys = [f"{p}/{rate:g}/{s}" for p, rate, s in zip(prefix, lr, seed, strict=True)]
    names = [blake2b(f"{k}/{e}".encode(), digest_size=16).hexdigest() for k, e in zip(keys, epoch, strict=True)]
    frame["lineage"] = names
    frame["parent"] = frame["lineage"].shift(1).where(epoch > 0, "root")
    frame["recalled"] = frame["lineage"].duplicated()
    frame["kind"], frame["device_kind"], frame["host"], frame["device_share"] = "train", "cpu", "node-a", 1.0
    per_update = np.where(frame["batch_size"] == 32, 0.012, 0.019)
    frame["train_s"] = frame["updates"] * per_update * rng.lognormal(0, 0.06, n * count)
    frame["eval_s"], frame["state_s"] = 0.03 * rng.lognormal(0, 0.1, n * count), 0.004
    frame["device_s"] = frame["device_share"] * (frame["train_s"] + frame["eval_s"] + frame["state_s"])
    frame["cumulative_device_s"] = frame.groupby("trial_id")["device_s"].cumsum()
    frame["momentum"] = 0.9
    settings: dict[str, dict[str, Any]] = {}
    policy = frame["arm"].to_numpy()
    digests = []
    for k in range(len(frame)):
        key = f"{policy[k]}/{lr[k]:g}/{epoch[k]}"
        if key not in settings:
            settings[key] = _settings(key, str(policy[k]), float(lr[k]), int(epoch[k]), count, frame.iloc[k])
        digests.append(settings[key]["settings"])
    frame["settings"] = digests
    head = [settings[f"{p}/{r:g}/{e}"]["lr"] for p, r, e in zip(policy, lr, epoch, strict=True)]
    for name, pick in (("first", lambda x: x[0]), ("min", min), ("max", max), ("last", lambda x: x[-1])):
        frame[f"lr_{name}"] = [pick(rates) for rates in head]
    return frame, list(settings.values())


def _settings(key: str, policy: str, lr: float, epoch: int, count: int, row: pd.Series) -> dict[str, Any]:
    updates = int(row["updates"])
    clock = epoch + np.arange(updates) / updates
    rates = np.full(updates, lr)
    if policy == "step":
        rates = rates * 0.1 ** (clock >= count / 2)
    elif policy == "clr":
        rates = lr * (0.1 + 0.9 * (1 - np.abs((clock % 2) - 1)))
    elif policy == "sgdr_dlr":
        rates = lr * (0.5 + 0.5 * np.cos(np.pi * (clock % (count / 2)) / (count / 2)))
    sections = (0.1, 0.3, 1.0) if policy == "sgdr_dlr" else (1.0,)
    table = np.outer(rates, sections)
    return {
        "settings": blake2b(key.encode(), digest_size=16).hexdigest(),
        "batch_size": int(row["batch_size"]),
        "updates": updates,
        "sections": len(sections),
        "lr": table.ravel().tolist(),
        "momentum": np.full(table.size, 0.9).tolist(),
        "recipe": json.dumps({"optimizer": "sgd", "trainable": []}),
        "update_kind": f"kind-{int(row['batch_size'])}",
    }


def _quality(trials: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    effect = trials["arm"].map(EFFECTS).fillna(0.0).to_numpy()
    off = 0.02 * np.log10(trials["p_lr"].to_numpy() / 0.05) ** 2
    by_seed = np.array([np.random.default_rng(seed).normal(0, 0.006) for seed in trials["seed"]])
    return 0.95 + effect - off + by_seed + rng.normal(0, 0.003, len(trials))


def _with_results(trials: pd.DataFrame, epochs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    grouped = epochs.groupby("trial_id", sort=False)
    last = grouped.last()
    sums = grouped[["updates", "examples", "device_s", "recalled"]].sum()
    spent = epochs["device_s"].where(~epochs["recalled"], 0.0).groupby(epochs["trial_id"], sort=False).sum()
    trials = trials.set_index("trial_id")
    trials["epochs"], trials["lineage"] = grouped.size(), last["lineage"]
    trials["final_val_loss"], trials["final_val_metric"] = last["val_loss"], last["val_metric"]
    trials["best_val_metric"] = grouped["val_metric"].max()
    trials["best_epoch"] = epochs.loc[grouped["val_metric"].idxmax()].set_index("trial_id")["epoch"]
    confirm = trials["phase"] == "confirm"
    noise = rng.normal(-0.004, 0.003, len(trials))
    trials["test_metric"] = (trials["final_val_metric"] + noise).where(confirm)
    trials["test_loss"] = (1 - trials["test_metric"]) * 2.3
    trials["updates"], trials["examples"] = sums["updates"], sums["examples"]
    trials["standalone_device_s"], trials["spent_device_s"] = sums["device_s"], spent
    trials["recalled_epochs"] = sums["recalled"].astype(int)
    trials["started_at"] = 1.76e9 + np.arange(len(trials))
    trials["ended_at"] = trials["started_at"] + 30
    return trials.reset_index()


def _ledger(trials: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Two slots; each trial's trained seconds, then a pause; the shorter slot idles until the end."""
    own = epochs[~epochs["recalled"]]
    sums = own.groupby("trial_id")[["train_s", "eval_s", "state_s"]].sum()
    clock, rows = [0.0, 0.0], []

    def add(slot: int, seconds: float, category: str, trial: str | None = None) -> None:
        rows.append((1, "node-a", f"cpu:{slot}", 1.0, clock[slot], seconds, category, trial))
        clock[slot] += seconds

    for slot in (0, 1):
        add(slot, 1.5, "setup")
        add(slot, 0.3, "data")
    for k, trial in enumerate(trials["trial_id"]):
        slot = k % 2
        if trial in sums.index:
            train, evaluate, state = sums.loc[trial]
            for seconds, category in ((train, "train"), (evaluate, "evaluate"), (state, "state")):
                add(slot, float(seconds), category, trial)
        add(slot, 0.02, "between", trial)
    add(0, 2.0, "lost", trials["trial_id"].iloc[0])
    end = max(clock) + 0.4
    for slot in (0, 1):
        add(slot, max(end - 0.2 - clock[slot], 0.0), "idle")
        add(slot, 0.15, "teardown")
    names = ["run", "host", "device", "share", "start", "duration_s", "category", "trial_id"]
    return pd.DataFrame(rows, columns=names)


def _predictions(trials: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    confirm = trials[trials["phase"] == "confirm"].head(2)
    rows = [
        (trial, arm, example, None, example % 10, rng.normal(size=10).tolist())
        for trial, arm in zip(confirm["trial_id"], confirm["arm"], strict=True)
        for example in range(5)
    ]
    return pd.DataFrame(rows, columns=["trial_id", "arm", "example", "group", "label", "scores"])


def _write(frame: pd.DataFrame, schema: pa.Schema, path: Path) -> None:
    for name in schema.names:
        if name not in frame:
            frame[name] = None
    pq.write_table(pa.Table.from_pandas(frame[schema.names], schema, preserve_index=False), path)
