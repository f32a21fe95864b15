"""The words of refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrstudy.errors import InputError
from lrstudy.policies import build
from lrstudy.policies.families.sgdr import SgdrDlr
from lrstudy.policies.families.step import Step
from lrstudy.policies.run import Run

COMMON: dict[str, object] = {"lr": 0.1, "batch_size": 32}


def refused(name: str, **parameters: object) -> tuple[str, ...]:
    """The faults that `build` finds."""
    with pytest.raises(InputError) as caught:
        build(name, {**COMMON, **parameters})
    return caught.value.sentences


def test_all_faults_are_reported_together_with_the_nearest_names() -> None:
    with pytest.raises(InputError) as caught:
        build("clr", {"lr": -1, "bas_ratio": 3, "mode": "triangluar", "step_size": 0, "base_ratio": True})
    unknown, *others = caught.value.sentences
    assert unknown.startswith("bas_ratio: clr has no such parameter. Did you mean 'base_ratio'? Valid: lr, batch_size,")
    assert others == [
        "batch_size: expected a whole number of at least 1; got nothing.",
        "lr: expected a finite number above 0; got -1.",
        "mode: expected triangular, triangular2, exp_range or modified_triangular2; got 'triangluar'. "
        "Did you mean 'triangular' or 'triangular2'?",
        "step_size: expected a duration above 0, like 4, '25%' or '2000u'; got 0.",
        "base_ratio: expected a number in [0, 1]; got True.",
    ]


@pytest.mark.parametrize(
    ("name", "parameters", "fault"),
    [
        ("clr", {"gamma": 0.99}, "gamma: expected it only with mode exp_range; got 0.99."),
        ("clr", {"mode": "triangular", "rho": 0.5}, "rho: expected it only with mode modified_triangular2; got 0.5."),
        ("clr", {"momentum_low": 0.95}, "momentum_low: expected at most the momentum (0.9); got 0.95."),
        ("clr", {"batch_milestones": [1]}, "batch_factor: expected a factor for batch_milestones; got null."),
        ("sgdr", {"batch_factor": 2}, "batch_factor: expected it only with batch_milestones; got 2."),
        ("cosine", {"warmup_start": 0.1}, "warmup_start: expected it only with a warmup; got 0.1."),
        (
            "batch_increase",
            {"scaling": "sqrt"},
            "scaling: expected it only with an initial_factor above 1; got 'sqrt'.",
        ),
        ("adabatch", {"warmup": 5}, "warmup: expected it only with a baseline_batch; got 5."),
        (
            "one_cycle",
            {"peak_at": 0.6, "three_phase": True},
            "peak_at: expected at most 0.5 with three_phase; got 0.6.",
        ),
        (
            "clr_staged",
            {"boundaries": [1]},
            "boundaries: expected the beginning of every stage but the first (2); got (1,).",
        ),
        ("clr", {"base_ratio": 1.5}, "base_ratio: expected a number in [0, 1]; got 1.5."),
    ],
)
def test_contradictory_and_inactive_parameters_are_refused(
    name: str, parameters: dict[str, object], fault: str
) -> None:
    assert refused(name, **parameters) == (fault,)


@pytest.mark.parametrize(
    ("name", "parameters", "fault"),
    [
        ("cosine", {"warmup": 10}, "warmup: expected a duration below the budget of 10 epochs; got 10."),
        (
            "wsd",
            {"warmup": 8, "cooldown": 5},
            "cooldown: expected warmup and cooldown of 10 epochs at most, the budget; got 5.",
        ),
        (
            "batch_increase",
            {"batch_size": 100, "initial_factor": 5},
            "initial_factor: expected at most 3: a first batch within the 320 training examples; got 5.",
        ),
        ("clr_staged", {"boundaries": [5, 3]}, "boundaries: expected rising durations; got (5, 3)."),
        (
            "sgdr_dlr",
            {"section_rates": [0.1]},
            "section_rates: expected one rate per section of the model (3); got (0.1,).",
        ),
    ],
)
def test_values_that_do_not_fit_the_run_are_refused(name: str, parameters: dict[str, object], fault: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, {**COMMON, **parameters}).settings(0, (), Run(320, 10, 3))
    assert caught.value.sentences == (fault,)


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
        ("clr", "step_size", [1, 2], "a duration above 0, like 4, '25%' or '2000u'"),
        ("clr", "step_size", {"a": 1}, "a duration above 0, like 4, '25%' or '2000u'"),
        ("clr", "step_size", "0%", "a duration above 0, like 4, '25%' or '2000u'"),
        ("sgdr", "t_mult", 0, "a whole number of at least 1"),
        ("sgdr", "min_ratio", 1.1, "a number in [0, 1]"),
        ("sgdr_dlr", "section_ratios", [0.1, "1"], "a list of which each is a number above 0 and at most 1 or null"),
        ("sgdr_dlr", "section_ratios", [0, 1], "a list of which each is a number above 0 and at most 1 or null"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(name: str, parameter: str, value: object, expected: str) -> None:
    assert refused(name, **{parameter: value}) == (
        f"{parameter}: expected {expected}; got {'null' if value is None else repr(value)}.",
    )


def test_whole_numbers_become_floats_and_lists_tuples() -> None:
    policy = build("sgdr_dlr", {"lr": 1, "batch_size": np.int64(8), "momentum": 0, "section_ratios": [1, 1]})
    assert isinstance(policy, SgdrDlr)
    assert (policy.lr, policy.momentum, policy.section_ratios) == (1.0, 0.0, (1.0, 1.0))
    assert [type(v) for v in (policy.lr, policy.momentum, policy.batch_size)] == [float, float, int]
    assert type(build("step", {**COMMON, "milestones": [1, "50%"]}).milestones) is tuple


def test_building_a_policy_directly_checks_the_same() -> None:
    with pytest.raises(InputError, match=r"gamma: expected a number above 0 and at most 1; got 2."):
        Step(lr=0.1, batch_size=32, gamma=2)
