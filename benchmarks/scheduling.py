"""How trials are ordered on 2 to 64 slots: the real admission and searchers on a simulated clock."""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from benchmarks.harness import HERE, Row, compared, in_turn
from benchmarks.simulation import Outcome, simulate
from lrstudy.planning.plan import default_outstanding
from lrstudy.search import base
from lrstudy.search.stream import Stream
from lrstudy.settings import Settings
from lrstudy.study import Study
from lrstudy.study_folder.journal import Journal

TITLE = "trials on simulated slots"
NOTES = (
    "The 124 configurations of sharing.yaml x 30 epochs of 10 s, the real admission and protocol, simulated training. The bound on wall time",
    "is the larger of the longest chain of epochs and the work divided by the slots; the ratio is that bound over the wall time. Deaths: in",
    "one epoch of a hundred the worker dies, the epoch is lost and its slot is 5 s away. Barrier: the same arms, each with 16 trials by",
    "HyperOpt, the cohort 8 of them, and 5 confirm trials; ours waits for an arm's cohort before it asks for more, against the rule that",
    "asked 2 x slots / arms ahead of results from the start, with a model from 4 results on. In brackets the suggestions by a model, of 40.",
)
_MODEL = ("search={method: hyperopt, trials: 16, cohort: 8}", "confirm={top: 1, seeds: 5}")
_LR = "common.lr={log: [1e-3, 1.0], steps: 10}"


def run(repeats: int) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for slots in (2, 8, 64):
            for deaths in (0.0, 0.01):
                found = [_simulated(Path(folder), slots, deaths, seed) for seed in range(repeats)]
                rows += _rows(slots, deaths, found)
        for slots in (2, 8, 32, 64):
            rows.append(_barrier(Path(folder), slots, repeats))
    return rows


@dataclass(frozen=True)
class _Searched:
    """How long a simulated study took, and how many suggestions a model made."""

    span_s: float
    by_model: int


def _barrier(folder: Path, slots: int, repeats: int) -> Row:
    seeds = {"new": iter(range(repeats)), "old": iter(range(repeats))}
    found = in_turn(
        {
            "new": lambda: _searched(folder, slots, next(seeds["new"]), nullcontext()),
            "old": lambda: _searched(folder, slots, next(seeds["old"]), _earlier_rule()),
        },
        repeats,
    )
    spans = {rule: [one.span_s / 60 for one in runs] for rule, runs in found.items()}
    models = {rule: sorted(one.by_model for one in runs)[repeats // 2] for rule, runs in found.items()}
    row = compared(f"{slots} slots: barrier, wall time", spans["new"], spans["old"], "min")
    return Row(
        row.what, f"{row.ours} ({models['new']})", f"{row.other} ({models['old']})",
        row.ratio, row.low, row.high, row.repeats,
    )  # fmt: skip


def _searched(folder: Path, slots: int, seed: int, rule: AbstractContextManager[object]) -> _Searched:
    overrides = [f"storage.path={folder}", *_MODEL, _LR, f"search.seed={seed}", "name=barrier"]
    study = Study.from_yaml(HERE / "sharing.yaml", overrides)
    outstanding = f"search.outstanding={default_outstanding(study.file, slots)}"
    plan, _ = Study.from_yaml(HERE / "sharing.yaml", [*overrides, outstanding]).plan()
    with tempfile.TemporaryDirectory() as place, rule:
        outcome = simulate(plan, Path(place), slots, _seconds, seed=seed)
        suggested = Journal(Path(place) / "journal").of_kind("suggest")
        return _Searched(outcome.span_s, sum(line["proposed_by"] == "model" for line in suggested))


def _earlier_rule() -> AbstractContextManager[object]:
    """The rule without the cohort, and a model from 4 results on."""
    return mock.patch.multiple(
        Stream, _num_needed=lambda stream, index: index - stream._outstanding + 1, _of_searcher=_of_late_searcher
    )


_of_searcher = Stream._of_searcher


def _of_late_searcher(stream: Stream, index: int) -> object:
    with mock.patch.object(base, "START_UP", 4):
        return _of_searcher(stream, index)


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
