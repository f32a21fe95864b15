"""Copies among the test examples: counted before any study, said in its notes, in its lock, and never counted twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from image_files import image
from lrstudy.data.statistics import Statistics
from lrstudy.planning import arm_checks, study_lock
from lrstudy.study import Study
from lrstudy.workload import copies
from lrstudy.workload.workload import with_copies

STUDY = """
lrstudy: 1
name: copies
workload: {data: "folder:d"}
budget: {epochs: 2}
common: {lr: 0.05, batch_size: 4}
arms: [constant]
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """The same photographs in train/ and test/, as in sets put together from several sources: 6 of 8 per class."""
    for number, name in enumerate(("benign", "malignant")):
        pixels = [np.full((8, 8), 100 * number + k, np.uint8) for k in range(28)]
        for k in range(20):
            image(tmp_path / "d" / "train" / name / f"{k}.png", pixels[k])
        for k in range(8):
            image(tmp_path / "d" / "test" / name / f"t{k}.png", pixels[k if k < 6 else 20 + k])
    (tmp_path / "copies.yaml").write_text(STUDY)
    return Study.from_yaml(tmp_path / "copies.yaml")


def test_copies_are_said_before_training_and_stand_in_the_lock(study: Study) -> None:
    """They were counted, and nobody was told."""
    plan, _ = study.plan()
    (note,) = [note for note in arm_checks.notes(plan) if "pixels" in note]
    assert note == (
        "12 of the 16 test examples have exactly the pixels of a training or validation example: what is measured on them "
        "is memory, not generalisation."
    )
    assert '"copies": 12' in study_lock.render(plan, (), False, {})


def test_copies_are_counted_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.plan()
    monkeypatch.setattr(Statistics, "with_copies", None)
    assert study.plan()[0].workload.statistics.num_copies == 12


def test_a_large_set_is_searched_only_on_demand(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_QUICK_BYTES", 0)
    plan, _ = study.plan()
    assert plan.workload.statistics.num_copies is None
    assert not [note for note in arm_checks.notes(plan) if "pixels" in note]
    assert with_copies(plan.workload).statistics.num_copies == 12
    assert study.plan()[0].workload.statistics.num_copies == 12
