"""What enters a model's head is found by building it once, in another process, and remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrstudy import child_process
from lrstudy.training import head_inputs
from serial import SMALL, study

pytestmark = pytest.mark.slow

MODEL = """
from torch import nn

def build(classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 7), nn.ReLU(), nn.Linear(7, classes){more})
"""


def workload(tmp_path: Path, more: str = "", extra: str = ""):
    (tmp_path / "mine.py").write_text(MODEL.replace("{more}", more))
    return study(tmp_path, SMALL.replace("model: small_cnn", f"model: ./mine.py:build{extra}")).plan()[0].workload


def test_it_is_measured_once_of_each_source(tmp_path, monkeypatch):
    assert head_inputs.head_inputs(workload(tmp_path)) == 7
    with monkeypatch.context() as without:
        without.setattr(child_process, "run_python", None)
        assert head_inputs.head_inputs(workload(tmp_path)) == 7, "remembered"
    assert head_inputs.head_inputs(workload(tmp_path, more=", nn.LogSoftmax(1)")) is None


def test_a_users_train_step_calls_the_model_itself(tmp_path):
    (tmp_path / "step.py").write_text(
        "def step(model, images, labels, loss):\n    return loss(model(images), labels)\n"
    )
    assert head_inputs.head_inputs(workload(tmp_path, extra=", train_step: ./step.py:step")) is None
