"""Floors of annealing policies, and the ends of ranges that torch's schedulers take too."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from lrstudy.policies import build, registry
from lrstudy.policies.base import parameter_names
from lrstudy.policies.families.plateau import Plateau
from lrstudy.policies.run import Run
from lrstudy.settings import FloatArray

COMMON: dict[str, object] = {"lr": 0.1, "batch_size": 32}
RUN = Run(num_examples=320, num_epochs=8, num_sections=3)


def rates(name: str, run: Run = RUN, **parameters: object) -> FloatArray:
    """The unrounded rates of a whole run, as shares of the peak."""
    policy = build(name, {**COMMON, **parameters})
    return np.concatenate([policy.settings(e, (), run).unrounded_lr[:, -1] for e in range(run.num_epochs)]) / 0.1


FLOORS = {
    "step": {"milestones": [1, 2, 3], "min_ratio": 0.05},
    "step_every": {"every": 1, "min_ratio": 0.05},
    "exponential": {"gamma": 0.5, "min_ratio": 0.05},
    "linear_decay": {"end_ratio": 0.05},
    "sgdr": {"t0": 8, "min_ratio": 0.05},
    "cosine": {"min_ratio": 0.05},
    "linear": {"min_ratio": 0.05},
    "one_cycle": {"initial_ratio": 0.05, "final_ratio": 0.05},
    "wsd": {"min_ratio": 0.05},
    "clr": {"mode": "triangular", "step_size": "25%", "base_ratio": 0.05},
    "clr_staged": {"stage_ratios": [1, 1, 1], "base_ratio": 0.05},
}
"""Every policy that anneals without results, with a floor of a twentieth."""


@pytest.mark.parametrize("name", FLOORS)
def test_no_rate_is_below_the_floor_and_the_last_ones_come_near_it(name: str) -> None:
    found = rates(name, **FLOORS[name])
    assert found.min() >= 0.05 * (1 - 1e-12)
    # the update after the last one would be at the floor: a line of 16 updates or more ends a sixteenth above it
    assert found.min() <= 0.05 + 0.95 / 16


@pytest.mark.parametrize("name", FLOORS)
def test_a_floor_at_the_peak_is_the_constant_policy(name: str) -> None:
    floors = {p: 1.0 for p in FLOORS[name] if p.endswith("_ratio")}
    constant, flat = build("constant", COMMON), build(name, {**COMMON, **FLOORS[name], **floors})
    for epoch in range(RUN.num_epochs):
        assert flat.settings(epoch, (), RUN).digest == constant.settings(epoch, (), RUN).digest


def test_every_policy_that_anneals_has_a_floor_here() -> None:
    own = {name: parameter_names(policy) for name, policy in registry().items()}
    having = {name for name, names in own.items() if {"min_ratio", "end_ratio", "final_ratio", "base_ratio"} & {*names}}
    assert having == {*FLOORS, "sgdr_dlr", "plateau"}
    assert having | {"constant", "batch_increase", "batch_hybrid", "batch_plateau", "adabatch"} == set(registry())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [1, 1, 1, 1, 1, 1, 1.0, 0.8, 0.6, 0.4]),
        ("1-sqrt", [1, 1, 1, 1, 1, 1, 1.0, 0.6, 1 - 0.8 * 0.5**0.5, 1 - 0.8 * 0.75**0.5]),
    ],
)
def test_wsd_cools_down_to_its_floor(shape: str, expected: list[float]) -> None:
    """Ten updates, the last four cooling down: u = 0, 1/4, 1/2, 3/4, and 1 - 0.8 u or 1 - 0.8 sqrt(u)."""
    run = Run(num_examples=160, num_epochs=2)
    found = rates("wsd", run, cooldown="40%", shape=shape, min_ratio=0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_falling_steps_stop_at_the_floor() -> None:
    run = Run(num_examples=32, num_epochs=5)
    for name, parameters in (
        ("step", {"milestones": [1, 2, 3]}),
        ("step_every", {"every": 1, "gamma": 0.1}),
        ("exponential", {"gamma": 0.1}),
        ("exponential", {"gamma": 0.1, "per": "update"}),
    ):
        np.testing.assert_allclose(rates(name, run, min_ratio=0.03, **parameters), [1, 0.1, 0.03, 0.03, 0.03])


def test_differential_sections_have_floors_of_their_own() -> None:
    policy = build("sgdr_dlr", {**COMMON, "t0": 8, "min_ratio": 0.5})
    lowest = np.concatenate([policy.settings(e, (), RUN).lr for e in range(8)]).min(axis=0)
    np.testing.assert_allclose(lowest, [0.0005, 0.005, 0.05], rtol=1e-3)  # the last update is 1/80 before the end


Made = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def of_torch(make: Made, start: float, updates: int) -> FloatArray:
    """The rates of one of torch's schedulers, stepped after every update, as shares of 0.1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=start)
    scheduler, found = make(optimizer), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no update was made before
        for update in range(updates):
            if update:
                scheduler.step()
            found.append(optimizer.param_groups[0]["lr"])
    return np.array(found) / 0.1


@pytest.mark.parametrize(
    ("name", "parameters", "make"),
    [
        (
            "clr",
            {"mode": "triangular", "step_size": "10u", "base_ratio": 0},
            lambda o: lr_scheduler.CyclicLR(o, 0.0, 0.1, step_size_up=10, cycle_momentum=False),
        ),
        (
            "linear_decay",
            {"over": "100%", "end_ratio": 0},
            lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=80),
        ),
        (
            "one_cycle",
            {"peak_at": 1},
            lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=80, pct_start=1.0, cycle_momentum=False),
        ),
        ("exponential", {"gamma": 1, "per": "update"}, lambda o: lr_scheduler.ExponentialLR(o, 1.0)),
        ("cosine", {"min_ratio": 1}, lambda o: lr_scheduler.CosineAnnealingLR(o, 80, eta_min=0.1)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_ends_of_ranges_are_those_of_torchs_schedulers(
    name: str, parameters: dict[str, object], make: Made
) -> None:
    np.testing.assert_allclose(rates(name, **parameters), of_torch(make, 0.1, 80), rtol=1e-9, atol=1e-12)


def test_a_cycle_whose_peak_is_at_the_start_only_falls() -> None:
    found = rates("one_cycle", peak_at=0)
    assert found[0] == 1.0
    assert (np.diff(found) < 0).all()


def test_a_plateau_factor_of_zero_falls_to_the_floor_at_once() -> None:
    """torch's ReduceLROnPlateau and Keras' take any factor below 1."""
    policy = Plateau(lr=0.1, batch_size=32, factor=0, min_ratio=0.2, patience=1)
    found = [policy.settings(epoch, [{"val_loss": 1.0}] * epoch, RUN).lr[0, 0] for epoch in range(6)]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, expected = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0, min_lr=0.02, patience=1), []
    for _ in range(6):
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(1.0)
    assert found == pytest.approx(expected)
    assert found[-1] == pytest.approx(0.02)
