"""A well-written Ray Tune script for the same trials: workers are reused, tensors stay in memory, nothing is logged.

Usage: peer_reusing.py CIFAR_PARQUET N_TRAIN N_VAL EPOCHS. Prints one JSON line. It trains every trial whole.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time

PATH, N_TRAIN, N_VAL, EPOCHS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
TRIALS = int(sys.argv[5]) if len(sys.argv) > 5 else 24
os.environ |= {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_USAGE_STATS_ENABLED": "0",
}

import numpy as np  # noqa: E402
import ray  # noqa: E402
from ray import tune  # noqa: E402


def decoded() -> tuple[np.ndarray, np.ndarray]:
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(PATH).slice(0, N_TRAIN + N_VAL)
    images = [
        np.asarray(Image.open(io.BytesIO(x)).convert("RGB")).transpose(2, 0, 1) for x in table["image"].to_pylist()
    ]
    return np.stack(images), np.array(table["label"].to_pylist())


class Trial(tune.Trainable):
    """A trial whose worker, data and imports are kept for the next one."""

    def setup(self, config: dict) -> None:
        import torch

        torch.set_num_threads(1)
        images, labels = ray.get(config["data"])
        mean, deviation = np.array([0.4914, 0.4822, 0.4465]), np.array([0.247, 0.2435, 0.2616])
        x = (torch.from_numpy(images.copy()).float() / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(
            deviation
        ).view(1, 3, 1, 1)
        self.x, self.y = x.float(), torch.from_numpy(labels)
        self.reset_config(config)

    def reset_config(self, config: dict) -> bool:
        import torch
        from torch import nn

        self.cfg = config
        torch.manual_seed(config["seed"])
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip
        self.optimizer = torch.optim.SGD(self.net.parameters(), config["lr"], momentum=0.9, weight_decay=5e-4)
        steps, kind = -(-N_TRAIN // config["batch"]), config["policy"]
        self.scheduler, self.per_step, self.batch, self.epoch = None, False, config["batch"], 0
        schedulers = torch.optim.lr_scheduler
        if kind == "step":
            self.scheduler = schedulers.MultiStepLR(self.optimizer, [EPOCHS // 2, 3 * EPOCHS // 4], 0.1)
        elif kind in ("triangular", "triangular2"):
            self.scheduler = schedulers.CyclicLR(
                self.optimizer, config["lr"] / 10, config["lr"], step_size_up=2 * steps, mode=kind, cycle_momentum=False
            )
            self.per_step = True
        elif kind == "sgdr":
            self.scheduler, self.per_step = schedulers.CosineAnnealingWarmRestarts(self.optimizer, steps, 2), True
        return True

    def step(self) -> dict:
        import torch
        from torch.nn import functional

        if self.cfg["policy"] == "batch" and self.epoch in (EPOCHS // 2, 3 * EPOCHS // 4):
            self.batch *= 2
        x, y = self.x[:N_TRAIN], self.y[:N_TRAIN]
        self.net.train()
        for chosen in torch.randperm(N_TRAIN).split(self.batch):
            batch = functional.pad(x[chosen], (4, 4, 4, 4))
            dy, dx = torch.randint(0, 9, (2,)).tolist()
            batch = batch[:, :, dy : dy + 32, dx : dx + 32]
            flip = torch.rand(len(batch)) < 0.5
            batch = torch.where(flip[:, None, None, None], batch.flip(-1), batch)
            self.optimizer.zero_grad()
            functional.cross_entropy(self.net(batch), y[chosen]).backward()
            self.optimizer.step()
            if self.per_step:
                self.scheduler.step()
        if self.scheduler and not self.per_step:
            self.scheduler.step()
        self.net.eval()
        with torch.no_grad():
            hits = sum(
                int((self.net(a).argmax(1) == b).sum())
                for a, b in zip(self.x[N_TRAIN:].split(512), self.y[N_TRAIN:].split(512), strict=True)
            )
        self.epoch += 1
        return {"acc": hits / N_VAL, "done": self.epoch == EPOCHS}


if __name__ == "__main__":
    begin = time.time()
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    grid = {
        "policy": tune.grid_search(["constant", "step", "batch", "triangular", "triangular2", "sgdr"])
        if TRIALS == 24
        else "constant",
        "lr": tune.grid_search([0.01, 0.03]) if TRIALS == 24 else 0.01,
        "seed": tune.grid_search([0, 1]) if TRIALS == 24 else tune.grid_search(list(range(TRIALS))),
        "batch": 64,
        "data": ray.put(decoded()),
    }
    tuner = tune.Tuner(
        tune.with_resources(Trial, {"cpu": 1}),
        param_space=grid,
        tune_config=tune.TuneConfig(metric="acc", mode="max", reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=tempfile.mkdtemp(), verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)
        ),
    )
    results = tuner.fit()
    best = max(result.metrics["acc"] for result in results)
    device_s = sum(result.metrics["time_total_s"] for result in results)
    print(
        json.dumps(
            {"wall_s": round(time.time() - begin, 1), "device_s": device_s, "trials": len(results), "best": best}
        )
    )
