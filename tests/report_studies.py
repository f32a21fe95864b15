"""The studies that the tests of reports read, and how their folders are changed afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lrstudy.planning import study_lock
from lrstudy_reports import summary
from prescribed import run_study
from study_files import plan_of

EFFECTS = {"step": 0.006, "batch_increase": -0.001, "sgdr_dlr": 0.021}
COMMON = """
common:
  lr: {ordered: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2], default: 0.05}
  weight_decay: {choice: [0, 1e-4, 5e-4]}
  batch_size: 32
compare: {control: constant}
resources: {gpu: 0, cpu: 1}
"""
DIGITS = "workload: {data: digits, subset: 740, split: {test: 100, validation: 100}}"
"""640 examples to train on, which are 20 updates with a batch of 32."""
FULL = f"""
lrstudy: 1
name: digits
{DIGITS}
budget: {{epochs: 6}}
arms:
  constant:
  step: {{milestones: [50%], gamma: {{choice: [0.1, 0.5]}}}}
  batch_increase: {{milestones: [50%], factor: 2}}
  clr: {{mode: triangular, step_size: 20%, base_ratio: 0.1}}
  sgdr_dlr: {{section_ratios: [0.1, 0.3, 1.0], t0: 50%, t_mult: 1}}
search: {{method: [random, grid], trials: 6, cohort: 3}}
confirm: {{seeds: 5}}
{COMMON}"""
SMALL = f"""
lrstudy: 1
name: small
{DIGITS}
budget: {{epochs: 3}}
arms: {{constant: , step: {{milestones: [2]}}}}
search: {{method: random, trials: 3, cohort: 1}}
confirm: {{seeds: 5}}
{COMMON}"""
KILLED = "sgdr_dlr-random-2-0"
"""The trial of the full study whose worker dies once."""

NAMES = ["ant", "bee", "cat"]
COUNTS = {"train": (40, 15, 5), "val": (12, 8, 0), "test": (20, 10, 0)}
"""How many examples of each of these classes every part has, in the studies `with_classes`."""
DATA = """
import numpy as np

def load():
    labels, part = {labels!r}, {part!r}
    return {{"images": np.zeros((len(labels), 8, 8), np.uint8), "labels": labels, "part": part}}
"""

Edit = Callable[[pd.DataFrame], pd.DataFrame]


def copied(study: Path, folder: Path) -> Path:
    """A copy of a study's folder."""
    shutil.copytree(study, folder)
    return folder


def relock(folder: Path, text: str, *overrides: str) -> None:
    """Write the lock of a run of `text` with `overrides`; only for what changes nothing but the lock."""
    lock = json.loads((folder / "study.lock.json").read_text())
    rendered = study_lock.render(plan_of(*overrides, text=text), overrides, lock["complete"], lock["versions"])
    (folder / "study.lock.json").write_text(rendered)


def edit_lock(folder: Path, **values: Any) -> None:
    """Put values into a lock."""
    path = folder / "study.lock.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_table(path: Path, edit: Edit) -> None:
    """Change the rows of a table; its columns and their types stay."""
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pandas(edit(table.to_pandas()), table.schema, preserve_index=False), path)


def by_arm(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a study's verdict table by arm."""
    return {row["arm"]: row for row in summary(folder)}


def confirmed(folder: Path) -> pd.DataFrame:
    """Test values of the confirm trials: a row per seed, a column per arm."""
    trials = pd.read_parquet(folder / "trials.parquet")
    return trials[trials["phase"] == "confirm"].pivot(index="seed", columns="arm", values="test_metric")


def with_classes(folder: Path, several: bool, names: list[str] = NAMES) -> Path:
    """A study of data whose examples have one of the classes `names`; or `several`, which happen to be one each."""
    of_each = [(part, name, n) for part, counts in COUNTS.items() for name, n in zip(names, counts, strict=False)]
    labels = [[name] if several else name for _, name, n in of_each for _ in range(n)]
    part = [part for part, _, n in of_each for _ in range(n)]
    (folder / "mine.py").write_text(DATA.format(labels=labels, part=part))
    data = f"workload.data={folder / 'mine.py'}:load"
    given = ("workload.split.test=given", "workload.split.validation=given", "workload.subset=null")
    return run_study(folder / "runs", SMALL, data, *given, "confirm.seeds=3")
