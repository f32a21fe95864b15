"""An epoch on a set that is larger than the memory allowed, against the same images in memory; and what memory it takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import Row, compared, in_turn
from benchmarks.study import last_json

TITLE = "sets larger than memory"
NOTES = (
    "Batches of 32 images of 224 pixels from a decoded file, read as one that exceeds the machine's memory; training on one core, two",
    "threads that read ahead. Time: an epoch of 640 images that are read ahead (from the page cache here), against the same in memory.",
    "Memory: the most that the process allocates (RssAnon, which leaves out the file's own pages) with a linear model in an epoch on a set of",
    "3 GB, against ten epochs on one of 0.3 GB, so that both read as much: 1 means that ten times the data take the same.",
)
SIDE, TIMED, SMALL, LARGE = 224, 640, 2_000, 20_000


def run(repeats: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="lrstudy-bench-") as folder:
        path = Path(folder) / "images.npy"
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (LARGE, 3, SIDE, SIDE))
        rng = np.random.default_rng(0)
        for start in range(0, LARGE, 500):
            images[start : start + 500] = rng.integers(0, 256, (500, 3, SIDE, SIDE), dtype=np.uint8)
        del images
        times = in_turn(
            {how: lambda how=how: _epochs(path, TIMED, how, "small_cnn")["seconds"] for how in ("ahead", "memory")},
            repeats,
        )
        sizes = in_turn(
            {
                str(n): lambda n=n: _epochs(path, n, "ahead", "linear", LARGE // n)["allocated"] / 1e6
                for n in (SMALL, LARGE)
            },
            repeats,
        )
    return [
        compared("time of an epoch, read ahead against in memory", times["ahead"], times["memory"], target=0.95),
        compared(
            f"memory with {LARGE:,} images, against {SMALL:,}", sizes[str(LARGE)], sizes[str(SMALL)], "MB", target=0.9
        ),
    ]


def _epochs(path: Path, count: int, how: str, model: str, epochs: int = 1) -> dict[str, float]:
    """Time and memory of some epochs in a process of their own."""
    command = [sys.executable, "-c", _EPOCHS, str(path), str(count), how, model, str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return last_json(done.stdout)


_EPOCHS = """
import json, sys, threading, time
import numpy as np, torch
from lrstudy import models
from lrstudy.data import reading
from lrstudy.data.batches import part_of
from lrstudy.numerics import Arithmetic
from lrstudy.settings import Recipe, Settings
from lrstudy.training import host_memory
from lrstudy.training.epoch import train_epoch
from lrstudy.training.state import State

path, count, how, model = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
host_memory.keep_freed()
arithmetic = Arithmetic(memory_format="channels_last")
images = np.load(path, mmap_mode="r")
reading.memory_bytes = lambda: images.nbytes if how == "ahead" else 1 << 60
index = np.arange(count)
source = np.array(images[:count]) if how == "memory" else images
labels = np.arange(len(images)) % 2
part = part_of(source, labels, index, torch.device("cpu"), ((0.5,) * 3, (0.5,) * 3), memory_format="channels_last")
linear = torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten(), torch.nn.Linear(147, 2))
linear = models.Model(linear, models.sections(linear), {})
state = State.of(linear if model == "linear" else models.build(model, 2, 3, 224, 0), torch.device("cpu"), arithmetic)

def settings(updates):
    return Settings(np.full((updates, len(state.sections)), 1e-3), np.array(0.9), 32, Recipe(tail="drop"))

def allocated():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

train_epoch(state, settings(4), part, 0, 0)
before = most = allocated()
done = threading.Event()

def watch():
    global most
    while not done.wait(0.05):
        most = max(most, allocated())

watcher = threading.Thread(target=watch)
watcher.start()
begin = time.perf_counter()
for epoch in range(int(sys.argv[5])):
    train_epoch(state, settings(count // 32), part, 0, 1 + epoch)
seconds = time.perf_counter() - begin
done.set()
watcher.join()
print(json.dumps({"seconds": seconds, "allocated": most}))
"""
