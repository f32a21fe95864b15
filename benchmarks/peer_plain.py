"""Runs the plain Ray Tune script with trials of our choice: as many seeds of one constant rate. All else stays as it is.

Usage: peer_plain.py SCRIPT NUM_TRIALS and the script's own arguments.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

from ray import tune

script, num_trials = sys.argv[1], int(sys.argv[2])
sys.argv = [script, *sys.argv[3:]]
tuner = tune.Tuner


def other_trials(train: Any, param_space: dict, **rest: Any) -> tune.Tuner:
    seeds = tune.grid_search(list(range(num_trials)))
    return tuner(train, param_space={"policy": "constant", "lr": 0.01, "seed": seeds, "batch": 64}, **rest)


tune.Tuner = other_trials
runpy.run_path(script, run_name="__main__")
