"""Stages: each policy decides its own epochs, for its own sections, as if the stage were the whole run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from golden_cases import CASES
from lrstudy.errors import InputError
from lrstudy.policies import build, contract
from lrstudy.policies.run import Run
from lrstudy.policies.stages import Stages
from lrstudy.settings import Recipe

RUN = Run(320, 10, 3, Recipe(weight_decay=5e-4, augment="flip"))
COMMON = {"lr": 0.1, "batch_size": 32, "momentum": 0.9}
RECIPE: dict[str, Any] = {"optimizer": "sgd", "weight_decay": 5e-4, "norm_batch": None}


def stage(policy: str, train: str = "all", recipe: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    keys = ("epochs", "input", "batchnorm", "reset_optimizer")
    own = {key: given.pop(key) for key in keys if key in given}
    return {**own, "policy": policy, "train": train, "parameters": COMMON | given, "recipe": RECIPE | (recipe or {})}


def stages(*of: dict[str, Any]) -> Stages:
    return Stages(**COMMON, stages=of)


HEAD = stage("sgdr", "head", epochs="30%", t0="100/3%", t_mult=1)
DLR = stage("sgdr_dlr", t0="100/7%")


@pytest.mark.parametrize(
    "of",
    [
        (HEAD, DLR),
        (stage("plateau", epochs=2, patience=0), stage("batch_increase", "upper")),
        (stage("clr", epochs=1, mode="triangular"), stage("wsd", "upper", epochs="50%"), stage("one_cycle")),
    ],
)
def test_stages_keep_the_contract_of_policies(of):
    assert contract.check(Stages, {"stages": of}) == []


def test_a_stage_is_decided_as_if_it_were_the_whole_run():
    policy = stages(HEAD, DLR)
    first, second = build("sgdr", HEAD["parameters"]), build("sgdr_dlr", DLR["parameters"])
    for epoch in range(3):
        alone = first.settings(epoch, (), Run(320, 3, 3))
        assert np.array_equal(policy.settings(epoch, (), RUN).lr[:, 2], alone.lr[:, 2])
    for epoch in range(7):
        assert np.array_equal(policy.settings(3 + epoch, (), RUN).lr, second.settings(epoch, (), Run(320, 7, 3)).lr)


def test_the_reference_trajectory_of_two_stages_is_reproduced():
    """SGDR on the head for two cycles, then differential rates over cycles of one and two epochs."""
    case = CASES["mishra_two_stage"]
    values = {"lr": 0.01, "t0": 1, "min_ratio": 0}
    policy = stages(
        stage("sgdr", "head", epochs=2, **values, t_mult=1),
        stage("sgdr_dlr", **values, t_mult=2, section_ratios=[0.01, 0.1, 1.0]),
    )
    run = Run(case["params"]["N"], len(case["steps_per_epoch"]), 3)
    traced = np.concatenate([policy.settings(epoch, (), run).unrounded_lr for epoch in range(run.num_epochs)])
    wanted = np.array([case["lr_per_step_groups"][name] for name in ("early", "mid", "head")]).T
    assert traced == pytest.approx(wanted, rel=1e-9, abs=1e-15)


def test_frozen_sections_have_no_rate_and_are_named_in_the_recipe():
    policy = stages(stage("constant", "head", epochs=1), stage("constant", "upper", epochs=1), stage("constant"))
    head, upper, whole = (policy.settings(epoch, (), RUN) for epoch in (0, 1, 2))
    assert [list(settings.lr[0]) for settings in (head, upper, whole)] == [[0, 0, 0.1], [0, 0.1, 0.1], [0.1, 0.1, 0.1]]
    assert [s.recipe.trainable for s in (head, upper, whole)] == [(False, False, True), (False, True, True), ()]
    assert [s.recipe.batchnorm for s in (head, upper, whole)] == ["eval", "eval", "train"]
    assert [s.recipe.input for s in (head, upper, whole)] == ["features", "images", "images"]
    assert [s.recipe.augment for s in (head, upper, whole)] == ["none", "flip", "flip"]


def test_every_stage_but_the_first_begins_with_a_new_optimizer_unless_it_says_otherwise():
    resets = [stages(HEAD, DLR).settings(epoch, (), RUN).recipe.reset_optimizer for epoch in range(10)]
    assert resets == [False] * 3 + [True] + [False] * 6
    kept = stages(HEAD, {**DLR, "reset_optimizer": False})
    assert not any(kept.settings(epoch, (), RUN).recipe.reset_optimizer for epoch in range(10))


def test_one_stage_that_trains_everything_is_the_policy_alone():
    """So both share their training."""
    alone = build("sgdr", COMMON)
    assert [stages(stage("sgdr")).settings(e, (), RUN).digest for e in range(10)] == [
        alone.settings(e, (), RUN).digest for e in range(10)
    ]


def test_stages_that_begin_alike_have_the_same_settings_until_they_part():
    one, other = stages(HEAD, DLR), stages(HEAD, stage("constant", batchnorm="frozen", recipe={"weight_decay": 0.0}))
    same = [one.settings(e, (), RUN).digest == other.settings(e, (), RUN).digest for e in range(10)]
    assert same == [True] * 3 + [False] * 7


def test_a_recipe_of_a_stage_leaves_nothing_to_the_next_one():
    adam = stage("constant", epochs=5, recipe={"optimizer": "adam", "clip_norm": 1.0, "beta2": None, "eps": None})
    sgd = stage("constant", recipe={"optimizer": "sgd", "clip_norm": None, "beta2": None, "eps": None})
    first, second = (stages(adam, sgd).settings(epoch, (), RUN).recipe for epoch in (0, 5))
    assert (first.optimizer, first.beta2, first.clip_norm) == ("adam", 0.999, 1.0)
    assert (second.optimizer, second.beta2, second.clip_norm) == ("sgd", None, None)


def test_a_reactive_stage_sees_the_results_of_its_own_epochs_alone():
    policy = stages(stage("constant", epochs=4), stage("plateau", patience=0, factor=0.5))
    assert policy.reactive
    worse = [{"val_loss": 1.0 + epoch} for epoch in range(10)]
    rates = [float(policy.settings(epoch, worse[:epoch], RUN).lr[0, 0]) for epoch in range(10)]
    assert rates == [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.025, 0.0125, 0.00625]
    assert not stages(HEAD, DLR).reactive


def test_cycles_are_those_of_the_last_stage():
    assert list(stages(HEAD, DLR).cycle_ends(RUN)) == [4, 6, 10]
    assert list(stages(HEAD, DLR).stage_starts(RUN)) == [0, 3]


def test_updates_are_those_of_the_stages_own_batch():
    """20 updates are two epochs of 32 examples, and one of 16."""
    wide, narrow = (stage("constant", epochs="20u", batch_size=size) for size in (32, 16))
    assert [list(stages(one, stage("constant")).stage_starts(RUN))[1] for one in (wide, narrow)] == [2, 1]


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (
            (stage("constant", epochs="60%"), stage("constant", epochs="40%"), stage("constant")),
            "stages: expected stages that leave an epoch of the budget of 10 to the last one; got 6 + 4 epochs before it.",
        ),
        (
            (stage("constant", epochs=8), stage("constant", epochs=4)),
            "stages: expected stages that together take the budget of 10 epochs; got 8 + 4 = 12 epochs. "
            "Leave out `epochs` of the last stage: it takes the rest.",
        ),
        (
            (stage("constant", epochs=3), stage("constant", epochs=4)),
            "stages: expected stages that together take the budget of 10 epochs; got 3 + 4 = 7 epochs. "
            "Leave out `epochs` of the last stage: it takes the rest.",
        ),
        (
            (stage("constant", epochs="4%"), stage("constant")),
            "stages[0].epochs: expected at least one whole epoch of the budget of 10; got 4%.",
        ),
        (
            (stage("constant"), stage("constant")),
            "stages[0].epochs: expected a duration, like 4 or '25%'; the last stage alone may leave it out; got null.",
        ),
        (
            (stage("constant", "tail", epochs=1), stage("constant", batchnorm="eval")),
            "stages[0].train: expected head, upper (all sections but the first) or all; got 'tail'.\n"
            "stages[1].batchnorm: expected train or frozen where all sections are trained; got 'eval'.",
        ),
        (
            (stage("constant", "upper", input="features"),),
            "stages[0].input: expected features only where the head alone is trained (train: head, batchnorm: eval); "
            "got features with train upper and batchnorm eval.",
        ),
        (
            (stage("constant", epochs=1), stage("constant", recipe={"optimizer": "adam"}, reset_optimizer=False)),
            "stages[1].reset_optimizer: expected true where the optimizer changes; got False.",
        ),
        (
            (stage("sgdr", epochs=1, t0=-1), stage("clr", mode="triangular", step_sizes=3)),
            "stages[0].t0: expected a duration above 0, like 4, '25%' or '2000u'; got -1.",
        ),
    ],
)
def test_stages_that_cannot_be_are_refused_in_a_sentence(of, told):
    with pytest.raises(InputError) as refused:
        stages(*of).settings(0, (), RUN)
    assert str(refused.value).startswith(told)


def test_features_are_refused_of_a_model_that_has_none_and_images_are_its_default():
    without = Run(320, 10, 3, has_features=False)
    assert stages(HEAD, DLR).settings(0, (), without).recipe.input == "images"
    with pytest.raises(InputError, match=r"stages\[0\].input: expected images with this model"):
        stages({**HEAD, "input": "features"}, DLR).settings(0, (), without)
