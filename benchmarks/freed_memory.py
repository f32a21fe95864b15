"""Keeping freed memory, as our workers do, against glibc's defaults: the same epoch, and what it takes of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.epochs import made, measured
from benchmarks.harness import Row, compared, in_turn

TITLE = "freed memory kept for the next update"
NOTES = (
    "Our training epoch on a CPU, one core, images from a mapped file, in processes of their own that differ in one call",
    "(training/host_memory.py): the mean of four epochs after a warm-up, and the most memory that the process held.",
)
_CASES = {"lenet": (32, 64, 64), "mobilenet_v2": (96, 32, 6), "resnet18": (96, 32, 4), "small_cnn": (224, 32, 10)}
"""Side of the images, examples of a batch, updates of an epoch."""


def run(repeats: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="lrstudy-bench-") as folder:
        return [row for model in _CASES for row in _rows(model, Path(folder), repeats)]


def _rows(model: str, folder: Path, repeats: int) -> Iterator[Row]:
    side, batch, updates = _CASES[model]
    count = batch * updates
    file = made(folder / f"{model}.npy", count, side)
    ways = ("kept", "returned")
    found = in_turn(
        {how: lambda how=how: measured(file, count, batch, model, freed=how, epochs=4) for how in ways}, repeats
    )
    what = f"{model}, {side} pixels, batches of {batch}"
    yield compared(f"{what}: time of an epoch", *([each.seconds for each in found[how]] for how in ways))
    yield compared(f"{what}: memory", *([each.megabytes for each in found[how]] for how in ways), "MB")
