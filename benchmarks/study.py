"""A study of 24 trials x 6 epochs, against the plain Ray Tune script and a well-written one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import HERE, Row, compared, in_turn

TITLE = "24 trials x 6 epochs, against Ray Tune scripts"
NOTES = (
    "Constant, step, batch increase, triangular, triangular2 and SGDR at two rates and two seeds: a LeNet on 5,000 images of CIFAR-10",
    "with crop and flip, 1,000 for validation, two slots on two cores; whole processes, from start to exit. The plain script is written as in",
    "Ray's tutorial; the well-written one reuses workers, keeps tensors in memory and writes no logs (peer_reusing.py). Set",
    "LRSTUDY_CIFAR10 (a folder with train.parquet) and LRSTUDY_PLAIN_SCRIPT. Where ours goes, by its ledger: 14 to 15 s before training",
    "begins (decoding all 50,000 images of the file, of which the others read 6,000 only, 4.7 s, Ray 3.3 s, workers with torch 5 s, the rest",
    "imports and the machine's numerics), 37 s of training 104 distinct epochs on both cores, 3.4 s of evaluation, 1.4 s of shutting down.",
    "The floor is 41 s, what training and evaluation take alone: 6.0 times the plain script, which on another machine was slower (443 s,",
    "where a bare loop of all 144 epochs took 77 s).",
)
TRAIN, VALIDATION, EPOCHS = 5000, 1000, 6
_STUDY = """
lrstudy: 1
name: peer
workload:
  data: {{source: 'parquet:{data}/train.parquet'}}
  split: {{test: 10, validation: {validation}}}
  subset: {subset}
  augment: crop_flip
  model: lenet
budget: {{epochs: {epochs}}}
common: {{lr: {{choice: [0.01, 0.03]}}, batch_size: 64, weight_decay: 5e-4}}
arms:
  constant:
  step: {{milestones: [50%, 75%], gamma: 0.1}}
  batch_increase: {{milestones: [50%, 75%], factor: 2, cap: null}}
  triangular: {{policy: clr, mode: triangular, step_size: 2, base_ratio: 0.1}}
  triangular2: {{policy: clr, mode: triangular2, step_size: 2, base_ratio: 0.1}}
  sgdr: {{t0: 1, t_mult: 2, min_ratio: 0}}
search: {{method: grid, trials: 2, cohort: 0, seeds: [0, 1]}}
confirm: {{top: 0}}
"""


def run(repeats: int) -> list[Row]:
    data = Path(os.environ["LRSTUDY_CIFAR10"])
    plain = Path(os.environ["LRSTUDY_PLAIN_SCRIPT"])
    arguments = [str(data / "train.parquet"), str(TRAIN), str(VALIDATION), str(EPOCHS)]
    found = in_turn(
        {
            "ours": lambda: wall(ours(data)),
            "plain": lambda: wall([sys.executable, str(plain), *arguments]),
            "reusing": lambda: wall([sys.executable, str(HERE / "peer_reusing.py"), *arguments]),
        },
        repeats,
    )
    return [
        compared("wall, against the plain script", found["ours"], found["plain"], target=6.0),
        compared("wall, against the well-written script", found["ours"], found["reusing"], target=1.0),
    ]


def ours(data: Path, **values: Any) -> list[str]:
    """The command of our side, on a new storage."""
    folder = Path(tempfile.mkdtemp(prefix="lrstudy-bench-"))
    filled = {"data": data, "validation": VALIDATION, "subset": TRAIN + VALIDATION, "epochs": EPOCHS, **values}
    (folder / "study.yaml").write_text(_STUDY.format(**filled))
    return [str(Path(sys.executable).with_name("lrstudy")), "run", str(folder / "study.yaml"), "--json"]


def wall(command: list[str]) -> float:
    """Wall seconds of a whole process. Raises if it fails."""
    import time

    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
    return seconds


def last_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found
