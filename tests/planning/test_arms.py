from __future__ import annotations

import pytest

from lrstudy.config import StudyFile, load
from lrstudy.errors import InputError
from lrstudy.planning.arms import at_cohort_points, cohort, common_definition, from_definition, origin, resolve
from lrstudy.policies import build, registry
from lrstudy.settings import Recipe
from lrstudy.trial.until import Until

HEAD = "lrstudy: 1\nname: x\n"
LADDER = {"log": [1e-3, 1.0], "steps": 10}


def study(body: str) -> StudyFile:
    return load(HEAD + body)


def faults(body: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        resolve(study(body))
    return list(caught.value.sentences)


def one(body: str) -> str:
    found = faults(body)
    assert len(found) == 1, found
    return found[0]


# --- merging ----------------------------------------------------------------------------------------


def test_every_policy_is_an_arm_with_its_default_space():
    arms = resolve(study(f"arms: [{', '.join(registry())}]"))
    assert list(arms) == list(registry())
    assert arms["clr"].space["base_ratio"].values == (0.25, 0.1, 0.02)


def test_the_arm_goes_before_common_and_common_before_the_default_space():
    arms = resolve(
        study(
            "common: {lr: 0.3, momentum: 0.8}\n"
            "arms: {a: {policy: clr, momentum: 0.5, base_ratio: 0.2}, b: {policy: clr, lr: {choice: [1, 2]}}}"
        )
    )
    assert arms["a"].space.default() == {
        "lr": 0.3, "batch_size": 32, "momentum": 0.5, "weight_decay": 5e-4,
        "mode": "triangular2", "step_size": "12.5%", "base_ratio": 0.2,
    }  # fmt: skip
    assert arms["b"].space.default()["momentum"] == 0.8
    assert [p.name for p in arms["b"].space.searched] == ["lr", "mode", "step_size", "base_ratio"]


GROWING = ("batch_increase", "batch_hybrid", "batch_plateau", "adabatch")


def norm_batches(body: str) -> dict[str, object]:
    """What the definitions of a study's arms say of `norm_batch`, where they do."""
    arms = resolve(study(body))
    return {name: arm.definition["norm_batch"] for name, arm in arms.items() if "norm_batch" in arm.definition}


def test_where_a_batch_grows_batchnorm_keeps_to_the_initial_one():
    assert norm_batches(f"arms: [{', '.join(registry())}]") == dict.fromkeys(GROWING, "initial")
    cycles = "arms: {clr: {batch_milestones: [50%], batch_factor: 2}, sgdr: {batch_milestones: []}}"
    assert norm_batches(cycles) == {"clr": "initial"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("arms: {batch_increase: {norm_batch: null}}", {}),  # what it was by default in earlier versions
        ("arms: {batch_increase: {norm_batch: 8}}", {"batch_increase": 8}),
        ("common: {norm_batch: 16}\narms: [batch_increase]", {"batch_increase": 16}),
        ("common: {norm_batch: 16}\narms: {batch_increase: {norm_batch: null}}", {}),
        ("workload: {model: lenet}\narms: [batch_increase]", {}),
        ("workload: {model: vgg11}\narms: {clr: {batch_milestones: [2], batch_factor: 2}}", {}),
        ("workload: {model: vgg11_bn}\narms: [adabatch]", {"adabatch": "initial"}),
    ],
)
def test_unless_the_study_says_otherwise_or_the_model_has_none(body, expected):
    assert norm_batches(body) == expected


def test_the_order_of_keys_in_the_file_changes_nothing():
    """Searchers number their dimensions in the order of the space."""
    one_way = resolve(study("arms: {clr: {clip_norm: {choice: [1, 2]}, nesterov: {choice: [true, false]}}}"))["clr"]
    other = resolve(study("arms: {clr: {nesterov: {choice: [true, false]}, clip_norm: {choice: [1, 2]}}}"))["clr"]
    assert one_way.space == other.space
    assert list(one_way.definition) == list(other.definition)


def test_parameters_are_divided_between_policy_and_recipe():
    arm = resolve(study("common: {nesterov: true, clip_norm: 2}\narms: [clr]"))["clr"]
    configuration = arm.space.default()
    assert arm.parameters(configuration) == {
        "lr": LADDER_CENTRE, "batch_size": 32, "momentum": 0.9,
        "mode": "triangular2", "step_size": "12.5%", "base_ratio": 0.1,
    }  # fmt: skip
    assert arm.recipe(configuration, Recipe(augment="flip")) == Recipe(
        augment="flip", weight_decay=5e-4, nesterov=True, clip_norm=2.0
    )


LADDER_CENTRE = [1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0][5]


def test_what_is_switched_off_is_not_in_the_definition():
    """So that a version which knows more of such switches does not see every arm of older studies as changed."""
    assert list(common_definition(study("arms: [clr]\ncommon: {nesterov: false, clip_norm: }"))) == [
        "lr", "batch_size", "momentum", "weight_decay",
    ]  # fmt: skip
    assert common_definition(study("arms: [clr]\ncommon: {nesterov: true}"))["nesterov"] is True


def test_an_arm_comes_back_from_its_definition():
    arm = resolve(study("arms: {clr: {step_size: {choice: [1, 2], when: {mode: triangular}}}}"))["clr"]
    again = from_definition("old", arm.definition)
    assert (again.name, again.policy, again.space) == ("old", "clr", arm.space)


def test_where_a_parameter_is_said():
    given = study("common: {lr: 0.3}\narms: {clr: {momentum: 0.5}, step: }")
    assert origin(given, "clr", "momentum") == "arms.clr.momentum"
    assert origin(given, "step", "momentum") == "common.momentum"
    assert origin(given, "clr", "mode") == "arms.clr.mode"


# --- the momentum of an RMSprop ---------------------------------------------------------------------


def momenta(body: str) -> list[float]:
    """The momentum that the policies of all arms are built with, which is that of the definitions."""
    arms = resolve(study(body)).values()
    built = [build(arm.policy, arm.parameters(arm.space.default())).momentum for arm in arms]
    assert built == [arm.definition["momentum"] for arm in arms]
    return built


RMSPROPS = ("rmsprop", "rmsprop_keras")


@pytest.mark.parametrize("optimizer", RMSPROPS)
def test_the_default_momentum_does_not_reach_an_rmsprop(optimizer):
    """It was 0.9, SGD's, where torch and Keras have 0."""
    assert momenta(f"common: {{optimizer: {optimizer}}}\narms: {{constant: , clr: {{optimizer: sgd}}}}") == [0.0, 0.9]
    assert momenta(f"arms: {{constant: , clr: {{optimizer: {optimizer}}}}}") == [0.9, 0.0]


@pytest.mark.parametrize("optimizer", RMSPROPS)
def test_a_momentum_that_was_given_for_sgd_does_not_reach_an_rmsprop(optimizer):
    arms = f"arms: {{constant: , a: {{policy: clr, optimizer: {optimizer}}}, b: {{policy: clr, optimizer: adam}}}}"
    assert momenta(f"common: {{momentum: 0.8}}\n{arms}") == [0.8, 0.0, 0.8]


def test_a_momentum_that_is_given_with_an_rmsprop_is_its_own():
    assert momenta("common: {optimizer: rmsprop, momentum: 0.8}\narms: [constant]") == [0.8]
    assert momenta("common: {optimizer: rmsprop, momentum: 0.8}\narms: {constant: {optimizer: rmsprop_keras}}") == [0.8]
    assert momenta("common: {momentum: 0.8}\narms: {constant: {optimizer: rmsprop, momentum: 0.7}}") == [0.7]


def test_a_policy_that_lowers_the_momentum_needs_one_to_lower():
    arm = "{optimizer: rmsprop, momentum_low: 0.85"
    assert one(f"arms: {{one_cycle: {arm}}}}}") == (
        "arms.one_cycle.momentum_low: expected at most the momentum (0); got 0.85."
    )
    assert momenta(f"arms: {{one_cycle: {arm}, momentum: 0.95}}}}") == [0.95]


BOTH = "{choice: [sgd, rmsprop]}"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (f"common: {{optimizer: {BOTH}}}\narms: [constant, clr]", "common"),
        (f"common: {{momentum: 0.9}}\narms: {{clr: {{optimizer: {BOTH}}}}}", "arms.clr"),
        (f"arms: {{clr: {{optimizer: {BOTH}}}}}", "arms.clr"),
    ],
)
def test_a_choice_of_sgd_and_rmsprop_needs_a_momentum(body, where):
    assert one(body) == (
        f"{where}.momentum: expected one, or one for each with `when`, as RMSprop has 0 by default and the others 0.9; "
        "got nothing beside a choice of both."
    )
    assert momenta(f"common: {{optimizer: {BOTH}, momentum: 0.9}}\narms: [constant]") == [0.9]
    assert len(faults(f"arms: {{clr: {{optimizer: {BOTH}, stepsize: 3}}}}")) == 2, "both faults at once"


def test_where_the_momentum_is_inactive_each_optimizer_has_its_own():
    arm = resolve(
        study(f"common: {{optimizer: {BOTH}, momentum: {{choice: [0.9, 0.8], when: {{optimizer: sgd}}}}}}\narms: [clr]")
    )["clr"]
    inactive = arm.space.complete({"optimizer": "rmsprop"})
    assert "momentum" not in inactive
    assert arm.parameters(inactive)["momentum"] == 0.0
    assert arm.parameters(arm.space.complete({"optimizer": "sgd"}))["momentum"] == 0.9


# --- the cohort -------------------------------------------------------------------------------------


def test_the_cohort_is_the_same_points_in_all_arms_with_policy_parameters_at_their_defaults():
    given = study("common: {lr: {log: [1e-3, 1], steps: 10}, weight_decay: {choice: [0, 5e-4]}}\narms: [constant, clr]")
    arms, points = resolve(given), cohort(given, 4)
    assert len({point["lr"] for point in points}) == 4
    assert points[0]["lr"] == LADDER_CENTRE, "the centre first"
    common = common_definition(given)
    placed = (at_cohort_points(arms[name], points, common) for name in ("constant", "clr"))
    for constant, clr in zip(*placed, strict=True):
        assert clr == {**constant, "mode": "triangular2", "step_size": "12.5%", "base_ratio": 0.1}


def test_a_common_parameter_that_an_arm_overrides_is_spread_over_the_arms_own_range_in_the_cohort():
    given = study("common: {lr: {log: [1e-3, 1], steps: 10}}\narms: {clr: {lr: {choice: [3, 4]}}, step: {lr: 7}}")
    arms, common, points = resolve(given), common_definition(given), cohort(given, 3)
    assert [point["lr"] for point in at_cohort_points(arms["clr"], points, common)] == [3, 4, 3]
    assert [point["lr"] for point in at_cohort_points(arms["step"], points, common)] == [7, 7, 7]


# --- faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        ("[crl]", "arms.crl: there is no policy 'crl'. Did you mean 'clr'"),
        ("{late: {gamma: 0.5}}", "An arm that is not called after its policy names it, as policy: NAME."),
        ("{late: {policy: stp}}", "arms.late.policy: there is no policy 'stp'. Did you mean 'step'"),
        ("{late: {policy: 3}}", "arms.late.policy: expected the name of a policy; got 3. Valid: adabatch,"),
        ("{late: {policy: }}", "arms.late.policy: expected the name of a policy; got nothing. Valid: adabatch,"),
        ("{clr: {stepsize: 3}}", "arms.clr.stepsize: unknown key. Did you mean 'step_size'? Valid: lr, batch_size,"),
        ("{clr: {optimizer: sdg}}", "arms.clr.optimizer: expected sgd, adam, adamw, rmsprop or rmsprop_keras; got 'sdg'. Did you mean 'sgd'?"),
        ("{clr: {mode: triangle}}", "arms.clr.mode: expected triangular, triangular2, exp_range or modified_triangular2; got 'triangle'. Did"),
        ("{clr: {step_size: 3 epochs}}", "arms.clr.step_size: expected a duration above 0, like 4, '25%' or '2000u';"),
        ("{clr: {base_ratio: '0.1'}}", "arms.clr.base_ratio: expected a number in [0, 1]; got '0.1'."),
        ("{clr: {lr: -1}}", "arms.clr.lr: expected a finite number above 0; got -1."),
        ("{clr: {weight_decay: 1}}", "arms.clr.weight_decay: expected a number in [0, 1); got 1."),
        ("{clr: {nesterov: 1}}", "arms.clr.nesterov: expected true or false; got 1."),
        ("{clr: {clip_norm: 0}}", "arms.clr.clip_norm: expected a number above 0, or null for none; got 0."),
        ("{clr: {batch_size: 32.0}}", "arms.clr.batch_size: expected a whole number of at least 1; got 32.0."),
        (
            "{clr: {batch_size: {uniform: [16, 64], steps: 3}}}",
            "arms.clr.batch_size: expected a whole number of at least 1; got 40.0, 16.0, 64.0.",
        ),
        ("{clr: {lr: {lgo: [1, 2]}}}", "arms.clr.lr: unknown key 'lgo'. Did you mean 'log'"),
        ("{clr: {lr: {log: [2, 1]}}}", "arms.clr.lr.log: expected low < high, both finite; got [2, 1]."),
        ("{clr: {step_size: {choice: [1, 2], when: {mod: triangular}}}}", "arms.clr.step_size.when: there is no parameter"),
        (
            "{clr: {step_size: {choice: [1, 2], when: {mode: triangel}}}}",
            "arms.clr.step_size.when: mode must be 'triangel' but is one of ['triangular2', 'triangular'], "
            "so step_size never exists.",
        ),
        (
            "{clr: {mode: {choice: [triangular, triangular2], when: {base_ratio: 0.1}}, "
            "base_ratio: {choice: [0.1, 0.2], when: {mode: triangular}}}}",
            "arms.clr.mode.when: mode, base_ratio depend on each other.",
        ),
        ("{clr: {nesterov: true, momentum: 0}}", "arms.clr.nesterov: expected a momentum above 0 with it; got 0."),
        ("{sgdr: {t_mult: {choice: [2, 0]}}}", "arms.sgdr.t_mult: expected a whole number of at least 1; got 0."),
        ("{sgdr: {min_ratio: {uniform: [0, 2]}}}", "arms.sgdr.min_ratio: expected a number in [0, 1]; got 2.0."),
    ],
)  # fmt: skip
def test_a_fault_of_an_arm_says_where_and_what(arms, told):
    found = faults(f"arms: {arms}")
    assert told in found[0]
    assert all(fault.startswith("arms.") for fault in found)
    assert found[0].endswith((".", "?"))
    assert not found[0].endswith("?.")


def test_a_value_of_the_wrong_type_in_the_middle_of_a_choice_is_found():
    told = one("arms: {step: {gamma: {choice: [0.1, '0.2', 0.5, 2]}}}")
    assert told.startswith("arms.step.gamma: expected ")
    assert told.endswith("; got '0.2', 2.")


def test_an_error_in_a_common_parameter_is_told_once_and_not_per_arm():
    told = one("common: {momentum: 1}\narms: [constant, step, clr, sgdr]")
    assert told == "common.momentum: expected a number in [0, 1); got 1."


@pytest.mark.parametrize(
    ("common", "told"),
    [
        ("{lr: {lgo: [1, 2]}}", "common.lr: unknown key 'lgo'. Did you mean 'log'"),
        ("{lr: {uniform: [0, 1]}}", "common.lr: expected a finite number above 0; got 0.0."),
        ("{batch_size: {choice: [16, 0]}}", "common.batch_size: expected a whole number of at least 1; got 0."),
        ("{weight_decay: }", "common.weight_decay: expected a number in [0, 1); got null."),
        ("{clip_norm: 0}", "common.clip_norm: expected a number above 0, or null for none; got 0."),
        ("{nesterov: 1}", "common.nesterov: expected true or false; got 1."),
        ("{nesterov: true, momentum: 0}", "common.nesterov: expected a momentum above 0 with it; got 0."),
        (
            "{weight_decay: {choice: [0, 0.1], when: {mode: triangular}}}",
            "common.weight_decay.when: there is no parameter 'mode'.",
        ),
    ],
)
def test_faults_of_common_parameters_are_found_without_looking_at_arms(common, told):
    found = faults(f"common: {common}\narms: [constant, clr]")
    assert found[0].startswith(told)
    assert not [fault for fault in found if fault.startswith("arms.")]


def test_a_switch_in_common_that_does_not_fit_an_arm_is_a_fault_of_the_arm():
    told = one("common: {nesterov: true}\narms: {constant: , clr: {momentum: 0}}")
    assert told == "arms.clr.nesterov: expected a momentum above 0 with it; got 0."


def test_faults_of_common_and_of_all_arms_are_told_together():
    found = faults("common: {momentum: 1, lr: {lgo: 1}}\narms: {crl: , clr: {stepsize: 3}, step: {gamma: 0}}")
    assert [fault.partition(":")[0] for fault in found] == [
        "common.lr", "common.lr", "common.momentum", "arms.crl", "arms.clr.stepsize", "arms.step.gamma",
    ]  # fmt: skip


def test_a_conditional_parameter_exists_only_where_it_should():
    arm = resolve(study("arms: {clr: {base_ratio: {choice: [0.1, 0.2], when: {mode: triangular}}}}"))["clr"]
    assert "base_ratio" not in arm.space.default()
    assert arm.space.complete({"mode": "triangular"})["base_ratio"] == 0.1


# --- until ------------------------------------------------------------------------------------------

UNTIL = "budget: {epochs: 8, until: {accuracy: 0.9}}\n"


def test_an_arm_ends_where_the_budget_says_unless_it_has_a_target_of_its_own_or_none():
    body = "arms: {constant: , step: {until: none}, clr: {until: {f1: 0.5}}}"
    arms = resolve(study(UNTIL + body))
    assert {name: arm.until for name, arm in arms.items()} == {
        "constant": Until("accuracy", 0.9), "step": None, "clr": Until("f1", 0.5)
    }  # fmt: skip
    assert all(arm.until is None for arm in resolve(study("arms: [constant, step]")).values())


def test_a_target_is_part_of_an_arms_definition_and_no_parameter():
    arm, without = resolve(study(UNTIL + "arms: {constant: , other: {policy: constant, until: none}}")).values()
    assert {**arm.definition} == {**without.definition, "until": {"accuracy": 0.9}}
    assert arm.space == without.space
    assert from_definition("constant", arm.definition).until == Until("accuracy", 0.9)
    assert from_definition("other", without.definition).until is None


@pytest.mark.parametrize(
    "value", ["0.9", "{accuracy: 1.5}", "{accuracy: 0}", "{}", "{accuracy: 0.9, f1: 0.9}", "{loss: 0.1}", "null"]
)
def test_a_target_that_is_none_is_refused_with_the_form(value):
    told = one(f"arms: {{constant: {{until: {value}}}}}")
    assert told.startswith(
        "arms.constant.until: expected none, or one metric with a value above 0 and at most 1 to reach"
    )
