"""What training counts along the way: the right predictions of its own logits, and nothing else changed by that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lrstudy.data.batches import Part, part_of
from lrstudy.models.build import Model
from lrstudy.policies.run import Run
from lrstudy.settings import Recipe, Settings
from lrstudy.training.epoch import UserFunctions, evaluate, train_epoch
from lrstudy.training.randomness import generator
from lrstudy.training.state import State
from lrstudy.training.tally import Tally
from lrstudy.workload.numerics import NumericsSpec

N, CLASSES = 50, 3
CPU = torch.device("cpu")
SECTIONS = (("1.weight",), ("1.bias",), ("3.weight", "3.bias"))


def part(several: bool = False) -> Part:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 1, 4, 4)).astype(np.uint8)
    labels = rng.integers(0, 2, (N, CLASSES)).astype(np.uint8) if several else rng.integers(0, CLASSES, N)
    return part_of(images, labels, np.arange(N), CPU, ((0.5,), (0.3,)))


def network() -> State:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    return State.of(Model(module, SECTIONS, {}), CPU, NumericsSpec(eval_batch=16))


def settings(lr: float = 0.1, batch: int = 8, **recipe: object) -> Settings:
    return Run(N, 10, 3, Recipe(**recipe)).settings(lr, 0.9, batch)  # type: ignore[arg-type]


def counted(state: State, data: Part, applied: Settings, functions: UserFunctions | None = None) -> dict[str, float]:
    tally = Tally(CPU)
    train_epoch(state, applied, data, 0, 0, functions, tally)
    return tally.metrics()


@pytest.mark.parametrize("micro_batch", [None, 3])
@pytest.mark.parametrize("several", [False, True])
def test_weights_that_stay_are_counted_as_an_evaluation_counts_them(several: bool, micro_batch: int | None) -> None:
    data = part(several)
    found = counted(network(), data, settings(lr=0.0, micro_batch=micro_batch))
    evaluated = evaluate(network(), data, "multilabel" if several else "multiclass").metrics
    assert set(found) == ({"accuracy", "exact_match"} if several else {"accuracy"})
    assert found == pytest.approx({name: evaluated[name] for name in found}, abs=1e-12)
    assert 0 < found["accuracy"] < 1


def test_each_batch_is_counted_by_the_weights_that_it_finds() -> None:
    data, state, other = part(), network(), network()
    right = 0
    optimizer = torch.optim.SGD(other.model.parameters(), lr=0.5, momentum=0.9)
    for chosen in torch.randperm(N, generator=generator(0, "order", 0)).split(8):
        logits = other.model(data.normalised(data.images.pixels[chosen]))
        right += int((logits.argmax(1) == data.labels[chosen]).sum())
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, data.labels[chosen]).backward()
        optimizer.step()
    assert counted(state, data, settings(lr=0.5)) == {"accuracy": right / N}
    assert right / N != evaluate(network(), data, "multiclass").metrics["accuracy"]


def test_an_example_that_a_dropped_tail_leaves_out_is_not_counted() -> None:
    found = counted(network(), part(), settings(lr=0.0, batch=16, tail="drop"))
    assert found["accuracy"] * 48 == pytest.approx(round(found["accuracy"] * 48), abs=1e-9)


def test_counting_changes_nothing_that_is_trained() -> None:
    data, state, other = part(), network(), network()
    assert train_epoch(state, settings(), data, 0, 0, tally=Tally(CPU)) == train_epoch(other, settings(), data, 0, 0)
    assert state.capture() == other.capture()


def test_a_users_train_step_keeps_its_logits_for_itself() -> None:
    step = UserFunctions(train_step=lambda model, images, labels, loss: loss(model(images), labels))
    assert counted(network(), part(), settings(), step) == {}
