"""A study of images that are not square, with a network for face attributes from a function of the user's."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from image_files import image
from lrstudy.planning import plan as plan_module
from lrstudy.planning.arm_checks import check_against_data
from lrstudy.planning.plan import make_plan
from lrstudy.storage.place import Storage
from lrstudy.training.rehearsal import rehearse
from lrstudy.workload.workload import opened_data, resolve
from study_files import NUMERICS

pytestmark = pytest.mark.slow

STUDY = """
lrstudy: 1
name: faces
workload:
  data: {source: csv:faces.csv, image: path, label: labels}
  split: {test: 0.25, validation: 0.25, by: random}
  image: {size: [218, 178], resize: crop}
  augment: crop_flip
  task: {kind: multilabel}
  model: ./mine.py:build
metric: exact_match
budget: {epochs: 2}
common: {lr: 0.001, optimizer: adam, batch_size: 4}
arms: [constant]
search: {method: random, trials: 1}
"""
NETWORK = """
from torch import nn

def build(num_classes, channels, size):
    height, width = size
    assert (height, width) == (218, 178), size
    layers = []
    for outputs in (16, 32, 32, 64):
        layers += [nn.Conv2d(channels, outputs, 3), nn.ReLU(), nn.MaxPool2d(2)]
        channels, height, width = outputs, (height - 2) // 2, (width - 2) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * height * width, 64), nn.ReLU(), nn.Linear(64, num_classes))
"""
LABELS = ("glasses", "male", "smiling")


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    rows = ["path,labels"]
    for k in range(32):
        image(tmp_path / f"{k}.png", generator.integers(0, 256, (240, 190, 3), dtype=np.uint8))
        rows.append(f"{k}.png,{'|'.join(name for bit, name in enumerate(LABELS) if k >> bit & 1)}")
    (tmp_path / "faces.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "mine.py").write_text(NETWORK)
    return tmp_path


def plan_of(folder: Path, *overrides: str) -> plan_module.Plan:
    study = plan_module.read(STUDY, overrides, folder)
    with mock.patch("lrstudy.workload.numerics.probe", return_value=NUMERICS):
        workload = resolve(study, folder, Storage(str(folder / "runs")))
    plan = make_plan(study, workload, 1, 4, base=folder)
    check_against_data(plan)
    return plan


def test_a_users_network_is_built_for_height_and_width_and_trained(faces):
    plan = plan_of(faces)
    data, _ = opened_data(plan.workload)
    assert data.images.shape == (32, 3, 218, 178)
    assert plan.root(0).model["size"] == [218, 178]
    rehearse(plan.workload)
    # convolutions of 3 x 3 (448, 4,640, 9,248, 18,496), 64 maps of 11 x 9 to 64 units, and these to 3 labels
    assert sum(section.num_parameters for section in plan.model_facts.sections) == 32_832 + 64 * 11 * 9 * 64 + 64 + 195
    assert "  218 x 178 pixels (height x width), 3 channels" in plan.workload.statistics.describe()


def test_height_and_width_are_two_sizes_and_a_square_is_one(faces):
    square, named_twice = (
        plan_of(faces, "workload.image.size=96", "workload.model=small_cnn"),
        plan_of(faces, "workload.image.size=[96, 96]", "workload.model=small_cnn"),
    )
    assert square.root(0) == named_twice.root(0)
    assert square.workload.data_key == named_twice.workload.data_key
    tall, wide = (plan_of(faces, f"workload.image.size={s}", "workload.model=small_cnn") for s in ([96, 64], [64, 96]))
    assert len({plan.workload.data_key for plan in (square, tall, wide)}) == 3
    assert tall.root(0) != wide.root(0)
