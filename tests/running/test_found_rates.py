"""Rates of stages that range tests find: one after the other, each from where the stages before lead at their own rates."""

from __future__ import annotations

import pytest

from lrstudy.memo.memo import Memo
from lrstudy.running import range_tests
from lrstudy.running.admission import Admission
from lrstudy.running.found_rates import FoundRates
from lrstudy.running.range_test_table import range_test_table
from lrstudy.study_folder.journal import Journal
from lrstudy.training.range_curve import Curve
from measured_curves import stored
from serial import SMALL, Serial, study
from study_files import plan_of

HEAD = "{train: head, epochs: 1, policy: constant, lr: {found: valley, updates: 40}}"
WHOLE = "{train: all, policy: constant, lr: {found: steep, updates: 40}}"
FEW = ("search.trials=1", "search.cohort=1", "confirm.top=0", "workload.model=small_cnn")


def arms(**stages: str) -> str:
    return f"arms={{constant: null, {', '.join(f'{name}: {{stages: [{text}]}}' for name, text in stages.items())}}}"


def opened(tmp_path, name="journal") -> Journal:
    journal = Journal(tmp_path / name)
    journal.open_run()
    return journal


def waiting(plan, memo, journal) -> list[tuple[str, str]]:
    return list(FoundRates(plan, memo, journal).missing)


def test_the_test_of_a_later_stage_is_handed_out_once_the_rate_of_the_one_before_is_known(tmp_path):
    plan, memo, journal = plan_of(arms(mine=f"{HEAD}, {WHOLE}"), *FEW), Memo(tmp_path / "memo"), opened(tmp_path)
    admission = Admission(plan, memo, journal)
    first = admission.next_test()
    assert (first.depth, first.passes[0].recipe.input) == (0, "features")
    assert admission.next_test() is None, "which state the second one begins with is not known yet"
    stored(memo, first)
    admission.tested(first)
    second = admission.next_test()
    assert (second.depth, second.passes[0].recipe.input, second.question.found) == (1, "images", "steep")
    assert float(second.spec.untriggered()[0].lr[0, -1]) == pytest.approx(0.00069)
    assert admission.waits_for_rates
    stored(memo, second)
    admission.tested(second)
    assert not admission.waits_for_rates
    lines = [(line["arm"], line["parameter"], line["own"]) for line in journal.of_kind("found")]
    assert lines == [("mine", "stage1_lr", True), ("mine", "stage2_lr", True)]
    space = admission.plan.arms["mine"].space
    assert space["stage1_lr"].values == (0.00069,)
    assert space["stage2_lr"].values != space["stage1_lr"].values
    rows = range_test_table(admission.rates.tests, journal, memo).to_pylist()
    assert [(row["parameter"], row["epochs_before"], row["spent_device_s"]) for row in rows] == [
        ("stage1_lr", 0, 2.5), ("stage2_lr", 1, 2.5),
    ]  # fmt: skip


def test_recorded_tests_of_all_stages_give_their_rates_at_once(tmp_path):
    plan, memo = plan_of(arms(mine=f"{HEAD}, {WHOLE}"), *FEW), Memo(tmp_path / "memo")
    closed = Journal(tmp_path / "journal")
    for rate in ("stage1_lr", "stage2_lr"):
        stored(memo, FoundRates(plan, memo, closed).missing["mine", rate])
    assert not Admission(plan, memo, opened(tmp_path)).waits_for_rates
    assert waiting(plan, Memo(tmp_path / "another"), Journal(tmp_path / "journal")) == [], "the journal knows them"


def test_another_first_rate_makes_another_test_of_the_second_stage(tmp_path):
    def digest(rate: str) -> str:
        fixed = HEAD.replace("{found: valley, updates: 40}", rate)
        return range_tests.of_arm(plan_of(arms(mine=f"{fixed}, {WHOLE}"), *FEW), "mine", rate="stage2_lr").digest

    assert digest("0.1") == digest("0.1") != digest("0.2")


def test_a_provisional_test_takes_no_curve_of_an_arm_that_has_its_provisional_rate(tmp_path):
    """The arm `fixed` has the rate at which `mine` is planned: their second tests have one name until `mine` knows better."""
    fixed = HEAD.replace("{found: valley, updates: 40}", "0.05")
    plan, memo = plan_of(arms(fixed=f"{fixed}, {WHOLE}", mine=f"{HEAD}, {WHOLE}"), *FEW), Memo(tmp_path / "memo")
    tests = FoundRates(plan, memo, Journal(tmp_path / "journal")).tests
    assert tests["fixed", "stage2_lr"].digest == tests["mine", "stage2_lr"].digest
    stored(memo, tests["fixed", "stage2_lr"])
    assert waiting(plan, memo, Journal(tmp_path / "journal")) == [("mine", "stage1_lr"), ("mine", "stage2_lr")]


def test_tests_that_make_the_same_states_follow_each_other(tmp_path):
    fixed = HEAD.replace("{found: valley, updates: 40}", "0.05")
    large = WHOLE.replace("policy", "batch_size: 40, policy")
    plan = plan_of(arms(small=f"{fixed}, {WHOLE}", large=f"{fixed}, {large}"), *FEW)
    admission = Admission(plan, Memo(tmp_path / "memo"), opened(tmp_path))
    first = admission.next_test()
    assert admission.next_test() is None
    assert not admission.rates.has_next
    admission.test_returned(first)
    assert admission.next_test() == first


def test_a_rate_that_stages_share_is_found_where_the_first_of_them_begins():
    plan = plan_of("common.lr=found", arms(two="{train: head, epochs: 2, policy: constant, lr: 0.1}, {train: all, policy: constant}"), *FEW)  # fmt: skip
    assert range_tests.of_arm(plan, "two", rate="lr").depth == 2
    plan = plan_of("common.lr=found", arms(two="{train: head, epochs: 2, policy: constant}, {train: all, policy: constant}"), *FEW)  # fmt: skip
    assert list(plan.arms["two"].questions) == ["lr"]
    assert range_tests.of_arm(plan, "two", rate="lr").depth == 0


def test_notes_and_faults_name_the_stage(tmp_path):
    plan, memo = plan_of(arms(mine=f"{HEAD}, {WHOLE}"), *FEW), Memo(tmp_path / "memo")
    journal = Journal(tmp_path / "journal")
    *_, last = FoundRates(plan, memo, journal).notes()
    assert last == (
        "arms.mine: its stages[1].lr will be found by a range test (steep; exponential from 1e-07 to 10, 40 updates, after "
        "epoch 1) when the study runs; until then it is planned with 0.05."
    )
    admission = Admission(plan, memo, opened(tmp_path))
    for curve in (None, Curve(40, (1e-7,), ())):
        test = admission.next_test()
        stored(memo, test, *([] if curve is None else [curve]))
        admission.tested(test)
    assert str(admission.refusal).startswith("arms.mine.stages[1].lr: the range test diverged at its first rate")


@pytest.mark.slow
def test_a_study_finds_the_rates_of_both_stages_and_its_first_trial_owns_what_was_trained_for_that(tmp_path):
    later = WHOLE.replace("policy: constant", "policy: step")
    plan = study(tmp_path, SMALL, arms(mine=f"{HEAD}, {WHOLE}", other=f"{HEAD}, {later}"), *FEW).plan()[0]
    ran = Serial(plan, tmp_path / "runs")
    admission = ran.run()
    found = {(line["arm"], line["parameter"]): line for line in ran.journal.of_kind("found")}
    assert list(found) == [(arm, rate) for rate in ("stage1_lr", "stage2_lr") for arm in ("mine", "other")]
    assert len({line["range_test"] for line in found.values()}) == 2, "the policies play no part"
    mine, other = (next(t for t in admission.trials.values() if t.arm == arm) for arm in ("mine", "other"))
    for trial in (mine, other):
        rates = {key: value for key, value in trial.configuration.items() if key.endswith("_lr")}
        assert rates == {rate: found[trial.arm, rate]["rate"] for rate in ("stage1_lr", "stage2_lr")}
    assert mine.chain[0] == other.chain[0] not in ran.trained, "its test had trained the first stage already"
    assert not any(mine.recalled), "and that counts as the trial's own"
    assert other.recalled[0]
    assert [mine.is_recalled(record) for record in mine.features(ran.memo.find).values()] == [False]
    again = Serial(plan, tmp_path / "runs")
    again.run()
    assert again.trained == []


@pytest.mark.slow
def test_what_diverges_before_a_test_ends_the_study_with_the_epoch(tmp_path):
    from lrstudy.ray_tune.trainable import RangeTestAssignment, TuneTrial

    wild = "{train: all, epochs: 2, policy: constant, lr: 1e30}"
    plan = study(tmp_path, SMALL, arms(mine=f"{wild}, {WHOLE}"), *FEW).plan()[0]
    admission = Admission(plan, Memo(tmp_path / "memo"), opened(tmp_path))
    test = admission.next_test()
    report = TuneTrial({"assignment": RangeTestAssignment(test, plan.workload, str(tmp_path / "memo"))}).step()
    admission.tested(test, report["error"])
    assert str(admission.refusal) == (
        "arms.mine.stages[1].lr: the range test failed: the training before it diverged in epoch 1."
    )
