"""Policies: golden numbers, one contract for all, agreement with torch, and the words of refusals."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import module_from_spec, spec_from_file_location
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

import lrstudy.policies
from lrstudy.faults import InputError
from lrstudy.policies import build, registry, spaces
from lrstudy.policies.base import Policy, RatePolicy, Run, count_updates, parameter_names, phase
from lrstudy.policies.batch_increase import BatchIncrease
from lrstudy.policies.clr import Clr, triangular, triangular2
from lrstudy.policies.durations import count_passed, in_epochs, to_whole_epoch
from lrstudy.policies.sgdr import Sgdr, SgdrDlr, cosine_restarts
from lrstudy.policies.spaces import default_space
from lrstudy.policies.step import Step
from lrstudy.settings import FloatArray, Settings
from lrstudy.space import Space, parse_parameter

COMMON: dict[str, object] = {"lr": 0.1, "batch_size": 32}
CASES = {
    case["id"]: case
    for case in json.loads((Path(__file__).parent / "golden" / "golden_policies.json").read_text())["cases"]
}


def refused(name: str, **parameters: object) -> tuple[str, ...]:
    """The faults that `build` finds."""
    with pytest.raises(InputError) as caught:
        build(name, {**COMMON, **parameters})
    return caught.value.faults


# --- golden: numbers from torch and from closed forms, see meta and source in the file -------------------


@dataclass(frozen=True, kw_only=True)
class GrowingSgdr(Sgdr):
    """SGDR on the epoch clock whose batch doubles at epoch 3, as nothing in the catalogue does."""

    def rates_at(self, epoch: int, num_updates: int) -> FloatArray:
        return self.lr * cosine_restarts(epoch, num_updates, Fraction(self.t0), self.t_mult)

    def settings(self, epoch: int, history: object, run: Run) -> Settings:
        batch_size = self.batch_size * (2 if epoch >= 3 else 1)
        return run.settings(self.rates_at(epoch, run.num_updates(batch_size)), self.momentum, batch_size)


def golden_policy(case: Mapping[str, dict]) -> Policy:
    given_, batch_size = case["params"], case["batch_size_per_epoch"][0]
    peak = given_.get("lr") or given_.get("max_lr") or given_.get("eta_max") or given_["group_lrs"]["head"]
    common = {"lr": peak, "batch_size": batch_size}
    if case["policy"] == "constant":
        return build("constant", common)
    if case["policy"] == "multistep":
        return build("step", {**common, "milestones": given_["milestones_epoch"], "gamma": given_["gamma"]})
    if case["policy"] == "batch_milestones":
        own = {key: given_[key] for key in ("factor", "cap", "cap_mode") if given_[key] is not None}
        return build("batch_increase", {**common, "milestones": given_["milestones_epoch"], **own})
    if case["policy"] == "clr":
        own = {"mode": given_["mode"], "step_size": f"{given_['step_size_steps']}u"}
        return build("clr", {**common, **own, "base_ratio": given_["base_lr"] / peak})
    own = {"t0": given_["T0_epochs"], "t_mult": given_["T_mult"], "min_ratio": given_["eta_min"] / peak}
    if "batches" in given_:
        return GrowingSgdr(**common, **own)
    if case["policy"] == "sgdr_dlr":
        return build("sgdr_dlr", {**common, **own, "section_ratios": [0.01, 0.1, 1]})
    return build("sgdr", {**common, **own})


def unrounded(policy: Policy, epoch: int, run: Run) -> FloatArray:
    """The policy's output before settings round it, shape (updates, sections)."""
    if isinstance(policy, GrowingSgdr):
        rates = policy.rates_at(epoch, 10 if epoch < 3 else 5)
    elif isinstance(policy, BatchIncrease):
        lr, batch_size = policy.rate_and_batch(epoch, run)
        rates = np.full(run.num_updates(batch_size), lr)
    else:
        assert isinstance(policy, RatePolicy)
        rates = policy.rates(epoch, run)
    return rates.reshape(len(rates), -1)


@pytest.mark.parametrize(
    "case_id",
    [
        "constant",
        "step_multistep",
        "step_wrn_scaled",
        "bs_smith_pure",
        "bs_smith_cap_residual",
        "bs_smith_cap_switch",
        "bs_smith_lr_twin",
        "clr_triangular",
        "clr_triangular2",
        "sgdr_t0_1_mult2",
        "sgdr_t0_5_mult1",
        "sgdr_epoch_clock_batch_change",
        "mishra_stage2_clm_dlr",
    ],
)
def test_golden_trajectory(case_id: str) -> None:
    case = CASES[case_id]
    groups = case.get("lr_per_step_groups")
    want = np.column_stack(list(groups.values()) if groups else [case["lr_per_step"]])
    policy = golden_policy(case)
    run = Run(case["params"]["N"], len(case["steps_per_epoch"]), want.shape[1])
    epochs = [policy.settings(epoch, (), run) for epoch in range(run.num_epochs)]
    assert [made.num_updates for made in epochs] == case["steps_per_epoch"]
    assert [made.batch_size for made in epochs] == case["batch_size_per_epoch"]
    exact = np.concatenate([unrounded(policy, epoch, run) for epoch in range(run.num_epochs)])
    np.testing.assert_allclose(exact, want, **case["tolerance"])
    # Settings keep nine significant digits: half a unit of the ninth is at most 5e-9 of the value.
    np.testing.assert_allclose(np.concatenate([made.lr for made in epochs]), want, rtol=1e-8, atol=1e-15)
    for made, noise in zip(epochs, case.get("noise_scale_approx_per_epoch", ()), strict=False):
        np.testing.assert_allclose(made.lr * run.num_examples / (made.batch_size * 0.1), noise, rtol=1e-8)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_golden_stages_of_table_2_are_triangular2_each(stage: int) -> None:
    """Smith's 81.4% came from three restarted triangular2 blocks; each of them is this policy."""
    case = CASES["clr_triangular2_staged_table2"]
    given_ = case["params"]["stages"][stage]
    peak, step_size = given_["max_lr"], f"{given_['step_size']}u"
    policy = Clr(lr=peak, batch_size=32, step_size=step_size, base_ratio=given_["base_lr"] / peak)
    run = Run(num_examples=320, num_epochs=(given_["end"] - given_["start"]) // 10)
    got = np.concatenate([policy.rates(epoch, run) for epoch in range(run.num_epochs)])
    np.testing.assert_allclose(got, case["lr_per_step"][given_["start"] : given_["end"]], **case["tolerance"])


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


def test_a_batch_that_starts_above_the_cap_stays() -> None:
    policy = BatchIncrease(lr=0.1, batch_size=64, milestones=(1,), factor=2, cap=48)
    assert policy.rate_and_batch(1, Run(num_examples=100, num_epochs=2)) == (0.05, 64)


# --- contract: every policy of the registry, with its default space --------------------------------------

RUN = Run(num_examples=301, num_epochs=7, num_sections=3)


def space_of(name: str) -> Space:
    return Space(tuple(parse_parameter(p, spec, p) for p, spec in default_space(name).items()))


def variants(name: str) -> list[Policy]:
    """The policy at every point of its default space."""
    return [build(name, {**COMMON, **point}) for point in space_of(name).grid()]


def whole_run(policy: Policy, run: Run = RUN) -> list[str]:
    return [policy.settings(epoch, (), run).digest for epoch in range(run.num_epochs)]


every_policy = pytest.mark.parametrize("name", list(registry()))


def test_registry_finds_the_families_by_itself() -> None:
    assert list(registry()) == ["batch_increase", "clr", "constant", "sgdr", "sgdr_dlr", "step"]
    assert registry()["sgdr_dlr"] is SgdrDlr


def test_a_new_family_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halving_family.py").write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from lrstudy.policies.base import RatePolicy\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Halving(RatePolicy):\n"
        "    name = 'halving'\n"
        "    def rates(self, epoch, run):\n"
        "        return np.full(self.initial_updates(run), self.lr * 0.5**epoch)\n"
    )
    monkeypatch.setattr(lrstudy.policies, "__path__", [*lrstudy.policies.__path__, str(tmp_path)])
    registry.cache_clear()
    try:
        assert build("halving", COMMON).settings(2, (), RUN).lr[0, 0] == 0.025
    finally:
        registry.cache_clear()


@every_policy
def test_contract_default_space_names_the_policys_own_parameters(name: str) -> None:
    own = set(parameter_names(registry()[name])) - {"lr", "batch_size", "momentum"}
    assert set(default_space(name)) == own


@every_policy
def test_contract_default_space_is_finite_and_its_defaults_are_the_policys(name: str) -> None:
    space = space_of(name)
    assert math.isfinite(space.size)
    assert build(name, {**COMMON, **space.default()}) == build(name, COMMON)


@every_policy
def test_contract_settings_are_pure_in_any_order(name: str) -> None:
    for policy in variants(name):
        forth = whole_run(policy)
        back = [policy.settings(epoch, (), RUN).digest for epoch in reversed(range(RUN.num_epochs))]
        assert forth == back[::-1]
        if not policy.reactive:
            noted = [{"train_loss": 9.0, "val_loss": float(epoch)} for epoch in range(RUN.num_epochs)]
            last = RUN.num_epochs - 1
            assert policy.settings(last, noted[:last], RUN).digest == forth[-1]


@every_policy
def test_contract_policies_pickle_hash_and_compare_by_value(name: str) -> None:
    for policy in variants(name):
        copy = pickle.loads(pickle.dumps(policy))
        assert copy == policy
        assert hash(copy) == hash(policy)
        assert whole_run(copy) == whole_run(policy)


@every_policy
@pytest.mark.parametrize("num_examples", [2, 31, 33, 301])
def test_contract_settings_fit_the_run(name: str, num_examples: int) -> None:
    run = Run(num_examples, num_epochs=4, num_sections=3)
    for policy in variants(name):
        for epoch in range(run.num_epochs):
            made = policy.settings(epoch, (), run)
            assert made.lr.shape == made.momentum.shape == (run.num_updates(made.batch_size), 3)
            assert np.isfinite(made.lr).all()
            assert (made.lr > 0).all()
            assert made.lr.max() <= policy.lr * (1 + 1e-9), "lr is the peak"
            assert 1 <= made.batch_size <= num_examples
            assert made.recipe == run.recipe


@every_policy
def test_contract_every_parameter_matters(name: str) -> None:
    """A parameter of the space that changes no epoch would waste trials."""
    run = Run(num_examples=301 * 32, num_epochs=15, num_sections=3)  # large enough for a cap of 256 to bind
    space = space_of(name)
    for parameter in space.searched:
        points = [space.default() | {parameter.name: value} for value in parameter.values]
        if parameter.name == "cap":
            points = [point | {"factor": 5} for point in points]
        trajectories = {tuple(whole_run(build(name, {**COMMON, **point}), run)) for point in points}
        assert len(trajectories) == len(points), parameter.name


IN_EPOCHS: dict[str, dict[str, object]] = {
    "step": {"milestones": [1, 3]},
    "batch_increase": {"milestones": [1, 3]},
    "clr": {"step_size": 1.5},
    "sgdr": {"t0": 1.5},
    "sgdr_dlr": {"t0": 1.5},
}
"""Durations that do not mention the budget; a policy that needs none is absent."""


@every_policy
def test_contract_a_longer_budget_only_adds_epochs(name: str) -> None:
    policy = build(name, {**COMMON, **IN_EPOCHS.get(name, {})})
    assert whole_run(policy, Run(301, 12, 3))[:7] == whole_run(policy, Run(301, 7, 3))


@pytest.mark.parametrize("name", ["clr", "sgdr", "sgdr_dlr"])
@pytest.mark.parametrize("num_epochs", [7, 30, 45])
def test_default_cycles_end_with_the_budget(name: str, num_epochs: int) -> None:
    """A run that ends at a peak is penalised: the update after the last one would begin a cycle."""
    run = Run(num_examples=320, num_epochs=num_epochs, num_sections=3)
    for policy in variants(name):
        last, after = (policy.settings(epoch, (), run).lr[:, -1] for epoch in (num_epochs - 1, num_epochs))
        period = policy.epochs(policy.step_size, run) * 2 if name == "clr" else policy.epochs(policy.t0, run)
        assert (num_epochs / period).denominator == 1
        if name == "clr":
            assert after[0] == pytest.approx(policy.lr * policy.base_ratio, rel=1e-8)
        else:
            assert after[0] == policy.lr
            assert last[-1] < 0.05 * policy.lr


@tried(deadline=None, max_examples=60)
@given(data=st.data(), num_examples=st.integers(1, 400), num_epochs=st.integers(1, 12))
def test_any_values_give_pure_positive_rates_below_the_peak(
    data: st.DataObject, num_examples: int, num_epochs: int
) -> None:
    share = st.integers(1, 100).map(lambda n: f"{n}%")
    duration = st.one_of(share, st.integers(1, 15), st.integers(1, 99).map(lambda n: f"{n}u"))
    milestones = st.lists(st.one_of(duration, st.just(0)), max_size=4)
    ratio = st.floats(0.01, 1.0)
    own = {
        "step": {"milestones": milestones, "gamma": ratio},
        "batch_increase": {
            "milestones": milestones,
            "factor": st.integers(2, 6),
            "cap": st.none() | st.integers(1, 500),
            "cap_mode": st.sampled_from(["residual", "switch"]),
        },
        "clr": {
            "mode": st.sampled_from(["triangular", "triangular2"]),
            "step_size": duration,
            "base_ratio": ratio,
        },
        "sgdr": {"t0": duration, "t_mult": st.integers(1, 4), "min_ratio": st.floats(0, 0.99)},
    }
    name = data.draw(st.sampled_from(sorted(own)))
    common = {"lr": data.draw(st.floats(1e-4, 1.0)), "batch_size": data.draw(st.integers(1, 300))}
    policy = build(name, {**common, **data.draw(st.fixed_dictionaries(own[name]))})
    run = Run(num_examples, num_epochs)
    order = data.draw(st.permutations(range(num_epochs)))
    first = {epoch: policy.settings(epoch, (), run) for epoch in order}
    for epoch in range(num_epochs):
        made = pickle.loads(pickle.dumps(policy)).settings(epoch, (), run)
        assert made.digest == first[epoch].digest
        assert made.num_updates == run.num_updates(made.batch_size)
        assert (made.lr > 0).all()
        assert made.lr.max() <= policy.lr * (1 + 1e-8)


# --- reference: torch's schedulers, stepped as their documentation says ----------------------------------


@pytest.fixture(scope="module")
def torch_loaded() -> None:
    """The first optimizer of a process imports torch's compiler: two seconds that are no test's doing."""
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def torch_rates(lr: float, steps: int, scheduler: type, **arguments: object) -> list[float]:
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
    mode=st.sampled_from(["triangular", "triangular2"]),
    step_size=st.integers(1, 40),
    base_ratio=st.floats(0.01, 1.0),
    updates=st.integers(1, 25),
)
def test_clr_agrees_with_torch(mode: str, step_size: int, base_ratio: float, updates: int) -> None:
    policy = Clr(lr=0.1, batch_size=32, mode=mode, step_size=f"{step_size}u", base_ratio=base_ratio)
    theirs = torch_rates(
        0.1,
        8 * updates,
        torch.optim.lr_scheduler.CyclicLR,
        base_lr=0.1 * base_ratio,
        max_lr=0.1,
        step_size_up=step_size,
        mode=mode,
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


# --- cycles: restarts at exactly the right update --------------------------------------------------------


@pytest.mark.parametrize("t_mult", [1, 2, 3, 10])
@pytest.mark.parametrize("t0", [Fraction(1), Fraction(1, 3), Fraction(30, 7), Fraction(123, 1000), Fraction(5, 2)])
def test_restarts_happen_at_exactly_the_right_update(t0: Fraction, t_mult: int) -> None:
    """Torch's step(p) misses restart 5 of T_mult 3 (epoch 121 T0) and restart 3 of 10 (111 T0)."""
    updates, epochs = 7, 130
    lengths = (t0 * t_mult**cycle for cycle in range(2000))
    begins = islice(accumulate(lengths, initial=Fraction(0)), 2000)
    first_updates = {math.ceil(begin * updates) for begin in begins if begin < epochs}
    factors = np.concatenate([cosine_restarts(epoch, updates, t0, t_mult) for epoch in range(epochs)])
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
    for curve in (triangular, triangular2):
        many, few = (curve(3, updates, Fraction(5, 2)) for updates in (20, 5))
        np.testing.assert_allclose(many[::4], few, rtol=1e-12)  # the same points, reached by other divisions


def test_phase_is_exact_for_periods_of_many_digits() -> None:
    period = in_epochs(2.3333333333333335, 30, 10)
    for epoch in (0, 6, 7, 10**6):
        whole, share = phase(epoch, 10, period)
        want = [(epoch + Fraction(i, 10)) / period for i in range(10)]
        assert whole.tolist() == [math.floor(p) for p in want]
        assert share.tolist() == [float(p - math.floor(p)) for p in want]


def test_sections_of_sgdr_dlr_stay_proportional_and_must_match_the_model() -> None:
    policy = SgdrDlr(lr=0.1, batch_size=32, section_ratios=(0.5, 1))
    lr = policy.rates(1, Run(num_examples=320, num_epochs=7, num_sections=2))
    np.testing.assert_allclose(lr[:, 0], 0.5 * lr[:, 1], rtol=1e-12)
    with pytest.raises(InputError) as caught:
        policy.settings(0, (), RUN)
    assert caught.value.faults == ("section_ratios: expected one ratio per section of the model (3); got (0.5, 1.0)",)


# --- durations and updates -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "epochs"),
    [
        (3, 3),
        (2.5, Fraction(5, 2)),
        (0, 0),
        ("4", 4),
        ("30%", 9),
        ("12.5%", Fraction(15, 4)),
        ("100/7%", Fraction(30, 7)),
        ("4000u", 400),
        ("1u", Fraction(1, 10)),
        (0.1, Fraction(1, 10)),
    ],
)
def test_a_duration_in_epochs(duration: object, epochs: Fraction) -> None:
    assert in_epochs(duration, 30, 10) == epochs


@pytest.mark.parametrize("duration", [True, "", "%", "u", "x", "1.5u", "1/0%", -1, "-5%", "-1u", math.nan, math.inf])
def test_what_is_no_duration_is_refused(duration: object) -> None:
    with pytest.raises(ValueError) as caught:
        in_epochs(duration, 30, 10)
    assert str(caught.value) == (
        f"expected a duration: epochs (3), a share of the budget ('30%') or updates ('4000u'); got {duration!r}"
    )


@pytest.mark.parametrize(("duration", "epoch"), [(2.5, 3), (2.4, 2), ("50%", 4), ("4u", 0), ("5u", 1)])
def test_a_milestone_rounds_to_the_nearest_epoch_halves_up(duration: object, epoch: int) -> None:
    assert to_whole_epoch(duration, 7, 10) == epoch


def test_milestones_count_repeats_and_need_no_order() -> None:
    assert [count_passed([3, 1, 3, 9, 0], epoch, 6, 10) for epoch in range(6)] == [1, 2, 2, 4, 4, 4]


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "updates"),
    [(10, 5, 2), (11, 5, 2), (12, 5, 3), (4, 5, 1), (1, 5, 1), (3, 1, 3), (6, 5, 1), (1, 1, 1)],
)
def test_updates_of_an_epoch_merge_a_tail_of_one(num_examples: int, batch_size: int, updates: int) -> None:
    assert count_updates(num_examples, batch_size) == updates


# --- errors ----------------------------------------------------------------------------------------------


def test_all_faults_are_reported_together_with_the_nearest_names() -> None:
    with pytest.raises(InputError) as caught:
        build("clr", {"lr": -1, "bas_ratio": 3, "mode": "triangluar", "step_size": 0, "base_ratio": True})
    assert caught.value.faults == (
        "bas_ratio: clr has no such parameter. Did you mean 'base_ratio'? "
        "Valid: lr, batch_size, momentum, mode, step_size, base_ratio.",
        "batch_size: expected a whole number of at least 1; got nothing",
        "lr: expected a finite number above 0; got -1",
        "mode: expected a known name; got 'triangluar'. "
        "Did you mean 'triangular' or 'triangular2'? Valid: triangular, triangular2.",
        "step_size: expected a duration above 0, like 4, '25%' or '2000u'; got 0",
        "base_ratio: expected a number above 0 and at most 1; got True",
    )


def test_an_unknown_policy_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"^policy: there is no policy 'stpe'\. Did you mean 'step'\? Valid: "):
        build("stpe", COMMON)


@pytest.mark.parametrize(
    ("name", "parameter", "value", "expected"),
    [
        ("constant", "lr", "0.1", "a finite number above 0"),
        ("constant", "lr", math.inf, "a finite number above 0"),
        ("constant", "lr", True, "a finite number above 0"),
        ("constant", "lr", None, "a finite number above 0"),
        ("constant", "batch_size", 32.0, "a whole number of at least 1"),
        ("constant", "batch_size", 0, "a whole number of at least 1"),
        ("constant", "momentum", 1, "a number in [0, 1)"),
        ("step", "milestones", "50%", "a list of which each is a duration, like 4, '25%' or '2000u'"),
        ("step", "milestones", ["half"], "a list of which each is a duration, like 4, '25%' or '2000u'"),
        ("step", "milestones", [True], "a list of which each is a duration, like 4, '25%' or '2000u'"),
        ("step", "gamma", 0, "a number above 0 and at most 1"),
        ("batch_increase", "factor", 1.5, "a whole number of at least 2"),
        ("batch_increase", "factor", 1, "a whole number of at least 2"),
        ("batch_increase", "cap", 0, "a whole number of at least 1 or null"),
        ("clr", "step_size", "0%", "a duration above 0, like 4, '25%' or '2000u'"),
        ("sgdr", "t_mult", 0, "a whole number of at least 1"),
        ("sgdr", "min_ratio", 1.0, "a number in [0, 1)"),
        ("sgdr_dlr", "section_ratios", [0.1, "1"], "a list of which each is a number above 0 and at most 1"),
        ("sgdr_dlr", "section_ratios", [0, 1], "a list of which each is a number above 0 and at most 1"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(name: str, parameter: str, value: object, expected: str) -> None:
    assert refused(name, **{parameter: value}) == (f"{parameter}: expected {expected}; got {value!r}",)


def test_whole_numbers_become_floats_and_lists_tuples() -> None:
    policy = build("sgdr_dlr", {"lr": 1, "batch_size": np.int64(8), "momentum": 0, "section_ratios": [1, 1]})
    assert isinstance(policy, SgdrDlr)
    assert (policy.lr, policy.momentum, policy.section_ratios) == (1.0, 0.0, (1.0, 1.0))
    assert [type(v) for v in (policy.lr, policy.momentum, policy.batch_size)] == [float, float, int]
    assert type(build("step", {**COMMON, "milestones": [1, "50%"]}).milestones) is tuple


def test_building_a_policy_directly_checks_the_same() -> None:
    with pytest.raises(InputError, match="gamma: expected a number above 0 and at most 1; got 2"):
        Step(lr=0.1, batch_size=32, gamma=2)


# --- default spaces --------------------------------------------------------------------------------------


def test_an_unknown_default_space_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"there is no default space of a policy 'sgrd'\. Did you mean 'sgdr'"):
        default_space("sgrd")


def test_a_default_space_is_a_fresh_mapping() -> None:
    default_space("step").clear()
    assert set(default_space("step")) == {"milestones", "gamma"}


def test_default_spaces_are_found_in_an_installed_wheel(tmp_path: Path) -> None:
    """A wheel holds search_spaces inside the package, and there it wins over anything around it."""
    package = tmp_path / "site-packages" / "lrstudy"
    (package / "policies").mkdir(parents=True)
    (package / "search_spaces").mkdir()
    (package / "search_spaces" / "step.yaml").write_text("gamma: {choice: [1e-4, 1]}\n")
    copy = shutil.copy(Path(spaces.__file__), package / "policies" / "spaces.py")
    spec = spec_from_file_location("installed_spaces", copy)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.default_space("step") == {"gamma": {"choice": [0.0001, 1]}}
