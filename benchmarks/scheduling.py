"""How trials are ordered on 2, 8 and 64 slots: the real admission and searchers on a simulated clock."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness import HERE, Row
from benchmarks.simulation import Outcome, simulate
from lrstudy.settings import Settings
from lrstudy.study import Study

TITLE = "trials on simulated slots"
NOTES = (
    "The 124 configurations of sharing.yaml x 30 epochs of 10 s, the real admission and protocol, simulated training. The bound on wall time",
    "is the larger of the longest chain of epochs and the work divided by the slots; the ratio is that bound over the wall time. Deaths: in",
    "one epoch of a hundred the worker dies, the epoch is lost and its slot is 5 s away.",
)


def run(repeats: int) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for slots in (2, 8, 64):
            for deaths in (0.0, 0.01):
                found = [_simulated(Path(folder), slots, deaths, seed) for seed in range(repeats)]
                rows += _rows(slots, deaths, found)
    return rows


def _simulated(folder: Path, slots: int, deaths: float, seed: int) -> Outcome:
    overrides = [f"storage.path={folder}", f"search.outstanding={max(4, 2 * slots // 5)}"]
    plan, _ = Study.from_yaml(HERE / "sharing.yaml", overrides).plan()
    with tempfile.TemporaryDirectory() as place:
        return simulate(plan, Path(place), slots, _seconds, deaths, seed)


def _seconds(settings: Settings) -> float:
    return 2.0 + 8.0 * settings.num_updates * settings.batch_size / 100


def _rows(slots: int, deaths: float, found: list[Outcome]) -> list[Row]:
    name = f"{slots} slots" + (", deaths" if deaths else "")
    epochs = [outcome.distinct / len(outcome.trained) for outcome in found]
    bound = [1 / outcome.over_bound for outcome in found]
    middle = found[len(found) // 2]
    trained, distinct = f"{len(middle.trained)} trained", f"{middle.distinct} distinct of {middle.asked} asked"
    idle = sorted(outcome.idle_share for outcome in found)[len(found) // 2]
    wall = f"{middle.span_s / 60:.0f} min, {100 * idle:.1f}% idle"
    best = f"{middle.span_s / middle.over_bound / 60:.0f} min"
    return [
        Row(
            f"{name}: epochs",
            trained,
            distinct,
            sorted(epochs)[len(epochs) // 2],
            min(epochs),
            max(epochs),
            len(epochs),
            1 / 1.02,
        ),
        Row(f"{name}: wall time", wall, best, sorted(bound)[len(bound) // 2], min(bound), max(bound), len(bound)),
    ]
