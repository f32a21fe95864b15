"""One contract for every policy of the registry, with its default space."""

from __future__ import annotations

import math
import pickle
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from lrstudy.policies import build, families, registry
from lrstudy.policies.base import Policy, parameter_names
from lrstudy.policies.contract import check
from lrstudy.policies.families.sgdr import SgdrDlr
from lrstudy.policies.run import Run
from lrstudy.policies.spaces import default_space
from lrstudy.search.parameter import parse_parameter
from lrstudy.search.space import Space

COMMON: dict[str, object] = {"lr": 0.1, "batch_size": 32}

RUN = Run(num_examples=301, num_epochs=7, num_sections=3)


def space_of(name: str) -> Space:
    """The default space of a policy's own parameters."""
    own = {p: spec for p, spec in default_space(name).items() if p != "norm_batch"}
    return Space(tuple(parse_parameter(p, spec, p) for p, spec in own.items()))


def variants(name: str) -> list[Policy]:
    """The policy at every point of its default space."""
    return [build(name, {**COMMON, **point}) for point in space_of(name).grid()]


def whole_run(policy: Policy, run: Run = RUN) -> list[str]:
    """The settings of every epoch of a run in which nothing improves, which is what reactive policies react to."""
    history = [{"train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5}] * run.num_epochs
    return [policy.settings(epoch, history[:epoch], run).digest for epoch in range(run.num_epochs)]


TORCHS_DEFAULTS = ("plateau", "batch_plateau")
"""These have torch's patience of 10 where nothing is said, and search shorter ones, made for budgets of tens of epochs."""


every_policy = pytest.mark.parametrize("name", list(registry()))


def test_registry_finds_the_families_by_itself() -> None:
    assert {"batch_increase", "clr", "constant", "plateau", "sgdr", "step", "wsd"} < set(registry())
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
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    registry.cache_clear()
    try:
        assert build("halving", COMMON).settings(2, (), RUN).lr[0, 0] == 0.025
    finally:
        registry.cache_clear()


@every_policy
def test_contract_default_space_names_the_policys_own_parameters(name: str) -> None:
    """And how BatchNorm is to treat a batch that grows."""
    own = set(parameter_names(registry()[name])) - {"lr", "batch_size", "momentum"}
    assert set(default_space(name)) <= own | {"norm_batch"}
    assert own == set() or default_space(name), "nothing to search"


@every_policy
def test_contract_default_space_is_finite_and_its_defaults_are_the_policys(name: str) -> None:
    space = space_of(name)
    assert math.isfinite(space.size)
    if name not in TORCHS_DEFAULTS:
        assert whole_run(build(name, {**COMMON, **space.default()})) == whole_run(build(name, COMMON))


@every_policy
def test_contract_the_suite_for_everybody_passes(name: str) -> None:
    """Pure, in any order, whatever the history, picklable, of the right shape, in this process (policies/contract.py)."""
    for policy in variants(name):
        values = {f.name: getattr(policy, f.name) for f in fields(policy)}
        assert check(type(policy), values, (RUN,), in_fresh_process=False) == []


@every_policy
def test_contract_a_reactive_policy_that_knows_nothing_is_one_that_nothing_has_triggered(name: str) -> None:
    """A trial claims the states it would reach if nothing happened: epochs without metrics trigger nothing."""
    policy = build(name, COMMON)
    rising = [{"train_loss": 0.9**e, "val_loss": 0.9**e, "val_accuracy": 1 - 0.9**e} for e in range(RUN.num_epochs)]
    for epoch in range(RUN.num_epochs):
        assert policy.settings(epoch, (), RUN) == policy.settings(epoch, rising[:epoch], RUN)


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
    "step_every": {"every": 2},
    "linear_decay": {"over": 5},
    "batch_increase": {"milestones": [1, 3]},
    "batch_hybrid": {"milestones": [1, 3]},
    "adabatch": {"every": 2},
    "clr": {"step_size": 1.5},
    "clr_staged": {"step_sizes": [1, 1, 1], "boundaries": [2, 4]},
    "sgdr": {"t0": 1.5},
    "sgdr_dlr": {"t0": 1.5},
}
"""Durations that do not mention the budget; a policy that needs none is absent."""


@every_policy
def test_contract_a_longer_budget_only_adds_epochs_where_that_is_declared(name: str) -> None:
    policy = build(name, {**COMMON, **IN_EPOCHS.get(name, {})})
    is_prefix = whole_run(policy, Run(301, 12, 3))[:7] == whole_run(policy, Run(301, 7, 3))
    assert is_prefix == policy.horizon_free


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


@tried(deadline=None, max_examples=150)
@given(data=st.data(), num_examples=st.integers(1, 400), num_epochs=st.integers(1, 12))
def test_any_values_give_pure_positive_rates_below_the_peak(
    data: st.DataObject, num_examples: int, num_epochs: int
) -> None:
    share = st.integers(1, 100).map(lambda n: f"{n}%")
    duration = st.one_of(share, st.integers(1, 15), st.integers(1, 99).map(lambda n: f"{n}u"))
    milestones = st.lists(st.one_of(duration, st.just(0)), max_size=4)
    ratio = st.floats(0.01, 1.0)
    own = {
        "step": {"milestones": milestones, "gamma": ratio, "min_ratio": st.floats(0, 1)},
        "batch_increase": {
            "milestones": milestones,
            "factor": st.integers(2, 6),
            "cap": st.none() | st.integers(1, 500),
            "cap_mode": st.sampled_from(["residual", "switch", "keep"]),
        },
        "clr": {
            "mode": st.sampled_from(["triangular", "triangular2", "modified_triangular2"]),
            "step_size": duration,
            "base_ratio": st.floats(0, 1),
        },
        "sgdr": {
            "t0": duration,
            "t_mult": st.integers(1, 4),
            "min_ratio": st.floats(0, 1),
            "slow_start": st.booleans(),
        },
        "constant": {},
        "sgdr_dlr": {"t0": duration, "t_mult": st.integers(1, 4), "section_ratios": ratio.map(lambda only: [only])},
        "clr_staged": {
            "base_ratio": ratio,
            "stage_ratios": st.lists(ratio, min_size=2, max_size=2),
            "step_sizes": st.lists(duration, min_size=2, max_size=2),
            "boundaries": duration.map(lambda only: [only]),
        },
        "step_every": {"every": duration, "gamma": ratio},
        "exponential": {"gamma": ratio, "per": st.sampled_from(["epoch", "update"])},
        "linear_decay": {"over": duration, "end_ratio": ratio},
        "batch_hybrid": {"milestones": milestones, "factor": st.integers(2, 6), "batch_steps": st.integers(1, 3)},
        "adabatch": {"every": duration, "gamma": ratio, "resize": st.integers(2, 4)},
        "cosine": {"warmup": share.filter(lambda text: text != "100%"), "min_ratio": st.floats(0, 1)},
        "linear": {"warmup": share.filter(lambda text: text != "100%")},
        "wsd": {
            "cooldown": st.integers(1, 60).map(lambda n: f"{n}%"),
            "warmup": st.just("40%"),
            "shape": st.sampled_from(["linear", "1-sqrt"]),
            "min_ratio": st.floats(0, 1),
        },
        "one_cycle": {
            "peak_at": st.floats(0, 0.5),
            "anneal": st.sampled_from(["cos", "linear"]),
            "three_phase": st.booleans(),
        },
        "plateau": {"patience": st.integers(0, 4), "semantics": st.sampled_from(["torch", "keras", "keras_restart"])},
        "batch_plateau": {
            "patience": st.integers(0, 4),
            "factor": st.integers(2, 6),
            "cap": st.none() | st.integers(1, 500),
        },
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
        assert (made.lr >= 0).all()  # 0 where a power of gamma is below the smallest number
        assert made.lr.max() <= policy.lr * (1 + 1e-8)
