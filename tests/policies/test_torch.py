"""Agreement with torch's schedulers, stepped as their documentation says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from lrstudy.errors import InputError
from lrstudy.policies import build
from lrstudy.policies.base import RatePolicy
from lrstudy.policies.families.clr import Clr
from lrstudy.policies.families.sgdr import Sgdr
from lrstudy.policies.families.step import Step
from lrstudy.policies.run import Run
from lrstudy.settings import FloatArray


@pytest.fixture(scope="module")
def torch_loaded() -> None:
    """The first optimizer of a process imports torch's compiler: two seconds that are no test's doing."""
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def torch_rates(lr: float, steps: int, scheduler: Any, **arguments: object) -> list[float]:
    """The rate used by each of the first `steps` updates, one scheduler.step() per update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    made = scheduler(optimizer, **arguments)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return rates


def our_rates(policy: RatePolicy, run: Run) -> FloatArray:
    return np.concatenate([policy.rates(epoch, run) for epoch in range(run.num_epochs)])


# torch chains its rate through every step and so gathers rounding errors: 1e-9 relative, and in the
# cosine's last updates, where its form cancels, 1e-12 of the peak.
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


@pytest.mark.usefixtures("torch_loaded")
@tried(deadline=None, max_examples=30)
@given(milestones=st.lists(st.integers(0, 14), max_size=5), gamma=st.floats(0.05, 1.0))
def test_step_agrees_with_torch(milestones: list[int], gamma: float) -> None:
    policy = Step(lr=0.1, batch_size=32, milestones=milestones, gamma=gamma)
    ours = [policy.rates(epoch, Run(num_examples=32, num_epochs=12))[0] for epoch in range(12)]
    theirs = torch_rates(0.1, 12, torch.optim.lr_scheduler.MultiStepLR, milestones=milestones, gamma=gamma)
    np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.usefixtures("torch_loaded")
@tried(deadline=None, max_examples=30)
@given(
    mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
    step_size=st.integers(1, 40),
    step_down=st.integers(1, 40),
    base_ratio=st.floats(0.01, 1.0),
    updates=st.integers(1, 25),
)
def test_clr_agrees_with_torch(mode: str, step_size: int, step_down: int, base_ratio: float, updates: int) -> None:
    gamma = {"gamma": 0.99} if mode == "exp_range" else {}
    half = {"step_size": f"{step_size}u", "step_down": f"{step_down}u"}
    policy = Clr(lr=0.1, batch_size=32, mode=mode, base_ratio=base_ratio, **half, **gamma)  # type: ignore[arg-type]
    theirs = torch_rates(
        0.1,
        8 * updates,
        torch.optim.lr_scheduler.CyclicLR,
        base_lr=0.1 * base_ratio,
        max_lr=0.1,
        step_size_up=step_size,
        step_size_down=step_down,
        mode=mode,
        **gamma,
        cycle_momentum=False,
    )
    np.testing.assert_allclose(our_rates(policy, Run(32 * updates, num_epochs=8)), theirs, **CLOSE)


@pytest.mark.usefixtures("torch_loaded")
@tried(deadline=None, max_examples=30)
@given(
    t0=st.integers(1, 40),
    t_mult=st.sampled_from([1, 2, 3, 10]),
    min_ratio=st.floats(0, 0.99),
    updates=st.integers(1, 25),
)
def test_sgdr_agrees_with_torch(t0: int, t_mult: int, min_ratio: float, updates: int) -> None:
    policy = Sgdr(lr=0.1, batch_size=32, t0=f"{t0}u", t_mult=t_mult, min_ratio=min_ratio)
    theirs = torch_rates(
        0.1,
        8 * updates,
        torch.optim.lr_scheduler.CosineAnnealingWarmRestarts,
        T_0=t0,
        T_mult=t_mult,
        eta_min=0.1 * min_ratio,
    )
    np.testing.assert_allclose(our_rates(policy, Run(32 * updates, num_epochs=8)), theirs, **CLOSE)


@pytest.mark.usefixtures("torch_loaded")
@tried(deadline=None, max_examples=30)
@given(every=st.integers(1, 6), gamma=st.floats(0.05, 1.0))
def test_step_every_and_exponential_agree_with_torch(every: int, gamma: float) -> None:
    run = Run(num_examples=32, num_epochs=12)
    for name, values, scheduler, arguments in (
        ("step_every", {"every": every}, lr_scheduler.StepLR, {"step_size": every}),
        ("exponential", {}, lr_scheduler.ExponentialLR, {}),
        ("exponential", {"per": "update"}, lr_scheduler.ExponentialLR, {}),
    ):
        policy = build(name, {"lr": 0.1, "batch_size": 32, "gamma": gamma, **values})
        np.testing.assert_allclose(
            our_rates(policy, run), torch_rates(0.1, 12, scheduler, gamma=gamma, **arguments), **CLOSE
        )


@pytest.mark.usefixtures("torch_loaded")
@tried(deadline=None, max_examples=30)
@given(total=st.integers(1, 60), end_ratio=st.floats(0.01, 1.0), floor=st.floats(0, 0.9))
def test_linear_decay_and_cosine_agree_with_torch(total: int, end_ratio: float, floor: float) -> None:
    run = Run(num_examples=32 * 10, num_epochs=6)
    policy = build("linear_decay", {"lr": 0.1, "batch_size": 32, "over": f"{total}u", "end_ratio": end_ratio})
    arguments = {"start_factor": 1.0, "end_factor": end_ratio, "total_iters": total}
    np.testing.assert_allclose(
        our_rates(policy, run), torch_rates(0.1, 60, lr_scheduler.LinearLR, **arguments), **CLOSE
    )
    policy = build("cosine", {"lr": 0.1, "batch_size": 32, "min_ratio": floor})
    theirs = torch_rates(0.1, 60, lr_scheduler.CosineAnnealingLR, T_max=60, eta_min=0.1 * floor)
    np.testing.assert_allclose(our_rates(policy, run), theirs, rtol=1e-9, atol=1e-11)  # torch's recursion drifts


@pytest.mark.usefixtures("torch_loaded")
@tried(deadline=None, max_examples=30)
@given(
    pct=st.floats(0.2, 0.5), epochs=st.integers(2, 8), updates=st.integers(5, 20), anneal=st.sampled_from(["cos", "linear"]),
    three_phase=st.booleans(),
)  # fmt: skip
def test_one_cycle_agrees_with_torch(pct: float, epochs: int, updates: int, anneal: str, three_phase: bool) -> None:
    total = epochs * updates
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=total, pct_start=pct, anneal_strategy=anneal, three_phase=three_phase
    )
    rates, momenta = [], []
    for step in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if step + 1 < total:
            scheduler.step()
    values = {"peak_at": pct, "anneal": anneal, "three_phase": three_phase, "momentum": 0.95, "momentum_low": 0.85}
    policy = build("one_cycle", {"lr": 0.1, "batch_size": 32, **values})
    run = Run(32 * updates, epochs)
    np.testing.assert_allclose(our_rates(policy, run), rates, rtol=1e-8, atol=1e-12)
    ours = np.concatenate([policy.settings(e, (), run).momentum[:, 0] for e in range(epochs)])
    np.testing.assert_allclose(ours, momenta, rtol=1e-8)


@pytest.mark.usefixtures("torch_loaded")
@tried(deadline=None, max_examples=50)
@given(
    metrics=st.lists(st.sampled_from([0.5, 0.6, 0.61, 0.7, 0.8, 1.0, float("nan")]), min_size=1, max_size=25),
    patience=st.integers(0, 3), cooldown=st.integers(0, 3), mode=st.sampled_from(["min", "max"]),
    threshold_mode=st.sampled_from(["rel", "abs"]), threshold=st.sampled_from([0.0, 1e-4, 0.1]), floor=st.floats(0, 0.5),
)  # fmt: skip
def test_plateau_agrees_with_torch(
    metrics: list[float], patience: int, cooldown: int, mode: str, threshold_mode: str, threshold: float, floor: float
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    rule = {
        "patience": patience,
        "cooldown": cooldown,
        "mode": mode,
        "threshold": threshold,
        "threshold_mode": threshold_mode,
    }
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, min_lr=0.1 * floor, **rule)  # type: ignore[arg-type]
    policy = build("plateau", {"lr": 0.1, "batch_size": 32, "factor": 0.5, "min_ratio": floor, **rule})
    run, history = Run(32, len(metrics) + 1), [{"val_loss": value} for value in metrics]
    for epoch, value in enumerate([*metrics, 0.0]):
        got = policy.settings(epoch, history[:epoch], run).lr[0, 0]
        assert got == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-8)
        theirs.step(value)


@pytest.mark.usefixtures("torch_loaded")
@pytest.mark.parametrize(
    ("scheduler", "parameter"),
    [("CyclicLR", "base_lr"), ("CosineAnnealingLR", "eta_min"), ("CosineAnnealingWarmRestarts", "eta_min")],
)
def test_a_rate_above_the_peak_is_refused(scheduler: str, parameter: str) -> None:
    needed = {"T_0": 2} if scheduler == "CosineAnnealingWarmRestarts" else {}
    with pytest.raises(InputError) as caught:
        build(f"torch:{scheduler}", {"lr": 0.1, "batch_size": 32, **needed, parameter: 0.5})
    assert caught.value.sentences == (f"{parameter}: expected a rate of at most lr, 0.1, which is the peak; got 0.5.",)
    assert build(f"torch:{scheduler}", {"lr": 0.1, "batch_size": 32, **needed, parameter: 0.1})
