"""What a trial costs that trains next to nothing, as their number grows."""

from __future__ import annotations

import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from benchmarks.harness import HERE, Row, compared, in_turn
from benchmarks.study import wall

TITLE = "trials of near-zero length"
NOTES = (
    "One epoch of one update on 20 digits at as many rates as there are trials; two slots. The cost of a trial is what the wall time grows by,",
    "per trial, from one number of trials to the next; the ratio is that of the first thousand over that of the rest (1: it does not grow; up",
    "to 100, start-up varies by more than the trials take). Optuna calls a function in its own process, without workers, records or a model:",
    "a lower bound that nothing with processes reaches.",
)
SIZES = (100, 1_000, 5_000)
_STUDY = """
lrstudy: 1
name: controller
workload: {{data: digits, subset: 40, split: {{test: 100, validation: 20}}, model: small_cnn}}
budget: {{epochs: 1}}
common: {{lr: {{log: [0.0001, 1.0], steps: {trials}}}, batch_size: 20}}
arms: [constant]
search: {{method: grid, trials: {trials}, cohort: 0}}
confirm: {{top: 0}}
"""


def run(repeats: int) -> list[Row]:
    ours = {str(size): (lambda size=size: _wall(size)) for size in SIZES}
    peer = {f"optuna {size}": (lambda size=size: _optuna(size)) for size in SIZES}
    found = in_turn(ours | peer, repeats)
    first, second = (_growth(found, *span) for span in pairwise(SIZES))
    return [compared("a trial from 1,000 to 5,000, against one from 100 to 1,000", second, first, target=0.8)] + [
        compared(
            f"{size:,} trials that train nothing, against Optuna in one process",
            found[str(size)],
            found[f"optuna {size}"],
        )
        for size in SIZES
    ]


def _growth(found: dict[str, list[float]], few: int, many: int) -> list[float]:
    """Seconds that each further trial takes, for each repeat."""
    return [(b - a) / (many - few) for a, b in zip(found[str(few)], found[str(many)], strict=True)]


def _optuna(trials: int) -> float:
    return wall([sys.executable, str(HERE / "peer_optuna.py"), "nothing", str(trials)])


def _wall(trials: int) -> float:
    with tempfile.TemporaryDirectory(prefix="lrstudy-bench-") as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(_STUDY.format(trials=trials))
        return wall([str(Path(sys.executable).with_name("lrstudy")), "run", str(file), "--json"])
