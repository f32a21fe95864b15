"""Optuna in one process on both cores: trials of one epoch of a LeNet, or of next to nothing.

Usage: peer_optuna.py short CIFAR_PARQUET N_TRAIN N_VAL TRIALS, or peer_optuna.py nothing TRIALS. Prints one JSON line.
Random search in memory, tensors in memory, no logs: what one writes who needs no cluster.
"""

from __future__ import annotations

import io
import json
import sys
import time

import numpy as np
import optuna
import torch
from torch import nn
from torch.nn import functional

BATCH = 64


def data(path: str, num_train: int, num_validation: int) -> tuple[torch.Tensor, torch.Tensor]:
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(path).slice(0, num_train + num_validation)
    images = np.stack(
        [np.asarray(Image.open(io.BytesIO(x)).convert("RGB")).transpose(2, 0, 1) for x in table["image"].to_pylist()]
    )
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.247, 0.2435, 0.2616]).view(1, 3, 1, 1)
    x = (torch.from_numpy(images).float() / 255 - mean) / deviation
    return x, torch.from_numpy(np.array(table["label"].to_pylist()))


def short(path: str, num_train: int, num_validation: int) -> object:
    x, y = data(path, num_train, num_validation)
    torch.set_num_threads(2)

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(trial.number)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip
        lr = trial.suggest_float("lr", 1e-3, 1e-1, log=True)
        optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9, weight_decay=5e-4)
        for chosen in torch.randperm(num_train).split(BATCH):
            batch = functional.pad(x[chosen], (4, 4, 4, 4))
            dy, dx = torch.randint(0, 9, (2,)).tolist()
            batch = batch[:, :, dy : dy + 32, dx : dx + 32]
            flip = torch.rand(len(batch)) < 0.5
            batch = torch.where(flip[:, None, None, None], batch.flip(-1), batch)
            optimizer.zero_grad()
            functional.cross_entropy(net(batch), y[chosen]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            parts = zip(x[num_train:].split(512), y[num_train:].split(512), strict=True)
            hits = sum(int((net(a).argmax(1) == b).sum()) for a, b in parts)
        return hits / num_validation

    return objective


def nothing(trial: optuna.Trial) -> float:
    return trial.suggest_float("lr", 1e-3, 1e-1, log=True)


if __name__ == "__main__":
    begin = time.time()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kind, *arguments = sys.argv[1:]
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    objective = nothing if kind == "nothing" else short(arguments[0], int(arguments[1]), int(arguments[2]))
    study.optimize(objective, n_trials=int(arguments[-1]))
    print(json.dumps({"wall_s": round(time.time() - begin, 1), "trials": len(study.trials), "best": study.best_value}))
