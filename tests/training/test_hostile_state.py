"""States that somebody else has put into the storage: refused as such, and the epoch is trained anew."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import load, save

from lrstudy.memo.memo import Memo
from lrstudy.training.trainer import Trainer
from lrstudy.trial.walk import Walk
from serial import Serial, study

TEXT = """
lrstudy: 1
name: small
workload: {data: digits, subset: 60, split: {test: 0.5, validation: 20}, model: small_cnn}
budget: {epochs: 2}
common: {lr: 0.1, batch_size: 20}
arms: [constant]
search: {method: random, trials: 1, cohort: 1}
confirm: {top: 0}
"""


class Planted:
    def __reduce__(self):
        return (pytest.fail, ("a pickle from the storage was loaded",))


def changed(data: bytes, name: str, tensor: torch.Tensor | None) -> bytes:
    tensors = load(data)
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    return save(tensors)


def first(data: bytes, prefix: str) -> str:
    return next(name for name in sorted(load(data)) if name.startswith(prefix))


HOSTILE = {
    "a pickle": lambda data: pickle.dumps(Planted()),
    "empty": lambda data: b" ",
    "a header that is too long": lambda data: (2**60).to_bytes(8, "little") + data[8:],
    "a header of nonsense": lambda data: (8).to_bytes(8, "little") + b"{nonsens" + data,
    "cut off": lambda data: data[: len(data) // 2],
    "a tensor less": lambda data: changed(data, first(data, "model."), None),
    "a tensor more": lambda data: changed(data, "model.evil", torch.zeros(3)),
    "another shape": lambda data: changed(data, first(data, "model."), torch.zeros(7)),
    "another optimizer": lambda data: changed(data, "optimizer.evil.x.y", torch.zeros(3)),
    "a momentum of another shape": lambda data: changed(data, first(data, "optimizer.sgd.momentum"), torch.zeros(5)),
    "a momentum of nothing": lambda data: changed(data, "optimizer.sgd.momentum_buffer.evil", torch.zeros(5)),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    serial = Serial(study(folder, TEXT).plan()[0], folder / "runs")
    serial.run()
    return serial


@pytest.mark.slow
@pytest.mark.parametrize("what", HOSTILE)
def test_a_state_that_does_not_fit_is_set_aside_and_its_epoch_trained_anew(trained, tmp_path, what):
    (trial,) = trained.admission.trials.values()
    memo = Memo(tmp_path / "memo")
    data = HOSTILE[what](trained.memo.state_of(trial.records[0]))
    from dataclasses import replace

    planted = memo.commit(replace(trial.records[0], state=memo.put_state(data)))
    trainer = Trainer(trained.plan.workload)
    with pytest.raises(ValueError, match="the stored state does not fit the model"):
        trainer.restore(data)
    steps = list(Walk(trial.spec, memo, lambda: trainer))
    assert [step.recalled for step in steps] == [True, False]
    assert steps[1].record.metrics == trial.records[1].metrics, "as if nothing had been planted"
    restored = memo.state_of(planted)
    assert restored == trained.memo.state_of(trial.records[0])
