from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lrstudy.errors import InputError
from lrstudy.planning import arm_checks, study_lock
from lrstudy.planning.plan import Plan
from lrstudy.planning.study_lock import read, reconcile
from lrstudy.trial.until import Until
from study_files import NUMERICS, SMALL, lock_of, plan_of

FOLDER = Path("runs/small")


def rerun(
    lock: dict[str, object], *overrides: str, text: str = SMALL
) -> tuple[Plan, dict[str, object], tuple[str, ...]]:
    """The plan of a study that ran before and left `lock`; also what it leaves itself, and the notes."""
    plan, notes = reconcile(plan_of(*overrides, text=text, lock=lock), lock, FOLDER)
    return plan, lock_of(plan), notes


def refused(lock: dict[str, object], *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        rerun(lock, *overrides)
    (told,) = caught.value.sentences
    return told


# --- what may change --------------------------------------------------------------------------------


def test_the_first_run_has_nothing_to_reconcile():
    plan = plan_of()
    assert reconcile(plan, {}, FOLDER) == (plan, ())


def test_the_same_study_runs_on_unchanged():
    first = plan_of()
    plan, lock, notes = rerun(lock_of(first))
    assert plan == first
    assert lock == lock_of(first)
    assert notes == ()


@pytest.mark.parametrize(
    "override",
    [
        "limits={gpu_hours: 3, wall: 2h}",
        "price={cpu_core_hour: 0.02}",
        "storage.keep_gb=5",
        "compare={control: clr, margin: 0.01}",
        "target.value=0.9",
        "claims=[{claim: c014, measure: difference, arm: clr, against: constant}]",
        "confirm={top: 2, seeds: 7}",
        "report_metrics=[balanced_accuracy]",
        "search.trials=9",
        "search.seeds=[0, 1]",
        "search.method=[random, smac]",
    ],
)
def test_what_does_not_change_the_training_may_change_freely_and_more_of_it_extends(override):
    plan, _, notes = rerun(lock_of(plan_of()), override)
    assert list(plan.arms) == ["constant", "step", "clr"]
    assert not plan.retired
    assert notes == ()


def test_resources_may_change_and_a_note_says_when_nothing_is_recalled_for_it():
    lock = lock_of(plan_of())
    lock["numerics"] = {**NUMERICS, "threads": 8}
    plan, after, notes = rerun(lock, "resources.cpu=2")
    assert plan.workload.threads == 2
    assert notes == (
        "This machine or its settings compute differently from the last run: what was recorded there is not recalled.",
    )
    assert after["numerics"].items() >= NUMERICS.items()


def test_cohort_and_outstanding_stay_what_they_were_when_trials_and_slots_grow():
    lock = lock_of(plan_of())
    assert (lock["cohort"], lock["outstanding"]) == (2, 4)
    assert plan_of("search.trials=20", slots=64).cohort_size == 10
    plan, after, notes = rerun(lock, "search.trials=20")
    assert (plan.cohort_size, plan.outstanding, len(plan.cohort["clr"])) == (2, 4, 2)
    assert (after["cohort"], after["outstanding"], after["trials_per_arm"]) == (2, 4, 20)
    assert notes == ()


def test_a_note_says_when_the_file_asks_for_another_cohort_or_outstanding():
    _, _, notes = rerun(lock_of(plan_of()), "search.cohort=3", "search.outstanding=9")
    assert notes == (
        "search.cohort stays 2, as in the first run, whatever the file says now (3).",
        "search.outstanding stays 4, as in the first run, whatever the file says now (9).",
    )


def test_the_seed_of_the_search_stays_or_points_would_be_suggested_twice():
    plan, after, notes = rerun(lock_of(plan_of("search.seed=2")), "search.seed=3")
    assert plan.search_seed == after["search_seed"] == 2
    assert notes == ("search.seed stays 2, as in the first run, whatever the file says now (3).",)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("common.momentum=0", "common.momentum=0.0"),
        ("workload.augment=[RandomHorizontalFlip]", "workload.augment=[{RandomHorizontalFlip: {}}]"),
    ],
)
def test_the_same_written_otherwise_is_the_same(before, now):
    plan, _, notes = rerun(lock_of(plan_of(before)), now)
    assert list(plan.arms) == ["constant", "step", "clr"]
    assert notes == ()


def test_more_searches_extend_a_study_and_a_note_says_when_some_leave_the_tables():
    lock = lock_of(plan_of("search.repeats=3"))
    assert lock["search_repeats"] == 3
    _, after, notes = rerun(lock, "search.repeats=4")
    assert (after["search_repeats"], notes) == (4, ())
    _, _, notes = rerun(lock)
    assert notes == ("search.repeats was 3 and is 1: trials of the later searches stay recorded but leave the tables.",)
    earlier = {name: value for name, value in lock_of(plan_of()).items() if name != "search_repeats"}
    assert rerun(earlier)[2] == (), "of a version without them"


def test_a_note_says_when_searchers_or_seeds_leave_the_tables():
    lock = lock_of(plan_of("search.method=[smac, random]", "search.seeds=[0, 1, 2]"))
    _, _, notes = rerun(lock, "search.seeds=[1]")
    assert notes == (
        "search.method no longer has smac: trials with it stay recorded but leave the tables.",
        "search.seeds no longer has 0, 2: trials with it stay recorded but leave the tables.",
    )


# --- arms -------------------------------------------------------------------------------------------


def test_a_new_arm_extends_the_study():
    plan, lock, notes = rerun(lock_of(plan_of()), "arms.sgdr=")
    assert list(plan.arms) == list(plan.cohort) == ["constant", "step", "clr", "sgdr"]
    assert notes == ()
    assert "sgdr" in lock["arms"]


def test_a_removed_arm_is_kept_and_retired():
    plan, lock, notes = rerun(lock_of(plan_of()), "arms=[constant, clr]")
    assert list(plan.arms) == ["constant", "clr", "step"]
    assert plan.retired == {"step"}
    assert "step" not in plan.cohort
    assert plan.num_trials == 2 * (4 + 5)
    assert [name for name, arm in lock["arms"].items() if arm["retired"]] == ["step"]
    assert notes == ()
    again, _, _ = rerun(lock)
    assert again.retired == frozenset(), "it is in the file again"


def test_a_changed_arm_becomes_at_2_and_the_old_one_is_kept():
    plan, lock, notes = rerun(lock_of(plan_of()), "arms.clr.base_ratio=0.2")
    assert list(plan.arms) == ["constant", "step", "clr@2", "clr"]
    assert plan.retired == {"clr"}
    assert plan.arms["clr@2"].name == "clr@2"
    assert plan.arms["clr@2"].space.default()["base_ratio"] == 0.2
    assert plan.arms["clr"].space.default()["base_ratio"] == 0.1
    assert plan.cohort["clr@2"][0]["base_ratio"] == 0.2
    assert notes == ("arms.clr has changed since the last run: it runs as clr@2, and what ran before is kept.",)
    assert {name: arm["retired"] for name, arm in lock["arms"].items()} == {
        "constant": False, "step": False, "clr@2": False, "clr": True,
    }  # fmt: skip


def test_a_changed_arm_goes_on_as_at_2_and_changes_again_to_at_3():
    _, lock, _ = rerun(lock_of(plan_of()), "arms.clr.base_ratio=0.2")
    same, _, notes = rerun(lock, "arms.clr.base_ratio=0.2")
    assert list(same.arms) == ["constant", "step", "clr@2", "clr"]
    assert notes == ("arms.clr goes on as clr@2, and what ran before is kept.",)
    third, lock, _ = rerun(lock, "arms.clr.base_ratio=0.3")
    assert list(third.arms) == ["constant", "step", "clr@3", "clr@2", "clr"]
    assert third.retired == {"clr", "clr@2"}
    back, _, _ = rerun(lock, "arms.clr.base_ratio=0.2")
    assert list(back.arms)[2] == "clr@2"
    assert back.retired == {"clr", "clr@3"}


def test_an_rmsprop_that_was_recorded_with_the_momentum_of_sgd_is_kept_and_runs_anew_without():
    """Earlier versions handed the common default of 0.9 to an arm that gave no momentum, and recorded that."""
    lock = lock_of(plan_of("arms.step={optimizer: rmsprop, momentum: 0.9}"))
    plan, after, notes = rerun(lock, "arms.step.optimizer=rmsprop")
    assert notes == ("arms.step has changed since the last run: it runs as step@2, and what ran before is kept.",)
    assert plan.retired == {"step"}
    assert {name: arm["definition"]["momentum"] for name, arm in after["arms"].items()} == {
        "constant": 0.9, "step@2": 0.0, "clr": 0.9, "step": 0.9,
    }  # fmt: skip
    told = [note for note in arm_checks.notes(plan) if note.startswith("arms.")]
    assert told == [
        "arms.step@2: its momentum is 0, as rmsprop has it by default, and not that of common (0.9). Give the arm a momentum "
        "if it should have one."
    ]
    same, _, _ = rerun(lock, "arms.step={optimizer: rmsprop, momentum: 0.9}")
    assert not same.retired


def test_going_back_to_the_old_definition_takes_up_the_old_name():
    before = plan_of()
    _, lock, _ = rerun(lock_of(before), "arms.clr.base_ratio=0.2")
    plan, _, notes = rerun(lock)
    assert {name: plan.arms[name] for name in before.arms} == before.arms
    assert plan.retired == {"clr@2"}
    assert notes == ()


def test_an_arm_that_comes_back_changed_does_not_take_the_name_of_the_retired_one():
    _, lock, _ = rerun(lock_of(plan_of()), "arms=[constant, step]")
    plan, _, _ = rerun(lock, "arms.clr.base_ratio=0.2")
    assert list(plan.arms) == ["constant", "step", "clr@2", "clr"]


def test_a_changed_common_parameter_changes_every_arm_that_does_not_override_it():
    first = lock_of(plan_of("arms.step.momentum=0.5"))
    plan, _, notes = rerun(first, "arms.step.momentum=0.5", "common.momentum=0.8")
    assert list(plan.arms) == ["constant@2", "step", "clr@2", "constant", "clr"]
    assert len(notes) == 2


def test_how_a_definition_is_written_changes_nothing():
    lock = lock_of(plan_of("arms.clr={momentum: 0.5, mode: triangular}"))
    plan, _, notes = rerun(lock, "arms.clr={mode: triangular, momentum: 0.50, policy: clr, optimizer: sgd}")
    assert "clr@2" not in plan.arms
    assert notes == ()


def test_the_control_of_the_lock_is_the_arm_as_it_runs_now():
    """It was the study file's name, so a changed control was compared with what it had been before."""
    lock = lock_of(plan_of("compare.control=clr"))
    assert lock["control"] == "clr"
    plan, lock, _ = rerun(lock, "compare.control=clr", "arms.clr.base_ratio=0.2")
    assert plan.control == lock["control"] == "clr@2"
    plan, lock, _ = rerun(lock, "compare.control=clr")
    assert plan.control == lock["control"] == "clr"


def test_a_claim_about_a_changed_arm_is_about_the_arm_as_it_runs_now():
    claims = "claims=[{claim: c014, measure: difference, arm: clr, against: constant}]"
    _, lock, _ = rerun(lock_of(plan_of()), claims, "arms.clr.base_ratio=0.2")
    (claim,) = lock["claims"]
    assert (claim["arm"], claim["against"]) == ("clr@2", "constant")


# --- what may not change ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("metric=balanced_accuracy", "with other metric (metric: accuracy before, balanced_accuracy now)."),
        ("select=best", "with other select (select: final before, best now)."),
        ("budget.epochs=5", "with other budget (budget: 4 before, 5 now)."),
        ("workload.model=lenet", "with other "),
        ("workload.split.seed=1", "with other split."),
        ("workload.split.validation=30", "with other split."),
        ("workload.subset=130", "with other split."),
        ("workload.image.normalize=none", "with other preprocessing (preprocessing.normalize: data before, none now)."),
        ("workload.image.channels=rgb", "with other data and model (model.channels: 1 before, 3 now)."),
        ("workload.augment=flip", "with other augment (augment: none before, flip now)."),
        (
            "workload.task.class_weights=balanced",
            "with other task (task.class_weights: none before, balanced now).",
        ),
    ],
)
def test_what_makes_results_incomparable_is_refused_with_the_way_out(override, told):
    overrides = [override] if "lenet" not in override else [override, "workload.image.size=16"]
    found = refused(lock_of(plan_of()), *overrides)
    assert found.startswith(f"storage.path: {FOLDER} holds a study {told}")
    assert "Give this one a name of its own with --as NAME" in found
    assert "restore the old value" in found


def test_all_that_changed_is_named_in_one_paragraph_without_digests():
    lock = lock_of(plan_of())
    found = refused(lock, "metric=balanced_accuracy", "workload.split.seed=1", "workload.image.size=16")
    assert "with other data, split, model and metric (" in found
    assert "model.size: 8 before, 16 now" in found
    assert lock["identity"]["data"] not in found
    assert "\n" not in found


# --- what lies in the folder ------------------------------------------------------------------------


def test_a_folder_that_is_not_there_or_was_just_begun_has_no_lock(tmp_path):
    assert read(tmp_path / "absent") == {}
    for name in ("journal", "driver.lock", "study.yaml", ".writable.7", ".study.lock.json.7"):
        (tmp_path / name).write_text("")
    assert read(tmp_path) == {}, "a run was killed before it wrote its lock"


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"storage.path: {tmp_path} exists and is no study's folder (it has no study.lock.json). "
        "Choose another name with --as NAME, or another storage.path."
    )
    assert (tmp_path / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"lock_format": 2}', "has lock format 2; expected 1."),
        ("[]", "has lock format None; expected 1."),
        ('{"lock_format": 1, "name"', "cannot be read (Expecting ':' delimiter"),
        ("", "cannot be read (Expecting value"),
        (
            '{"lock_format": 1, "arms": {}}',
            "is incomplete (no identity, cohort, outstanding, seeds, searchers, numerics)",
        ),
    ],
)
def test_a_lock_that_is_torn_or_of_another_format_is_refused_and_kept(tmp_path, text, told):
    (tmp_path / "study.lock.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"storage.path: {tmp_path / 'study.lock.json'} {told}")
    assert "--as NAME" in str(caught.value)
    assert (tmp_path / "study.lock.json").read_text() == text


def test_the_lock_reads_back_as_it_was_written(tmp_path):
    plan = plan_of("search.method=[random, smac]", "price.cpu_core_hour=0.5")
    text = study_lock.render(plan, ("a=b",), is_complete=False, versions={"torch": "x"})
    (tmp_path / "study.lock.json").write_text(text)
    lock = read(tmp_path)
    assert lock == json.loads(text)
    assert reconcile(plan, lock, tmp_path)[0] == plan
    assert (lock["overrides"], lock["complete"], lock["versions"]) == (["a=b"], False, {"torch": "x"})
    assert lock["price"] == {"device_hour": 0.5, "currency": "USD"}
    assert lock["unit"] == "CPU-core-hours"


@pytest.mark.parametrize(
    ("device", "override", "expected"),
    [
        ("cpu", "price={gpu_hour: 2}", None),
        ("cpu", "price={cpu_core_hour: 0.1, currency: EUR}", {"device_hour": 0.1, "currency": "EUR"}),
        ("cuda", "price={gpu_hour: 2}", {"device_hour": 2, "currency": "USD"}),
        ("cuda", "price={gpu_hour: {h100: 3, A100: 2}}", {"device_hour": 2, "currency": "USD"}),
        ("cuda", "price={gpu_hour: {H100: 3}}", None),
        ("cuda", "price={cpu_core_hour: 3}", None),
    ],
)
def test_the_price_is_the_one_of_the_device(device, override, expected):
    plan = plan_of(override)
    workload = replace(plan.workload, device=device, numerics={"device_model": "NVIDIA A100-SXM4-80GB"})
    assert study_lock.price(replace(plan, workload=workload)) == expected


GPUS = {
    "A10": "NVIDIA A10",
    "A10G": "NVIDIA A10G",
    "A100": "NVIDIA A100-SXM4-80GB",
    "H100": "NVIDIA H100 80GB HBM3",
    "RTX 4090": "NVIDIA GeForce RTX 4090",
    "T4": "Tesla T4",
    "L4": "NVIDIA L4",
    "L40S": "NVIDIA L40S",
}


def on_gpu(plan: Plan, model: str) -> Plan:
    return replace(plan, workload=replace(plan.workload, device="cuda", numerics={"device_model": model}))


@pytest.mark.parametrize("name", GPUS)
@pytest.mark.parametrize("order", [1, -1])
def test_a_price_is_that_of_the_whole_name(name, order):
    """An A100 was priced as an A10, and an L40S as an L4, if those came first in the map."""
    prices = {key: float(len(key)) for key in list(GPUS)[::order]}
    prices["A10"], prices["L4"], prices["A10G"] = 100.0, 200.0, 300.0
    priced = study_lock.price(on_gpu(plan_of(f"price={json.dumps({'gpu_hour': prices})}"), GPUS[name]))
    assert priced == {"device_hour": prices.pop(name), "currency": "USD"}
    assert study_lock.price(on_gpu(plan_of(f"price={json.dumps({'gpu_hour': prices})}"), GPUS[name])) is None


def test_of_several_names_that_fit_the_longest_holds():
    prices = {"A100-80GB": 3.0, "nvidia a100": 2.0, "A100-40GB": 1.0, "--": 9.0, "NVIDIA": 9.0}
    plan = plan_of(f"price={json.dumps({'gpu_hour': prices})}")
    for model, expected in [("NVIDIA A100-SXM4-80GB", 3.0), ("NVIDIA A100-PCIE-40GB", 1.0), ("A100", 2.0)]:
        assert study_lock.price(on_gpu(plan, model)) == {"device_hour": expected, "currency": "USD"}


def test_a_note_says_when_no_price_fits_the_gpu():
    plan = on_gpu(plan_of("price={gpu_hour: {A10: 1, H100: 3}}"), "NVIDIA A100-SXM4-80GB")
    assert reconcile(plan, {}, FOLDER)[1] == (
        "price.gpu_hour has no price of NVIDIA A100-SXM4-80GB (it has A10, H100): no money is shown.",
    )
    assert reconcile(on_gpu(plan, "NVIDIA A10"), {}, FOLDER)[1] == ()


@pytest.mark.parametrize(("step_size", "is_caveat"), [("50%", False), (3, True), ("{choice: [1, 3]}", True)])
def test_a_run_that_completes_no_cycle_is_said_to_be_tested_after_its_last_epoch(step_size, is_caveat):
    arms = lock_of(plan_of(f"arms.clr.step_size={step_size}", "select=last_cycle"))["arms"]
    caveats = arms["clr"]["caveats"]
    assert (len(caveats) == 1) == is_caveat
    assert all("ends within the first cycle" in caveat for caveat in caveats)
    assert arms["constant"]["caveats"] == []


def test_an_arm_that_ran_before_ghost_batches_were_the_default_is_kept_beside_the_new_one():
    earlier = lock_of(plan_of("arms.batch_increase={norm_batch: null}"))
    plan, lock, (note,) = rerun(earlier, "arms.batch_increase={}")
    assert plan.retired == {"batch_increase"}
    assert plan.arms["batch_increase@2"].definition["norm_batch"] == "initial"
    assert lock["arms"]["batch_increase"]["definition"] == earlier["arms"]["batch_increase"]["definition"]
    assert "arms.batch_increase has changed since the last run: it runs as batch_increase@2" in note
    on, _, notes = rerun(earlier, "arms.batch_increase={norm_batch: null}")
    assert (on.retired, notes) == (frozenset(), ()), "whoever writes the old default goes on"


def test_which_statistics_batchnorm_has_is_part_of_the_study():
    earlier = lock_of(plan_of())
    del earlier["identity"]["batchnorm"]  # as earlier versions wrote it
    assert rerun(earlier)
    assert "with other batchnorm (batchnorm: running before, precise now)." in refused(
        earlier, "workload.batchnorm=precise"
    )
    precise = lock_of(plan_of("workload.batchnorm=precise"))
    assert "with other batchnorm (batchnorm: precise before, running now)." in refused(precise)


# --- a lock that somebody else has written ----------------------------------------------------------


ODD = [
    {"arms": []}, {"arms": {"a": 5}}, {"arms": {"a": {"definition": {"policy": 5}}}}, {"cohort": -1}, {"cohort": "4"},
    {"outstanding": 0}, {"seeds": "0"}, {"searchers": [5]}, {"identity": None}, {"numerics": []}, {"complete": "yes"},
    {"search_seed": 1e99}, {"arms": {"a": {"definition": {"policy": "/tmp/evil.py:f"}}}},
    {"arms": {"a": {"definition": {"policy": "evil.py:f", "source": "../../../tmp"}}}},
    {"arms": {"a": {"definition": {"policy": "constant", "source": "0" * 32}}}},
]  # fmt: skip


@pytest.mark.parametrize("changes", ODD, ids=range(len(ODD)))
def test_a_lock_that_holds_what_no_run_has_written_is_refused(tmp_path, changes):
    (tmp_path / "study.lock.json").write_text(json.dumps(lock_of(plan_of()) | changes))
    with pytest.raises(InputError, match=r"holds what no run has written \("):
        read(tmp_path)


def test_code_that_is_not_what_the_lock_names_does_not_run(tmp_path):
    """Whoever may write to a bucket, or to a shared folder, could put it there."""
    definition = {"policy": "/home/somebody/mine.py:knee", "source": "0" * 32, "lr": 0.1}
    place = tmp_path / "source" / ("0" * 32)
    place.mkdir(parents=True)
    (place / "mine.py").write_text("raise SystemExit('this ran')\n")
    lock = lock_of(plan_of())
    lock["arms"]["gone"] = {"definition": definition}
    with pytest.raises(
        InputError, match=r"arms\.gone: an earlier run had this arm with a policy of /home/somebody/mine\.py"
    ):
        reconcile(plan_of(lock=lock), lock, tmp_path)


def test_another_target_changes_every_arm_that_has_none_of_its_own():
    arms = "arms={constant: {until: none}, step: {}, clr: {until: {f1: 0.5}}}"
    first = lock_of(plan_of(arms, "budget.until={accuracy: 0.8}"))
    assert first["arms"]["step"]["definition"]["until"] == {"accuracy": 0.8}
    plan, _, _ = rerun(first, arms, "budget.until={accuracy: 0.9}")
    assert list(plan.arms) == ["constant", "step@2", "clr", "step"]
    assert plan.arms["step"].until == Until("accuracy", 0.8), "the old one is recalled with the target that it had"
    assert plan.arms["step@2"].until == Until("accuracy", 0.9)


def test_a_target_in_a_metric_that_the_task_has_not_is_refused_where_it_stands():
    with pytest.raises(InputError) as caught:
        plan_of("budget.until={exact_match: 0.8}", "arms={constant: , step: {until: {exact_match: 0.9}}}")
    budget, arm = caught.value.sentences
    assert budget.startswith("budget.until: expected a metric of a multiclass task; got exact_match")
    assert arm.startswith("arms.step.until: expected a metric of a multiclass task")


def test_a_target_is_a_caveat_of_its_arm():
    plan = plan_of("arms={constant: {until: {accuracy: 0.9}}, step: {}}")
    notes = arm_checks.notes(plan)
    (note,) = [note for note in notes if note.startswith("arms.constant:")]
    assert "end after the first epoch with a validation accuracy of 0.9 or more" in note
    assert not any(note.startswith("arms.step:") for note in notes)
