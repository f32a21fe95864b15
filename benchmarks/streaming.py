"""An epoch on a set that is larger than the memory allowed, against the same images in memory; and what memory it takes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.epochs import made, measured
from benchmarks.harness import Row, compared, in_turn

TITLE = "sets larger than memory"
NOTES = (
    "Batches of 32 images of 224 pixels from a decoded file, read as one that exceeds the machine's memory; training on one core, two",
    "threads that read ahead. Time: an epoch of 640 images that are read ahead (from the page cache here), against the same in memory.",
    "Memory: the most that the process allocates (RssAnon, which leaves out the file's own pages) with a linear model in an epoch on a set of",
    "3 GB, against ten epochs on one of 0.3 GB, so that both read as much: 1 means that ten times the data take the same.",
)
SIDE, BATCH, TIMED, SMALL, LARGE = 224, 32, 640, 2_000, 20_000


def run(repeats: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="lrstudy-bench-") as folder:
        file = made(Path(folder) / "images.npy", LARGE, SIDE)
        times = in_turn(
            {
                how: lambda how=how: measured(file, TIMED, BATCH, "small_cnn", how).seconds
                for how in ("ahead", "memory")
            },
            repeats,
        )
        sizes = in_turn(
            {
                str(n): lambda n=n: measured(file, n, BATCH, "linear", "ahead", epochs=LARGE // n).megabytes
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
