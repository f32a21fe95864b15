"""Whoever has only the tables of a study can train the same in a bare PyTorch loop, and reach the same within noise.

Nothing here but the fixture, which runs a study, imports anything of ours. What a reader has to copy is the architecture.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

pytestmark = pytest.mark.slow

STUDY = """
lrstudy: 1
name: small
workload: {data: digits, subset: 500, split: {test: 0.5, validation: 100}, model: small_cnn, task: {class_weights: balanced}}
budget: {epochs: 6}
common: {lr: 0.05, batch_size: 24, weight_decay: 1e-3, nesterov: true}
arms: {step: {milestones: [50%]}, clr: {mode: triangular, step_size: 20%, base_ratio: 0.1}}
search: {method: grid, trials: 1, cohort: 1}
confirm: {seeds: 3}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was run to its end."""
    import time

    from lrstudy.running.tables import TableWriter
    from serial import Serial, study

    storage = tmp_path_factory.mktemp("bare")
    runner = Serial(study(storage, STUDY).plan()[0], storage)
    TableWriter(runner.run(), runner.journal.folder.parent).write(time.monotonic())
    return runner.journal.folder.parent


def digits() -> Tensor:
    """The images as the study stores them: whole numbers from 0 to 255, float32 of shape (1797, 1, 8, 8)."""
    from sklearn.datasets import load_digits

    return torch.from_numpy(np.rint(load_digits().images * (255 / 16))).float().unsqueeze(1)


def small_cnn() -> nn.Module:
    def stage(inputs: int, outputs: int, pool: nn.Module) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), pool, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *stage(1, 16, nn.MaxPool2d(2)), *stage(16, 32, nn.MaxPool2d(2)), *stage(32, 64, nn.Identity()),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def trained(folder: Path, trial_id: str, seed: int, change: Callable[[float], float] = lambda lr: lr) -> float:
    """Train what a trial trained, with the recorded settings and a seed of its own; returns its accuracy on the test part."""
    torch.manual_seed(seed)
    split = pd.read_parquet(folder / "split.parquet")
    (trial,) = pq.read_table(folder / "trials.parquet", filters=[("trial_id", "==", trial_id)]).to_pylist()
    epochs = pq.read_table(folder / "epochs.parquet", filters=[("trial_id", "==", trial_id)]).to_pylist()
    settings = {row["settings"]: row for row in pq.read_table(folder / "settings.parquet").to_pylist()}
    images, parts = digits(), {part: torch.tensor(rows["example"].tolist()) for part, rows in split.groupby("part")}
    images = (images - images[parts["train"]].mean()) / images[parts["train"]].std(correction=0)
    labels = torch.full((len(images),), -1)
    labels[torch.tensor(split["example"].tolist())] = torch.tensor(split["label"].tolist())
    assert (trial["optimizer"], trial["augmentation"]) == ("sgd", "none")
    loss_of = nn.CrossEntropyLoss(weight=torch.tensor(trial["class_weights"]))
    model = small_cnn()
    optimizer: torch.optim.SGD | None = None
    for epoch in sorted(epochs, key=lambda row: row["epoch"]):
        applied = settings[epoch["settings"]]
        recipe = json.loads(applied["recipe"])
        shape = (applied["updates"], applied["sections"])
        rates, momenta = (np.reshape(applied[name], shape) for name in ("lr", "momentum"))
        optimizer = optimizer or torch.optim.SGD(
            model.parameters(), 0.1, 0.9, weight_decay=recipe["weight_decay"], nesterov=recipe["nesterov"]
        )
        order = parts["train"][torch.randperm(len(parts["train"]))]
        bounds = [*(update * applied["batch_size"] for update in range(applied["updates"])), len(order)]
        model.train()
        for update in range(applied["updates"]):
            assert len(set(rates[update])) == 1, "one rate for all sections, so one parameter group"
            for group in optimizer.param_groups:
                group["lr"], group["momentum"] = change(rates[update, 0]), momenta[update, 0]
            batch = order[bounds[update] : bounds[update + 1]]
            optimizer.zero_grad()
            loss_of(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        right = model(images[parts["test"]]).argmax(1) == labels[parts["test"]]
    return float(right.float().mean())


@pytest.mark.parametrize("arm", ["step", "clr"])
def test_a_bare_loop_on_the_tables_reaches_the_test_metric_within_noise(folder, arm):
    """The tolerance is four standard errors of a difference of two means over seeds, from the spread within both."""
    trials = pd.read_parquet(folder / "trials.parquet")
    confirm = trials[(trials["phase"] == "confirm") & (trials["arm"] == arm)].sort_values("seed")
    ours = confirm["test_metric"].to_numpy()
    assert len(ours) == 3
    trial_id = confirm["trial_id"].iloc[0]
    bare = np.array([trained(folder, trial_id, seed) for seed in range(5)])
    variance = (2 * ours.var(ddof=1) + 4 * bare.var(ddof=1)) / 6
    tolerance = 4 * np.sqrt(variance * (1 / 3 + 1 / 5))
    assert abs(bare.mean() - ours.mean()) <= tolerance
    slow = trained(folder, trial_id, 0, change=lambda lr: lr / 30)
    assert slow < ours.mean() - tolerance, "other rates than those recorded reach something else"
