"""The ramp of a range test: the updates of an epoch at rising rates, after which everything is as it was."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lrstudy.data.batches import Part, part_of
from lrstudy.data.normalise import normalisation
from lrstudy.models.build import Model
from lrstudy.settings import Recipe, Settings
from lrstudy.training.epoch import UserFunctions, evaluate, train_epoch
from lrstudy.training.range_test import ramp
from lrstudy.training.state import State

PLAIN = UserFunctions()
N = 50
SECTIONS = (("0.weight", "0.bias"), ("2.weight", "2.bias"), ("5.weight", "5.bias"))


def part() -> Part:
    rng = np.random.default_rng(0)
    images, index = rng.integers(0, 256, (N, 1, 6, 6), dtype=np.uint8), np.arange(N)
    constants = normalisation("data", images, index)
    return part_of(images, rng.integers(0, 3, N), index, torch.device("cpu"), constants)


def network(dropout: float = 0.0) -> State:
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, 3)]
    return State.of(Model(nn.Sequential(*layers), SECTIONS, {}), torch.device("cpu"))


def settings(rates, batch=8, **recipe) -> Settings:
    return Settings(
        np.repeat(np.reshape(rates, (-1, 1)), 3, axis=1), np.array(0.9), batch, Recipe(tail="drop", **recipe)
    )


def captured(state) -> tuple[bytes, list[torch.Tensor], list[object]]:
    generators = [torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()]
    return state.capture(), [buffer.clone() for buffer in state.model.buffers()], generators


def same(one, other) -> bool:
    return (
        one[0] == other[0]
        and all(map(torch.equal, one[1], other[1]))
        and torch.equal(one[2][0], other[2][0])
        and one[2][1:] == other[2][1:]
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop_keras"])
def test_everything_is_untouched_afterwards(optimizer):
    data, state = part(), network(dropout=0.5)
    state.model.register_buffer("not_stored", torch.zeros(1), persistent=False)
    of_epoch = replace(settings([0.01] * 6), recipe=Recipe(tail="drop", optimizer=optimizer))
    train_epoch(state, of_epoch, data, 0, 0)  # the optimizer has a state by now
    before = captured(state)

    def accuracy() -> float:
        state.model.not_stored += 1
        return evaluate(state, data, "multiclass").metrics["accuracy"]

    rates = np.geomspace(1e-3, 10, 12)
    met = ramp(state, [settings(rates[:6], optimizer=optimizer), settings(rates[6:], optimizer=optimizer)],
               data, 3, 1, PLAIN, accuracy)  # fmt: skip
    assert len(met.losses) >= 6
    assert same(before, captured(state))


def test_an_untrained_state_has_no_optimizer_afterwards():
    state = network()
    before = captured(state)
    ramp(state, [settings([0.1, 0.2])], part(), 0, 0, PLAIN)
    assert state.optimizer is None
    assert same(before, captured(state))


def test_its_updates_are_those_of_an_epoch():
    """The loss of an update is that of its batch before it: the mean of all is what an epoch returns."""
    data, applied = part(), settings([0.1, 0.05, 0.02, 0.01, 0.01, 0.01])
    met = ramp(network(), [applied], data, 5, 2, PLAIN)
    assert np.mean(met.losses) == pytest.approx(train_epoch(network(), applied, data, 5, 2), rel=1e-6)


def test_losses_are_those_of_whole_batches_with_micro_batches_too():
    data = part()
    whole = ramp(network(), [settings([0.1, 0.1], norm_batch=4)], data, 0, 0, PLAIN)
    pieces = ramp(network(), [settings([0.1, 0.1], norm_batch=4, micro_batch=4)], data, 0, 0, PLAIN)
    assert pieces.losses == pytest.approx(whole.losses, rel=1e-5)  # float32 sums in another order


def test_the_passes_go_on_from_each_other_and_draw_orders_of_their_own():
    data = part()
    met = ramp(network(), [settings([0.1] * 6), settings([0.1] * 6)], data, 0, 0, PLAIN)
    state = network()
    one, two = (train_epoch(state, settings([0.1] * 6), data, 0, epoch) for epoch in (0, 1))
    assert [np.mean(met.losses[:6]), np.mean(met.losses[6:])] == pytest.approx([one, two], rel=1e-6)


def test_it_stops_where_the_loss_is_not_finite():
    state = network()
    before = captured(state)
    met = ramp(state, [settings([1e30] * 6)], part(), 0, 0, PLAIN, lambda: 0.5)
    assert len(met.losses) < 6
    assert not np.isfinite(met.losses[-1])
    assert np.isfinite(met.losses[:-1]).all()
    assert met.accuracies == ()  # of a state that diverged nothing is measured
    assert same(before, captured(state))


def test_it_stops_at_four_times_the_lowest_smoothed_loss():
    met = ramp(network(), [settings(np.geomspace(0.1, 1e3, 6)) for _ in range(50)], part(), 0, 0, PLAIN)
    assert np.isfinite(met.losses).all()
    assert len(met.losses) < 300


def test_accuracy_is_measured_after_every_pass():
    values = iter([0.1, 0.4])
    met = ramp(network(), [settings([0.01] * 4), settings([0.02] * 3)], part(), 0, 0, PLAIN, lambda: next(values))
    assert met.accuracies == ((4, 0.1), (7, 0.4))


def test_what_fails_in_it_leaves_everything_untouched_as_well():
    state = network()
    before = captured(state)

    def failing() -> float:
        raise RuntimeError("x")

    with pytest.raises(RuntimeError):
        ramp(state, [settings([0.1] * 4)], part(), 0, 0, PLAIN, failing)
    assert same(before, captured(state))


def test_it_needs_no_whole_epoch():
    assert len(ramp(network(), [settings([0.1] * 2, batch=20)], part(), 0, 0, PLAIN).losses) == 2 < N / 20
