from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lrstudy.config import load
from lrstudy.errors import InputError
from lrstudy.planning import plan as plan_module
from lrstudy.planning import study_lock
from lrstudy.planning.arm_checks import notes
from lrstudy.planning.caveats import DIFFERENTIAL
from lrstudy.planning.plan import CONFIRM_SEED, default_cohort, default_outstanding, make_plan, with_store_points
from study_files import SMALL, plan_of


def faults(*overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        plan_of(*overrides)
    return list(caught.value.sentences)


# --- reading ----------------------------------------------------------------------------------------


def test_reading_tells_the_faults_of_file_arms_and_source_at_once():
    with pytest.raises(InputError) as caught:
        plan_module.read(
            "lrstudy: 1\nname: x\nmetric: acuracy\nworkload: {data: 'foldr:/a'}\n"
            "arms: {crl: , clr: {mode: a}}\ncommon: {momentum: 2}"
        )
    told = caught.value.sentences
    assert [fault.partition(":")[0] for fault in told] == [
        "metric", "common.momentum", "arms.crl", "arms.clr.mode", "workload.data",
    ]  # fmt: skip
    assert "there is no source 'foldr:/a'. Did you mean 'folder:PATH'" in told[-1]


@pytest.mark.slow  # a name that is not listed is looked up in torchvision, whose import takes seconds
def test_a_misspelt_model_is_told_with_the_other_faults():
    with pytest.raises(InputError) as caught:
        plan_module.read("lrstudy: 1\nname: x\nworkload: {model: resnet81}\narms: [crl]")
    assert [fault.partition(".")[0] for fault in caught.value.sentences] == ["arms", "workload"]
    assert "workload.model: there is no model 'resnet81'. Did you mean 'resnet18'" in caught.value.sentences[1]


def test_a_misspelt_metric_hides_no_misspelt_policy():
    """Arms were only looked at when the rest of the file was right, so a file with two faults took two runs."""
    with pytest.raises(InputError) as caught:
        plan_module.read("lrstudy: 1\nname: x\nmertic: accuracy\narms: [crl]")
    assert len(caught.value.sentences) == 2


# --- what only the data shows -----------------------------------------------------------------------


def test_a_batch_larger_than_the_training_set_is_refused():
    assert faults("common.batch_size=81") == [
        "common.batch_size: expected at most the 80 examples of the training part; got 81."
    ]
    assert plan_of("common.batch_size=80").workload.counts[0] == 80


def test_a_model_that_cannot_take_the_images_is_refused_before_anything_runs():
    """`lrstudy validate` called such a study valid, and `run` found out when it admitted the first trial."""
    assert faults("workload.model=alexnet", "common.batch_size=81") == [
        "workload.model: alexnet needs images of at least 63 pixels; got 8. Set image.size, or choose another model "
        "(small_cnn and resnet18 take 8 pixels and more).",
        "common.batch_size: expected at most the 80 examples of the training part; got 81.",
    ]


def test_a_batch_of_an_arm_is_the_arms_fault_also_as_one_value_of_several():
    assert faults("arms.clr.batch_size={choice: [20, 100]}", "arms.step.batch_size={int: [8, 4096]}") == [
        "arms.step.batch_size: expected at most the 80 examples of the training part; got 4096.",
        "arms.clr.batch_size: expected at most the 80 examples of the training part; got 100.",
    ]


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("arms.clr.step_size=9", "arms.clr.step_size: expected a duration within the budget of 4 epochs; got 9."),
        ("arms.clr.step_size={choice: [1, 9], default: 1}", "arms.clr.step_size: expected a duration within the budget of 4 epochs; got 9."),
        ("arms.step={policy: plateau, metric: val_acc}",
         "arms.step.metric: expected a metric that is there; got 'val_acc'. Did you mean 'val_auroc' or 'val_accuracy'? Valid: val_loss, "
         "train_loss, val_accuracy, val_balanced_accuracy, val_f1, val_auroc, val_average_precision."),
        ("arms.step.micro_batch=8",
         "arms.step.micro_batch: expected a multiple of norm_batch with small_cnn, whose BatchNorm else sees other pieces than those "
         "of the whole batch; got 8 without norm_batch."),
        ("arms.step={micro_batch: 12, norm_batch: 8}",
         "arms.step.micro_batch: expected a multiple of norm_batch with small_cnn, whose BatchNorm else sees other pieces than those "
         "of the whole batch; got 12 with norm_batch 8."),
        ("arms.step={policy: plateau, mode: max}", "arms.step.mode: expected auto or min with val_loss; got max."),
        ("arms.step={policy: plateau, patience: 3}",
         "arms.step.patience: expected a rule that can act within the budget of 4 epochs; got 3."),
        ("arms.step={policy: batch_increase, cap: 16}", "arms.step.cap: expected at least the batch_size 20; got 16."),
        ("arms.step.milestones=[5, 8]", "arms.step.milestones: expected a duration within the budget of 4 epochs; got 5, 8."),
        ("arms.clr={batch_milestones: [1], batch_factor: 8}",
         "arms.clr.batch_factor: expected batches within the 80 training examples, and not 160; got 8."),
    ],
)  # fmt: skip
def test_what_the_budget_or_the_data_cannot_hold_is_refused(override, fault):
    with pytest.raises(InputError) as caught:
        plan_of(override)
    assert caught.value.sentences == (fault,)


NO_EFFECT = "expected a single value, as the values searched make no difference to what is trained."


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["arms.step={milestones: [], gamma: {choice: [0.1, 0.2]}}"], f"arms.step.gamma: {NO_EFFECT}"),
        (["arms.step={policy: sgdr_dlr, section_ratios: null, section_rates: [0.001, 0.01, 0.5]}"],
         f"arms.step.lr: {NO_EFFECT} lr has no effect: section_rates are the peaks."),
        (["arms.step.norm_batch=64"],
         "arms.step.norm_batch: expected fewer examples than a batch has; got 64, with batches that are no larger."),
        (["arms.step.norm_batch=initial"],
         "arms.step.norm_batch: expected fewer examples than a batch has; got initial, with batches that are no larger."),
        (["arms.step.norm_batch=8", "workload.model=lenet", "workload.image.size=16"],
         "arms.step.norm_batch: expected it only with a model that has BatchNorm, which lenet has not."),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_refused(overrides, fault):
    """Four trials of one grid were one training, and `validate` said that the rate was searched."""
    with pytest.raises(InputError) as caught:
        plan_of(*overrides)
    assert caught.value.sentences == (fault,)


@pytest.mark.parametrize(
    "override",
    [
        "arms.step={policy: batch_increase, norm_batch: initial}",
        "arms.step={policy: batch_increase, norm_batch: 20}",
        "arms.step={policy: batch_increase, cap: {choice: [32, 40]}, milestones: {choice: [[1], [3]]}}",
        "arms.step={policy: clr, mode: {choice: [triangular, exp_range]}, gamma: {choice: [0.9, 0.99], when: {mode: exp_range}}}",
        "arms.step={policy: plateau, patience: {choice: [0, 1]}}",
        "common.norm_batch=initial",
    ],
)
def test_what_has_an_effect_somewhere_is_not(override):
    assert plan_of(override).arms["step"]


def test_milestones_may_go_on_beyond_the_budget():
    assert plan_of("arms.step.milestones=[2, 8]").arms["step"]


def test_one_ratio_per_section_also_in_values_that_are_not_the_default():
    (told,) = faults("arms.dlr={policy: sgdr_dlr, section_ratios: {choice: [[0.01, 0.1, 1], [0.1, 1]]}}")
    assert told == ("arms.dlr.section_ratios: expected one ratio per section of the model (3); got (0.1, 1.0).")


def test_a_batch_that_reaches_the_whole_training_part_is_told():
    plan = plan_of("arms.step={policy: batch_increase, milestones: [1, 2], factor: 5}")
    assert [note for note in notes(plan) if note.startswith("arms.")] == [
        "arms.step: from epoch 1 the batch is the whole training part, 80 examples; what does not fit is taken from the rate."
    ]
    assert not [note for note in notes(plan_of()) if note.startswith("arms.")]
    kept = plan_of("arms.step={policy: batch_increase, milestones: [1, 2], factor: 5, cap_mode: keep}")
    assert [note for note in notes(kept) if note.startswith("arms.")] == [
        "arms.step: from epoch 1 the batch is the whole training part, 80 examples."
    ]


def test_a_momentum_that_an_arm_does_not_take_over_is_told():
    plan = plan_of("common.momentum=0.8", "arms.step.optimizer=rmsprop_keras")
    assert [note for note in notes(plan) if note.startswith("arms.")] == [
        "arms.step: its momentum is 0, as rmsprop_keras has it by default, and not that of common (0.8). Give the arm a momentum "
        "if it should have one."
    ]
    given = plan_of("common.momentum=0.8", "arms.step.optimizer=rmsprop_keras", "arms.step.momentum=0.5")
    assert not [note for note in notes(given) if note.startswith("arms.")]


def test_differential_rates_on_random_weights_are_told_and_stand_in_the_lock():
    plan = plan_of("arms.dlr={policy: sgdr_dlr}", "arms.even={policy: sgdr_dlr, section_ratios: [1, 1, 1]}")
    assert [note for note in notes(plan) if note.startswith("arms.")] == [f"arms.dlr: {DIFFERENTIAL}"]
    lock = json.loads(study_lock.render(plan, (), is_complete=False, versions={}))
    told = {name: arm["caveats"] for name, arm in lock["arms"].items() if arm["caveats"]}
    assert told == {"dlr": [DIFFERENTIAL]}


def test_a_policy_without_a_published_definition_is_told_before_it_is_trained():
    plan = plan_of("arms.clr={mode: modified_triangular2}")
    assert [note for note in notes(plan) if note.startswith("arms.clr: UNVERIFIED: no published definition")]


# --- sizes and seeds --------------------------------------------------------------------------------


@pytest.mark.parametrize(("trials", "given", "expected"), [(8, "", 4), (7, "", 4), (1, "", 1), (8, "cohort: 0", 0)])
def test_the_cohort_is_half_of_an_arms_trials_unless_given(trials, given, expected):
    study = load(f"lrstudy: 1\nname: x\narms: [clr]\nsearch: {{trials: {trials}, {given}}}")
    assert default_cohort(study) == expected


@pytest.mark.parametrize(
    ("arms", "methods", "slots", "expected"), [(1, 1, 1, 4), (1, 1, 8, 16), (3, 1, 8, 6), (3, 2, 8, 4)]
)
def test_outstanding_is_twice_the_slots_per_stream_and_at_least_four(arms, methods, slots, expected):
    names, searchers = ["clr", "step", "sgdr"][:arms], ["random", "smac"][:methods]
    text = f"lrstudy: 1\nname: x\narms: [{', '.join(names)}]\nsearch: {{method: [{', '.join(searchers)}]}}"
    assert default_outstanding(load(text), slots) == expected
    assert default_outstanding(load(text, ["search.outstanding=2"]), slots) == 2
    assert default_outstanding(load(text, ["search.repeats=2"]), slots) == max(4, -(-slots // (arms * methods)))


def test_every_searcher_has_a_seed_of_its_own():
    plan = plan_of("search.method=[random, smac, hyperopt]")
    seeds = {plan.searcher_seed(arm, method) for arm in plan.arms for method in plan.methods}
    assert len(seeds) == 9
    assert all(0 <= seed < 2**31 for seed in seeds), "NumPy's legacy generators take 32 bits"
    repeated = [plan.searcher_seed("clr", "smac", repeat) for repeat in range(3)]
    assert repeated[0] == plan.searcher_seed("clr", "smac") == 1443280314, "as in versions without repeats"
    assert len(seeds | set(repeated)) == 11
    other = plan_of("search.seed=1")
    assert other.searcher_seed("clr", "random") != plan.searcher_seed("clr", "random")


def test_the_number_of_trials_counts_searchers_seeds_and_confirmation_but_no_retired_arms():
    plan = plan_of("search.method=[random, smac]", "search.seeds=[0, 1]", "confirm={top: 2, seeds: 3}")
    assert plan.num_trials == 3 * (2 * 4 * 2 + 2 * 3)
    assert replace(plan, retired=frozenset(["clr"])).num_trials == 2 * (2 * 4 * 2 + 2 * 3)
    assert plan_of("search.repeats=3", "confirm={top: 2, seeds: 3}").num_trials == 3 * 3 * (4 + 2 * 3)


def test_the_cohort_is_paired_over_arms():
    plan = plan_of()
    assert [len(points) for points in plan.cohort.values()] == [2, 2, 2]
    for index in range(2):
        assert len({plan.cohort[arm][index]["lr"] for arm in plan.arms}) == 1
    assert plan_of("search.cohort=0").cohort == {"constant": [], "step": [], "clr": []}


# --- specifications ---------------------------------------------------------------------------------


def test_a_specification_divides_parameters_between_policy_and_recipe():
    plan = plan_of("common.weight_decay={choice: [0, 1e-4]}", "common.nesterov=true", "workload.augment=flip")
    arm = plan.arms["clr"]
    configuration = arm.space.complete({"weight_decay": 1e-4, "mode": "triangular"})
    spec = plan.spec("t", arm, configuration, 7, confirm=True, origin={"study": "small"})
    assert spec.parameters["mode"] == "triangular"
    assert not spec.parameters.keys() & {"weight_decay", "nesterov"}
    recipe = spec.run.recipe
    assert (recipe.weight_decay, recipe.nesterov, recipe.augment) == (1e-4, True, "flip")
    assert (spec.run.num_examples, spec.run.num_epochs, spec.run.num_sections) == (80, 4, 3)
    assert (spec.root.seed, spec.read_test, spec.device_share) == (7, True, 1.0)
    assert with_store_points(spec, frozenset([2])).store_at == {2}


def chain(plan: plan_module.Plan, arm: str, seed: int = 0, **searched: object) -> list[str]:
    of = plan.arms[arm]
    return plan.spec("t", of, of.space.complete({"lr": 0.1, **searched}), seed, False, {}).chain()


def test_arms_share_what_they_train_alike():
    plan = plan_of("arms.twin={policy: batch_increase, milestones: [50%], factor: 2}", "arms.step.milestones=[50%]")
    constant, step, twin = chain(plan, "constant"), chain(plan, "step"), chain(plan, "twin")
    assert len(constant) == len(set(constant)) == 4
    assert step[:2] == twin[:2] == constant[:2], "before the first milestone they are one training"
    assert len({step[2], twin[2], constant[2]}) == 3
    assert chain(plan, "clr", mode="triangular")[:1] == chain(plan, "clr", mode="triangular2")[:1] != constant[:1]


def test_another_seed_rate_or_decay_shares_nothing():
    plan = plan_of("common.weight_decay={choice: [0, 1e-4]}")
    constant = chain(plan, "constant")
    for other in (
        chain(plan, "constant", seed=CONFIRM_SEED),
        chain(plan, "constant", lr=0.2),
        chain(plan, "constant", weight_decay=1e-4),
    ):
        assert not set(constant) & set(other)


def test_a_longer_budget_contains_the_shorter_one_where_the_policy_does_not_look_at_its_end():
    short, long = chain(plan_of(), "constant"), chain(plan_of("budget.epochs=6"), "constant")
    assert long[:4] == short


def test_the_control_is_found_by_the_studys_name_for_it():
    assert plan_of().control == "constant"
    assert plan_of("compare.control=clr").control == "clr"


def test_a_plan_is_made_anew_from_the_same_study_alike():
    plan = plan_of()
    again = make_plan(plan.study, plan.workload, 2, plan.outstanding)
    assert again == plan
    assert "arms: [constant, step, clr]" in SMALL
