"""Many short trials: each a single epoch that nobody shares, so that what counts is the cost of a trial itself."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import HERE, Row, compared, in_turn
from benchmarks.study import arguments, wall

TITLE = "100 trials of one unshared epoch"
NOTES = (
    "One epoch of a LeNet on 5,000 images and an evaluation on 1,000, at as many rates (here) or seeds (there) as there are trials; two slots",
    "on two cores, whole processes from start to exit. The plain script is the one of `study` with these trials in place of its own.",
    "Where ours loses to scripts that read 6,000 images: all 50,000 of the file are decoded, 4.7 s, beside which Ray comes up; then",
    "workers import torch, 5 s.",
)
TRIALS = 100
_STUDY = """
lrstudy: 1
name: short
workload:
  data: {{source: 'parquet:{data}/train.parquet'}}
  split: {{test: 10, validation: 1000}}
  subset: 6000
  augment: crop_flip
  model: lenet
budget: {{epochs: 1}}
common: {{lr: {{log: [0.001, 0.1], steps: {trials}}}, batch_size: 64, weight_decay: 5e-4}}
arms: [constant]
search: {{method: grid, trials: {trials}, cohort: 0}}
confirm: {{top: 0}}
"""


def run(repeats: int) -> list[Row]:
    data, plain = Path(os.environ["LRSTUDY_CIFAR10"]), Path(os.environ["LRSTUDY_PLAIN_SCRIPT"])
    given = arguments(data, epochs=1)

    def ours() -> float:
        with tempfile.TemporaryDirectory(prefix="lrstudy-bench-") as folder:
            file = Path(folder) / "study.yaml"
            file.write_text(_STUDY.format(data=data, trials=TRIALS))
            return wall([str(Path(sys.executable).with_name("lrstudy")), "run", str(file), "--json"])

    found = in_turn(
        {
            "ours": ours,
            "plain": lambda: wall([sys.executable, str(HERE / "peer_plain.py"), str(plain), str(TRIALS), *given]),
            "reusing": lambda: wall([sys.executable, str(HERE / "peer_reusing.py"), *given, str(TRIALS)]),
            "optuna": lambda: wall([sys.executable, str(HERE / "peer_optuna.py"), "short", *given[:3], str(TRIALS)]),
        },
        repeats,
    )
    return [
        compared("wall, against the plain script", found["ours"], found["plain"], target=6.0),
        compared("wall, against the well-written script", found["ours"], found["reusing"], target=1.0),
        compared("wall, against Optuna in one process on both cores", found["ours"], found["optuna"]),
    ]
