"""Keras' RMSprop, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lrstudy.training.keras_rmsprop import KerasRMSprop


def run(
    gradients: list[float], lrs: list[float], momentum: float = 0.0, start: float = 0.0, eps: float = 1e-7
) -> list[float]:
    """The weight after each update with these gradients and rates."""
    weight = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))
    optimizer = KerasRMSprop([{"params": [weight]}])
    found = []
    for gradient, lr in zip(gradients, lrs, strict=True):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.param_groups[0] |= {"lr": lr, "momentum": momentum, "eps": eps}
        optimizer.step()
        found.append(float(weight.detach()))
    return found


def test_the_example_of_keras_documentation() -> None:
    """keras.optimizers.RMSprop: the loss w^2 / 2 at w = 10, a rate of 0.1, and 9.683772 after one update."""
    assert run([10.0], [0.1], start=10.0) == [pytest.approx(9.683772, abs=5e-7)]


def test_epsilon_is_under_the_root() -> None:
    """v = 0.1 * 2^2 = 0.4; with epsilon 0.5 the step is 2 / sqrt(0.9). torch's would be 2 / (sqrt(0.4) + 0.5)."""
    assert run([2.0], [1.0], eps=0.5) == [pytest.approx(-2 / math.sqrt(0.9), rel=1e-15)]


def test_what_momentum_has_gathered_keeps_the_rate_it_was_gathered_with() -> None:
    """v = 0.1, then 0.09 + 0.1 = 0.19; m = 1 / sqrt(0.1), then m / 2 + 0.01 / sqrt(0.19)."""
    first = 1 / math.sqrt(0.1)
    second = first / 2 + 0.01 / math.sqrt(0.19)
    found = run([1.0, 1.0], [1.0, 0.01], momentum=0.5, eps=0.0)
    assert found == pytest.approx([-first, -first - second], rel=1e-15)


def test_a_parameter_without_a_gradient_stays_and_costs_no_state() -> None:
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = KerasRMSprop([{"params": [used, unused]}])
    used.grad = torch.ones(2)
    optimizer.step()
    assert not torch.equal(used, torch.ones(2))
    assert torch.equal(unused, torch.ones(2))
    assert list(optimizer.state) == [used]
    assert list(optimizer.state[used]) == ["square_avg"], "without momentum there is none to store"
