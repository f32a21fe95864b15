"""Some of our training epochs in a process of their own, as a worker on one core trains: how long, and with what memory."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.study import last_json
from lrstudy.data import reading
from lrstudy.data.batches import part_of
from lrstudy.models.build import Model, build_model, sections
from lrstudy.settings import Recipe, Settings
from lrstudy.training import host_memory
from lrstudy.training.epoch import train_epoch
from lrstudy.training.state import State
from lrstudy.workload.numerics import NumericsSpec

CPU = torch.device("cpu")
_WARM_UP = 4


@dataclass(frozen=True)
class Measured:
    """Mean seconds of an epoch, and the most megabytes that the process allocated (RssAnon, without the file's pages)."""

    seconds: float
    megabytes: float


def made(path: Path, count: int, side: int) -> Path:
    """A decoded file of `count` images at `path`."""
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 3, side, side))
    rng = np.random.default_rng(0)
    for start in range(0, count, 500):
        images[start : start + 500] = rng.integers(0, 256, images[start : start + 500].shape, dtype=np.uint8)
    return path


def measured(
    file: Path, count: int, batch: int, model: str, read: str = "mapped", freed: str = "kept", epochs: int = 1
) -> Measured:
    """Train on the first `count` images of `file`, in a process of its own.

    `read`: ``mapped``, ``ahead``, as a file that exceeds the memory, or ``memory``. `freed`: memory is ``kept``, as by
    workers, or ``returned``, as glibc has it. `model`: one of ours, or ``linear``.
    """
    given = {"file": file, "count": count, "batch": batch, "model": model, "read": read, "freed": freed}
    options = [f"--{name}={value}" for name, value in (given | {"epochs": epochs}).items()]
    command = [sys.executable, "-m", "benchmarks.epochs", *options]
    return Measured(**last_json(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def _train(given: argparse.Namespace) -> Measured:
    torch.set_num_threads(1)
    if given.freed == "kept":
        host_memory.keep_freed()
    images = np.load(given.file, mmap_mode="r")
    reading.memory_bytes = lambda: images.nbytes if given.read == "ahead" else 1 << 60
    source = np.array(images[: given.count]) if given.read == "memory" else images
    constants = ((0.5,) * 3, (0.5,) * 3)
    part = part_of(
        source, np.arange(len(images)) % 2, np.arange(given.count), CPU, constants, memory_format="channels_last"
    )
    network = (
        _linear(images.shape[-1]) if given.model == "linear" else build_model(given.model, 2, *images.shape[1:3], 0)
    )
    state = State.of(network, CPU, NumericsSpec(memory_format="channels_last"))

    def epoch(number: int, updates: int) -> None:
        rates = np.full((updates, len(state.sections)), 1e-3)
        train_epoch(state, Settings(rates, np.array(0.9), given.batch, Recipe(tail="drop")), part, 0, number)

    epoch(0, _WARM_UP)
    with _Watch() as watch:
        begin = time.perf_counter()
        for number in range(given.epochs):
            epoch(1 + number, given.count // given.batch)
        seconds = time.perf_counter() - begin
    return Measured(seconds / given.epochs, watch.most_bytes / 1e6)


def _linear(side: int) -> Model:
    """A model that computes next to nothing."""
    pool = side // 7
    module = torch.nn.Sequential(
        torch.nn.AvgPool2d(pool), torch.nn.Flatten(), torch.nn.Linear(3 * (side // pool) ** 2, 2)
    )
    return Model(module, sections(module), {})


class _Watch:
    """The most that this process allocates within the context, looked at 20 times a second."""

    def __enter__(self) -> _Watch:
        self.most_bytes = _allocated()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.05):
            self.most_bytes = max(self.most_bytes, _allocated())


def _allocated() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epochs")
    for name in ("file", "model", "read", "freed"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("count", "batch", "epochs"):
        parser.add_argument(f"--{name}", required=True, type=int)
    print(json.dumps(asdict(_train(parser.parse_args()))))


if __name__ == "__main__":
    main()
