"""Keeping freed memory, as our workers do, against glibc's defaults: the same epoch, and what it takes of memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.harness import Row, compared, in_turn
from benchmarks.study import last_json

TITLE = "freed memory kept for the next update"
NOTES = (
    "Our training epoch on a CPU, one core, images from a mapped file, in processes of their own that differ in one call",
    "(training/host_memory.py): the mean of four epochs, the first of which is not timed, and the most memory that the process held.",
    "Numbers are the same bit for bit.",
)
_CASES = {"lenet": (32, 64, 64), "mobilenet_v2": (96, 32, 6), "resnet18": (96, 32, 4), "small_cnn": (224, 32, 10)}
"""Side of the images, examples of a batch, updates of an epoch."""


def run(repeats: int) -> list[Row]:
    return [row for model in _CASES for row in _rows(model, repeats)]


def _rows(model: str, repeats: int) -> Iterator[Row]:
    found = in_turn({how: lambda how=how: _epochs(model, how) for how in ("kept", "returned")}, repeats)
    side, batch, _ = _CASES[model]
    for what, key, unit in (("time of an epoch", "seconds", "s"), ("memory", "megabytes", "MB")):
        kept, returned = ([each[key] for each in found[how]] for how in ("kept", "returned"))
        yield compared(f"{model}, {side} pixels, batches of {batch}: {what}", kept, returned, unit)


def _epochs(model: str, how: str) -> dict[str, float]:
    command = [sys.executable, "-c", _EPOCHS, model, *map(str, _CASES[model]), how]
    return last_json(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


_EPOCHS = """
import json, resource, sys, tempfile, time
import numpy as np, torch
from lrstudy import models
from lrstudy.data.batches import part_of
from lrstudy.numerics import Arithmetic
from lrstudy.settings import Recipe, Settings
from lrstudy.training import host_memory
from lrstudy.training.epoch import train_epoch
from lrstudy.training.state import State

model, (side, batch, updates), how = sys.argv[1], map(int, sys.argv[2:5]), sys.argv[5]
torch.set_num_threads(1)
if how == "kept":
    host_memory.keep_freed()
count = batch * updates
with tempfile.NamedTemporaryFile(suffix=".npy") as file:
    np.save(file.name, np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8))
    images = np.load(file.name, mmap_mode="r")
    part = part_of(
        images, np.arange(count) % 10, np.arange(count), torch.device("cpu"), ((0.5,) * 3, (0.5,) * 3),
        memory_format="channels_last",
    )
    state = State.of(models.build(model, 10, 3, side, 0), torch.device("cpu"), Arithmetic(memory_format="channels_last"))
    settings = Settings(np.full((updates, len(state.sections)), 1e-3), np.array(0.9), batch, Recipe(tail="drop"))
    train_epoch(state, settings, part, 0, 0)
    begin = time.perf_counter()
    for epoch in range(1, 5):
        train_epoch(state, settings, part, 0, epoch)
    seconds = (time.perf_counter() - begin) / 4
print(json.dumps({"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))
"""
