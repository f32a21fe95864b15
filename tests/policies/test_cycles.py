"""Cycles: restarts at exactly the right update, clocks, sections."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate, islice

import numpy as np
import pytest

from lrstudy.errors import InputError
from lrstudy.policies import build
from lrstudy.policies.base import Ticks, phase
from lrstudy.policies.durations import in_epochs
from lrstudy.policies.families.clr import triangular
from lrstudy.policies.families.sgdr import Sgdr, SgdrDlr, cosine_restarts
from lrstudy.policies.run import Run

RUN = Run(num_examples=301, num_epochs=7, num_sections=3)


@pytest.mark.parametrize("t_mult", [1, 2, 3, 10])
@pytest.mark.parametrize("t0", [Fraction(1), Fraction(1, 3), Fraction(30, 7), Fraction(123, 1000), Fraction(5, 2)])
def test_restarts_happen_at_exactly_the_right_update(t0: Fraction, t_mult: int) -> None:
    """Torch's step(p) misses restart 5 of T_mult 3 (epoch 121 T0) and restart 3 of 10 (111 T0)."""
    updates, epochs = 7, 130
    lengths = (t0 * t_mult**cycle for cycle in range(2000))
    begins = islice(accumulate(lengths, initial=Fraction(0)), 2000)
    first_updates = {math.ceil(begin * updates) for begin in begins if begin < epochs}
    factors = np.concatenate([cosine_restarts(Ticks.of_epoch(epoch, updates), t0, t_mult) for epoch in range(epochs)])
    rises = {0, *(np.flatnonzero(np.diff(factors) > 0) + 1).tolist()}
    assert rises <= first_updates
    if t0 >= Fraction(3, 7):  # shorter cycles may hold one update, after which the rate need not rise
        assert rises == {update for update in first_updates if update < updates * epochs}
    if updates * t0 % 1 == 0:
        assert (factors[sorted(rises)] == 1).all()


@pytest.mark.parametrize(("t_mult", "epoch"), [(3, 121), (3, 364), (10, 111), (10, 1111), (2, 1023)])
def test_the_update_after_a_restart_uses_the_peak(t_mult: int, epoch: int) -> None:
    for t0 in (1, "10u", "100/3%"):
        policy = Sgdr(lr=0.3, batch_size=32, t0=t0, t_mult=t_mult)
        run = Run(num_examples=320, num_epochs=3)
        assert policy.rates(epoch, run)[0] == 0.3
        assert policy.rates(epoch - 1, run)[-1] < 1e-3


def test_a_changed_batch_keeps_the_length_of_a_cycle() -> None:
    (_, many), (_, few) = (triangular(Ticks.of_epoch(3, updates), Fraction(5, 2)) for updates in (20, 5))
    np.testing.assert_allclose(many[::4], few, rtol=1e-12)  # the same points, reached by other divisions


def test_phase_is_exact_for_periods_of_many_digits() -> None:
    period = in_epochs(2.3333333333333335, 30, 10)
    for epoch in (0, 6, 7, 10**6):
        whole, share = phase(Ticks.of_epoch(epoch, 10), period)
        want = [(epoch + Fraction(i, 10)) / period for i in range(10)]
        assert whole.tolist() == [math.floor(p) for p in want]
        assert share.tolist() == [float(p - math.floor(p)) for p in want]


def test_sections_of_sgdr_dlr_stay_proportional_and_must_match_the_model() -> None:
    policy = SgdrDlr(lr=0.1, batch_size=32, section_ratios=(0.5, 1))
    lr = policy.rates(1, Run(num_examples=320, num_epochs=7, num_sections=2))
    np.testing.assert_allclose(lr[:, 0], 0.5 * lr[:, 1], rtol=1e-12)
    with pytest.raises(InputError) as caught:
        policy.settings(0, (), RUN)
    assert caught.value.sentences == (
        "section_ratios: expected one ratio per section of the model (3); got (0.5, 1.0).",
    )


def test_counted_in_updates_a_doubled_batch_doubles_the_cycle() -> None:
    """Cycles of 2 epochs (20 updates); the batch doubles after the first, so the second takes 4 epochs."""
    run, common = Run(320, 6), {"lr": 0.1, "batch_size": 32, "t0": 2, "t_mult": 1}
    growing = {"batch_milestones": [2], "batch_factor": 2}
    by_epoch, by_update = (build("sgdr", {**common, **growing, "clock": clock}) for clock in ("epoch", "update"))
    restarts = [[e for e in range(6) if p.settings(e, (), run).lr[0, 0] == 0.1] for p in (by_epoch, by_update)]
    assert restarts == [[0, 2, 4], [0, 2]]
    plain = build("sgdr", common)
    rates = np.concatenate([by_update.settings(e, (), run).lr for e in range(2, 6)])
    np.testing.assert_array_equal(rates, np.concatenate([plain.settings(e, (), run).lr for e in (0, 1)]))


def test_a_batch_that_grows_beyond_the_data_is_refused() -> None:
    policy = build("clr", {"lr": 0.1, "batch_size": 32, "batch_milestones": [1, 2], "batch_factor": 4})
    assert [policy.settings(e, (), Run(600, 3)).batch_size for e in range(3)] == [32, 128, 512]
    with pytest.raises(
        InputError,
        match=r"batch_factor: expected batches within the 500 training examples, and not 512; got 4.",
    ):
        policy.settings(2, (), Run(500, 3))


def test_the_modified_form_may_keep_its_floor() -> None:
    """v2: the height shrinks by rho and the base stays; v1: both bounds do, and may not cross."""
    common = {"lr": 1.0, "batch_size": 1, "mode": "modified_triangular2", "step_size": 1, "base_ratio": 0.2}
    peaks = lambda policy: [float(policy.rates(e, Run(1, 6))[0]) for e in range(6)]  # noqa: E731
    kept = build("clr", {**common, "sigma": 1, "rho": 0.5})
    np.testing.assert_allclose(peaks(kept), [0.2, 1.0, 0.2, 0.2 + 0.4, 0.2, 0.2 + 0.2])
    both = build("clr", {**common, "sigma": 0.5, "rho": 0.8})
    np.testing.assert_allclose(peaks(both), [0.2, 1.0, 0.1, 0.8, 0.05, 0.64])
    with pytest.raises(
        InputError, match=r"rho: expected at least sigma \(0.9\), or the peak falls below the base; got null."
    ):
        build("clr", {**common, "sigma": 0.9})


def test_absolute_section_rates_are_the_peaks() -> None:
    policy = build("sgdr_dlr", {"lr": 0.5, "batch_size": 32, "section_rates": [1e-4, 1e-3, 1e-2]})
    np.testing.assert_allclose(policy.settings(0, (), RUN).lr[0], [1e-4, 1e-3, 1e-2], rtol=1e-9)


BASE = {"lr": 0.1, "batch_size": 32}


@pytest.mark.parametrize(
    ("name", "parameters", "num_epochs", "ends"),
    [
        ("clr", {"step_size": 1}, 7, (2, 4, 6)),
        ("clr", {"step_size": 2, "step_down": 1}, 7, (3, 6)),
        ("clr", {"step_size": "12.5%"}, 12, (3, 6, 9, 12)),
        ("clr", {"step_size": "12.5%"}, 30, (7, 15, 22, 30)),  # 7.5 and 22.5 lie within an epoch: the one before
        ("clr", {"step_size": 0.25}, 3, (1, 2, 3)),  # two cycles in an epoch
        ("clr", {"step_size": 6}, 7, ()),
        ("sgdr", {"t0": 1, "t_mult": 2}, 15, (1, 3, 7, 15)),
        ("sgdr", {"t0": 1, "t_mult": 2}, 14, (1, 3, 7)),
        ("sgdr_dlr", {"t0": "100/7%"}, 12, (1, 5, 12)),
        ("sgdr", {"t0": 20}, 7, ()),
        # From epoch 4 on an epoch has half as many updates, so that a cycle of two epochs becomes one of four.
        ("clr", {"step_size": 1, "clock": "update", "batch_milestones": (4,), "batch_factor": 2}, 10, (2, 4, 8)),
        ("clr", {"step_size": 1, "batch_milestones": (4,), "batch_factor": 2}, 10, (2, 4, 6, 8, 10)),
        # Cycles of 2, 1 and 0.5 epochs in stages of 5, 2 and 1; each stage counts anew.
        ("clr_staged", {"boundaries": (5, 7), "step_sizes": (1, 0.5, 0.25)}, 8, (2, 4, 6, 7, 8)),
        ("clr_staged", {"boundaries": (5, 70), "step_sizes": (1, 0.5, 0.25)}, 8, (2, 4, 6, 7, 8)),
        ("torch:CyclicLR", {"base_lr": 0.01, "step_size_up": 10}, 5, (2, 4)),
        ("torch:CosineAnnealingWarmRestarts", {"T_0": 10, "T_mult": 2}, 4, (1, 3)),
        ("torch:StepLR", {"step_size": 2}, 5, (5,)),
        ("cosine", {}, 7, (7,)),
        ("one_cycle", {}, 7, (7,)),
        ("constant", {}, 7, (7,)),
        ("batch_increase", {}, 7, (7,)),
    ],
)  # fmt: skip
def test_cycles_end_where_the_rate_is_lowest(name, parameters, num_epochs, ends) -> None:
    """Worked by hand, with ten updates of the initial batch per epoch."""
    assert build(name, {**BASE, **parameters}).cycle_ends(Run(320, num_epochs, 3)) == ends


def test_a_cycle_of_one_update_ends_in_every_epoch() -> None:
    assert build("clr", {**BASE, "step_size": "1u"}).cycle_ends(Run(320, 5, 3)) == (1, 2, 3, 4, 5)
