"""Growing batches: noise, caps, scaling."""

from __future__ import annotations

import pytest

from lrstudy.policies import build
from lrstudy.policies.families.batch_increase import BatchIncrease
from lrstudy.policies.families.step import Step
from lrstudy.policies.run import Run


def test_batch_increase_is_the_twin_of_step() -> None:
    """lr / B of the grown batch equals that of the decayed rate, at and beyond the cap."""
    twin = Step(lr=0.1, batch_size=32, milestones=(1, 2, 3, 4), gamma=0.2)
    run = Run(num_examples=1000, num_epochs=5)
    for cap, mode in ((None, "residual"), (200, "residual"), (200, "switch"), (20, "residual")):
        grown = BatchIncrease(lr=0.1, batch_size=32, milestones=(1, 2, 3, 4), factor=5, cap=cap, cap_mode=mode)
        for epoch in range(5):
            lr, batch_size = grown.rate_and_batch(epoch, run)
            assert lr / batch_size == pytest.approx(twin.rates(epoch, run)[0] / 32, rel=1e-12)
            assert batch_size <= max(cap or 1000, 32)


@pytest.mark.parametrize("mode", ["residual", "switch"])
def test_a_batch_may_reach_the_cap_exactly(mode: str) -> None:
    policy = BatchIncrease(lr=0.1, batch_size=20, milestones=(1, 2), factor=5, cap=100, cap_mode=mode)
    run = Run(num_examples=1000, num_epochs=3)
    assert policy.rate_and_batch(1, run) == (0.1, 100)
    assert policy.rate_and_batch(2, run) == (pytest.approx(0.02), 100)


def test_a_cap_may_leave_the_rate_alone() -> None:
    """Worked by hand: 8, 40, then 200 and 1000 are cut to 96."""
    policy = BatchIncrease(lr=0.1, batch_size=8, milestones=(1, 2, 3), factor=5, cap=96, cap_mode="keep")
    made = [policy.rate_and_batch(epoch, Run(num_examples=1000, num_epochs=4)) for epoch in range(4)]
    assert made == [(0.1, 8), (0.1, 40), (0.1, 96), (0.1, 96)]
    above = BatchIncrease(lr=0.1, batch_size=64, milestones=(1,), factor=2, cap=48, cap_mode="keep")
    assert above.rate_and_batch(1, Run(num_examples=100, num_epochs=2)) == (0.1, 64)


def test_yacalis_and_le_double_up_to_the_training_set_at_one_rate() -> None:
    """Their stops give B = min(2 B, N) and Adam's rate stays 1e-3; here every epoch after the first is a stop."""
    parameters = {"lr": 1e-3, "batch_size": 4, "cap_mode": "keep", "patience": 1, "semantics": "keras"}
    policy = build("batch_plateau", parameters)
    made = [policy.settings(epoch, [{"val_loss": 1.0}] * epoch, Run(100, 9)) for epoch in range(9)]
    assert [m.batch_size for m in made] == [4, 4, 8, 16, 32, 64, 100, 100, 100]
    assert {float(m.lr[0, 0]) for m in made} == {1e-3}


def test_hybrid_goes_on_to_lower_the_rate_where_the_cap_leaves_it_alone() -> None:
    policy = build(
        "batch_hybrid",
        {"lr": 0.1, "batch_size": 32, "milestones": [1, 2], "factor": 5, "cap": 64, "cap_mode": "keep"},
    )
    made = [policy.settings(epoch, (), Run(1000, 3)) for epoch in range(3)]
    assert [(m.batch_size, float(m.lr[0, 0])) for m in made] == [(32, 0.1), (64, 0.1), (64, 0.02)]


def test_a_batch_that_starts_above_the_cap_stays() -> None:
    policy = BatchIncrease(lr=0.1, batch_size=64, milestones=(1,), factor=2, cap=48)
    assert policy.rate_and_batch(1, Run(num_examples=100, num_epochs=2)) == (0.05, 64)


@pytest.mark.parametrize(("scaling", "rate"), [(None, 0.4), ("linear", 0.4), ("sqrt", 0.2)])
def test_a_larger_first_batch_scales_the_rate(scaling: str | None, rate: float) -> None:
    policy = build("batch_increase", {"lr": 0.1, "batch_size": 8, "initial_factor": 4, "scaling": scaling})
    assert policy.rate_and_batch(0, Run(1000, 4)) == (pytest.approx(rate), 32)  # type: ignore[attr-defined]


def test_adabatch_keeps_the_ratio_of_its_fixed_twin() -> None:
    """lr / B falls by gamma / resize at each step, also where the batch can grow no more."""
    policy = build("adabatch", {"lr": 0.1, "batch_size": 16, "every": 1, "gamma": 0.75, "cap": 64})
    made = [policy.settings(epoch, (), Run(640, 5)) for epoch in range(5)]
    assert [m.batch_size for m in made] == [16, 32, 64, 64, 64]
    assert [m.lr[0, 0] / m.batch_size for m in made] == pytest.approx([0.1 / 16 * 0.375**e for e in range(5)], rel=1e-8)


def test_adabatch_warms_up_to_the_rate_of_its_larger_batch() -> None:
    policy = build("adabatch", {"lr": 0.1, "batch_size": 128, "baseline_batch": 32, "warmup": 3, "every": 10})
    rates = [policy.settings(epoch, (), Run(1280, 20)).lr[0, 0] for epoch in range(5)]
    assert rates == pytest.approx([0.1, 0.25, 0.4, 0.4, 0.4])
