"""Arms in stages: one flat space, whose parameters are those of the stages and of the common ones that they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrstudy.errors import InputError
from lrstudy.planning import arms, plan
from lrstudy.planning.arms import Arm, from_definition
from study_files import lock_of, plan_of

HEAD = """
lrstudy: 1
name: small
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}, model: small_cnn}
budget: {epochs: 10}
common: {lr: {log: [1e-2, 1], steps: 7}, batch_size: 20}
search: {method: random, trials: 4}
"""
CLR = "{train: head, epochs: 20%, policy: clr, mode: {choice: [triangular, exp_range]}, gamma: {log: [0.9, 0.99], when: {mode: exp_range}}}"


def resolved(body: str, base: Path = Path()) -> Arm:
    return list(arms.resolve(plan.read(f"{HEAD}arms:\n  constant:\n  {body}\n", base=base), base).values())[-1]


def refused(body: str) -> list[str]:
    with pytest.raises(InputError) as error:
        resolved(body)
    return list(error.value.sentences)


def test_a_stages_parameter_is_named_after_it_and_what_no_stage_gives_is_the_arms():
    arm = resolved(
        f"mine: {{stages: [{CLR}, {{train: all, policy: constant, lr: 0.5, weight_decay: {{choice: [0, 0.1]}}}}]}}"
    )
    assert [p.name for p in arm.space.searched] == [
        "lr", "stage1_mode", "stage1_step_size", "stage1_base_ratio", "stage1_gamma", "stage2_weight_decay",
    ]  # fmt: skip
    assert arm.space["stage1_gamma"].when == {"stage1_mode": "exp_range"}
    assert arm.space["lr"].values == (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    assert "stage2_lr" in arm.space.default()


def test_a_common_parameter_that_every_stage_gives_is_no_parameter_of_the_arm():
    arm = resolved(
        "mine: {stages: [{train: head, epochs: 1, policy: constant, lr: 0.1}, {train: all, policy: constant, lr: 0.5}]}"
    )
    assert "lr" not in arm.space
    policy = arm.build(arm.space.default())
    run = plan_of(text=HEAD + "arms: [constant]").run(arm, arm.space.default())
    assert [float(policy.settings(epoch, (), run).lr[0, 2]) for epoch in (0, 1)] == [0.1, 0.5]


def test_every_stage_has_the_default_space_of_its_policy():
    arm = resolved(
        "mine: {stages: [{train: head, epochs: 3, policy: sgdr}, {train: all, policy: sgdr_dlr, t_mult: 2}]}"
    )
    searched = {p.name for p in arm.space.searched}
    assert searched == {"lr", "stage1_t0", "stage1_t_mult", "stage1_min_ratio", "stage2_section_ratios", "stage2_t0"}


def test_two_is_three_cycles_of_the_head_and_growing_ones_of_the_whole():
    arm = resolved("sgdr_dlr: {stages: two, budget: 1}".replace(", budget: 1", ""))
    policy = arm.build(arm.space.default())
    run = plan_of(text=HEAD + "arms: [constant]").run(arm, arm.space.default())
    rates = [float(policy.settings(epoch, (), run).lr[0, 2]) for epoch in range(10)]
    assert [rate == 0.1 for rate in rates] == [True, True, True, True, True, False, True, False, False, False]
    first, second = policy.settings(0, (), run), policy.settings(3, (), run)
    assert (list(first.lr[0]), list(second.lr[0])) == ([0, 0, 0.1], [0.001, 0.01, 0.1])
    assert second.recipe.reset_optimizer


def test_an_optimizer_of_a_stage_brings_its_own_momentum():
    arm = resolved(
        "mine: {stages: [{train: head, epochs: 1, policy: constant, optimizer: rmsprop}, {train: all, policy: constant}]}"
    )
    one, two = arm.parameters(arm.space.default())["stages"]
    assert (one["parameters"]["momentum"], two["parameters"]["momentum"]) == (0.0, 0.9)
    assert (one["recipe"]["optimizer"], two["recipe"]["optimizer"]) == ("rmsprop", "sgd")


def test_a_stage_may_take_back_what_the_arm_gives():
    arm = resolved(
        "mine: {clip_norm: 1.0, stages: [{train: head, epochs: 1, policy: constant}, {train: all, policy: constant, clip_norm: null}]}"
    )
    assert [stage["recipe"]["clip_norm"] for stage in arm.parameters(arm.space.default())["stages"]] == [1.0, None]


def test_the_cohort_has_the_common_points_of_all_arms():
    text = HEAD + "arms:\n  constant:\n  sgdr_dlr: {stages: two}\n"
    cohort = plan_of(text=text).cohort
    assert [point["lr"] for point in cohort["sgdr_dlr"]] == [point["lr"] for point in cohort["constant"]]


def test_a_definition_in_the_lock_gives_the_same_arm_and_a_changed_stage_another():
    text = (
        HEAD
        + "arms:\n  constant:\n  mine: {stages: [{train: head, epochs: 2, policy: sgdr}, {train: all, policy: constant}]}\n"
    )
    one, changed = plan_of(text=text), plan_of(text=text.replace("epochs: 2,", "epochs: 3,"))
    lock = lock_of(one)
    arm = from_definition("mine", lock["arms"]["mine"]["definition"])
    assert arm == one.arms["mine"]
    from lrstudy.planning import study_lock

    assert study_lock._are_arms(lock["arms"])
    assert list(study_lock.reconcile(plan_of(text=text), lock, Path("x"))[0].arms) == ["constant", "mine"]
    assert list(study_lock.reconcile(changed, lock, Path("x"))[0].arms) == ["constant", "mine@2", "mine"]


def test_a_policy_of_the_users_may_decide_a_stage(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def knee(p: float, E: float, *, lr: float, hold: float = 0.5) -> float:\n    return lr\n"
    )
    arm = resolved(
        "mine: {stages: [{train: head, epochs: 2, policy: './mine.py:knee', hold: 0.2}, {train: all, policy: constant}]}",
        tmp_path,
    )
    assert arm.policies == (f"{tmp_path}/mine.py:knee", "constant")
    assert set(arm.definition["stages"][0]) == {"policy", "source"}
    assert arm.space["stage1_hold"].values == (0.2,)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("mine: {stages: two}", "arms.mine.stages: expected two only with the policy sgdr_dlr, or a list of stages; got two with 'mine'."),
        ("mine: {stages: 3}", "arms.mine.stages: expected a list of stages, each a map with train, policy, and what they take, or two"),
        ("mine: {stages: []}", "arms.mine.stages: expected a list of stages"),
        ("mine: {stages: [head]}", "arms.mine.stages[0]: expected a map with train, policy, and what they take; got 'head'."),
        ("mine: {policy: sgdr, stages: [{train: all, policy: sgdr}]}", "arms.mine.policy: expected a policy in every stage"),
        ("sgdr_dlr: {t0: 3, stages: two}", "arms.sgdr_dlr.t0: unknown key beside `stages`."),
        ("mine: {stages: [{polcy: sgdr, train: all}]}", "arms.mine.stages[0].policy: expected the name of a policy; got nothing beside polcy, train."),
        ("mine: {stages: [{policy: sgdr}]}", "arms.mine.stages[0].train: expected head, upper or all; got nothing."),
        ("mine: {stages: [{policy: sgrd, train: all}]}", "arms.mine.stages[0].policy: there is no policy 'sgrd'. Did you mean 'sgdr'"),
        ("mine: {stages: [{policy: stages, train: all}]}", "arms.mine.stages[0].policy: there is no policy 'stages'."),
        ("mine: {stages: [{policy: sgdr, train: all, reset_optimizer: true}]}", "arms.mine.stages[0].reset_optimizer: unknown key."),
        ("mine: {stages: [{policy: sgdr, train: all, inputs: images}]}", "arms.mine.stages[0].inputs: unknown key. Did you mean 'input'?"),
        ("mine: {stages: [{policy: sgdr, train: hed}]}", "arms.mine.stages[0].train: expected head, upper (all sections but the first) or all; got 'hed'. Did you mean 'head'?"),
        ("mine: {stages: [{policy: sgdr, train: {choice: [head, hed]}}]}", "arms.mine.stages[0].train: expected head, upper (all sections but the first) or all; got 'hed'."),
        ("mine: {stages: [{policy: sgdr, train: all, batchnorm: off}]}", "arms.mine.stages[0].batchnorm: expected train, frozen or eval; got 'off'."),
        ("mine: {stages: [{policy: sgdr, train: all, epochs: -2}]}", "arms.mine.stages[0].epochs: expected a duration above 0"),
        ("mine: {stages: [{policy: sgdr, train: all, weight_decay: 2}]}", "arms.mine.stages[0].weight_decay: expected a number in [0, 1); got 2."),
        ("mine: {stages: [{policy: sgdr, train: all, t0: {choise: [1, 2]}}]}", "arms.mine.stages[0].t0: unknown key 'choise'."),
        ("mine: {stages: [{policy: clr, train: all, gamma: {choice: [0.9, 0.99], when: {mod: exp_range}}}]}", "arms.mine.stages[0].gamma.when: there is no parameter 'mod'."),
        ("mine: {stages: [{policy: clr, train: all, mode: triangular, gamma: {choice: [0.9, 0.99], when: {mode: exp_range}}}]}", "arms.mine.stages[0].gamma.when: stage1_mode must be 'exp_range'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_stage_is_told_with_its_place(body, told):
    found = refused(body)
    assert any(fault.startswith(told) for fault in found), found


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            "mine: {stages: [{train: head, epochs: 12, policy: constant}, {train: all, policy: constant}]}",
            "arms.mine.stages: expected stages that leave an epoch of the budget of 10 to the last one; got 12 epochs before it.",
        ),
        (
            "mine: {stages: [{train: head, epochs: 2, policy: sgdr, t0: 5}, {train: all, policy: constant}]}",
            "arms.mine.stages[0].t0: expected a duration within the budget of 2 epochs; got 5.",
        ),
        (
            "mine: {stages: [{train: head, epochs: 2, policy: constant, batch_size: 500}, {train: all, policy: constant}]}",
            "arms.mine.stages[0].batch_size: expected at most the 80 examples of the training part; got 500.",
        ),
        (
            "mine: {stages: [{train: head, epochs: 2, policy: plateau, metric: val_f2, patience: 9}, {train: all, policy: constant}]}",
            "arms.mine.stages[0].metric: expected a metric that is there; got 'val_f2'.",
        ),
        (
            "mine: {stages: [{train: head, epochs: 5, policy: plateau, patience: 9}, {train: all, policy: constant}]}",
            "arms.mine.stages[0].patience: expected a rule that can act within the budget of 5 epochs; got 9.",
        ),
        (
            "mine: {stages: [{train: head, epochs: {choice: [1, 1.2]}, policy: constant}, {train: all, policy: constant}]}",
            "arms.mine.stages[0].epochs: expected a single value",
        ),
        (
            "mine: {stages: [{train: head, epochs: 5, policy: plateau}, {train: all, policy: constant, lr: found}]}",
            "arms.mine.stages[1].lr: expected a number or a space after a stage whose policy follows results",
        ),
    ],
)
def test_what_does_not_fit_the_budget_or_the_data_is_told_with_its_place(body, told):
    with pytest.raises(InputError) as error:
        plan_of(text=HEAD + f"arms:\n  constant:\n  {body}\n")
    assert any(fault.startswith(told) for fault in error.value.sentences), error.value.sentences


def test_a_stages_rate_may_be_found_and_the_definition_keeps_the_question():
    arm = resolved(
        "mine: {stages: [{train: head, epochs: 2, policy: sgdr, lr: found}, "
        "{train: all, policy: constant, lr: {found: steep, updates: 50}}]}"
    )
    assert arm.rates == ["stage1_lr", "stage2_lr"]
    assert {rate: question.found for rate, question in arm.questions.items()} == {
        "stage1_lr": "valley",
        "stage2_lr": "steep",
    }
    assert arm.space["stage2_lr"].values == (0.05,), "provisionally"
    assert arm.definition["stage2_lr"]["updates"] == 50
    assert arm.definition["stage1_lr"]["high"] == 10, "written out: a default may change"
    assert from_definition("mine", arm.definition).questions == arm.questions
    assert "lr" not in arm.space


def test_a_question_that_cannot_be_read_is_refused_in_its_stage():
    (sentence,) = refused(
        "mine: {stages: [{train: head, epochs: 2, policy: sgdr, lr: {found: vally}}, {train: all, policy: constant}]}"
    )
    assert sentence.startswith("arms.mine.stages[0].lr.found: expected valley")


def test_the_rate_of_a_later_stage_needs_a_trial_of_the_default_configuration():
    """The epochs before its test are that trial's; without it nobody would bear what they cost."""
    body = "mine: {stages: [{train: head, epochs: 2, policy: constant, lr: 0.1}, {train: all, policy: constant, lr: found}]}"
    text = HEAD + f"arms:\n  constant:\n  {body}\n"
    searched = text.replace("lr: 0.1", "lr: {log: [0.1, 1]}")
    with pytest.raises(InputError, match=r"search\.cohort: expected at least 1 where the rate of a later stage"):
        plan_of("search.cohort=0", text=searched)
    plan_of("search.cohort=1", text=searched)
    plan_of("search.cohort=0", text=text)
    plan_of(
        "search.cohort=0", text=searched.replace("lr: found", "lr: 0.1").replace("lr: {log: [0.1, 1]}", "lr: found", 1)
    )
