"""Range tests: which arms have one in common, and how a study takes its rates from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lrstudy.config.range_question import RangeQuestion
from lrstudy.errors import InputError
from lrstudy.memo.memo import Memo
from lrstudy.planning.plan import with_rates
from lrstudy.running import forecast, range_tests
from lrstudy.running.admission import Admission
from lrstudy.running.found_rates import FoundRates
from lrstudy.running.range_test_table import range_test_table
from lrstudy.study_folder.journal import Journal
from lrstudy.training.range_curve import Curve
from measured_curves import stored
from serial import SMALL, Serial, study
from study_files import plan_of

ARMS = "arms={constant: null, step: null, adam: {policy: constant, optimizer: adam}, large: {policy: constant, batch_size: 40}}"


def digest(plan, arm="constant", depth=0, **asked) -> str:
    test = range_tests.of_arm(plan, arm, RangeQuestion(**asked) if asked else None)
    return replace(test, depth=depth).digest


def journal(tmp_path, name="journal") -> Journal:
    opened = Journal(tmp_path / name)
    opened.open_run()
    return opened


def test_arms_that_begin_alike_have_one_test_in_common_whatever_their_policy():
    plan = plan_of("common.lr=found", ARMS)
    by_arm = {arm: digest(plan, arm) for arm in plan.arms}
    assert by_arm["constant"] == by_arm["step"]
    assert len(set(by_arm.values())) == 3


def test_a_test_is_named_by_all_that_it_computes_and_not_by_what_is_read_from_it():
    plan = plan_of("common.lr=found")
    mine = digest(plan)
    assert digest(plan_of("common.lr={found: steep}", "name=other", "budget.epochs=9", "metric=f1")) == mine
    others = [
        digest(plan_of(override))
        for override in ("search.seeds=[3]", "workload.model=resnet18", "common.momentum=0.5", "common.weight_decay=0")
    ]
    others += [
        digest(plan, low=1e-6),
        digest(plan, high=3),
        digest(plan, updates=50),
        digest(plan, form="linear", found="valley"),
    ]
    assert len({mine, *others, digest(plan, depth=2)}) == len(others) + 2


def test_a_test_longer_than_an_epoch_goes_on_with_the_next_one():
    test = range_tests.of_arm(plan_of("common.lr=found"), "constant")  # 80 examples, 4 updates an epoch
    assert [settings.num_updates for settings in test.passes] == [4] * 25
    assert {settings.recipe.tail for settings in test.passes} == {"keep"}
    rates = [rate for settings in test.passes for rate in settings.lr[:, 0]]
    assert rates == pytest.approx([1e-7 * 1e8 ** (k / 100) for k in range(100)])


def test_the_last_pass_leaves_out_what_it_does_not_get_to():
    test = range_tests.of_arm(plan_of(), "constant", RangeQuestion(updates=6))
    assert [(s.num_updates, s.recipe.tail) for s in test.passes] == [(4, "keep"), (2, "drop")]


def test_a_linear_test_measures_thirty_times():
    test = range_tests.of_arm(plan_of(), "constant", RangeQuestion(found="smith", updates=60))
    assert [settings.num_updates for settings in test.passes] == [2] * 30
    assert range_tests.of_arm(plan_of(), "constant", RangeQuestion(found="smith")).num_updates == 16, "four epochs"


def test_only_the_first_pass_makes_a_new_optimizer():
    test = range_tests.of_arm(plan_of(), "constant", RangeQuestion(updates=8))
    run = replace(test.spec.run, recipe=replace(test.spec.run.recipe, reset_optimizer=True))
    again = replace(test, spec=replace(test.spec, run=run))
    assert [settings.recipe.reset_optimizer for settings in again.passes] == [True, False]


def test_a_plan_has_provisional_rates_until_they_are_found_and_its_definition_keeps_the_question():
    plan = plan_of("common.lr=found")
    assert {arm.space["lr"].values for arm in plan.arms.values()} == {(0.05,)}
    found = with_rates(plan, {("constant", "lr"): 0.003})
    assert {configuration["lr"] for configuration in found.cohort["constant"]} == {0.003}
    assert {configuration["lr"] for configuration in found.cohort["clr"]} == {0.05}
    assert found.arms["constant"].space.default()["lr"] == 0.003
    assert found.arms["constant"].definition["lr"]["found"] == "valley"


def test_a_recorded_test_gives_its_rate_at_once_and_for_ever(tmp_path):
    plan, memo = plan_of("common.lr=found"), Memo(tmp_path / "memo")
    stored(memo, range_tests.of_arm(plan, "constant"))
    noted = journal(tmp_path)
    admission = Admission(plan, memo, noted)
    assert not admission.waits_for_rates
    lines = list(noted.of_kind("found"))
    assert [(line["arm"], line["rate"], line["own"]) for line in lines] == [
        ("constant", 0.00069, False), ("step", 0.00069, False), ("clr", 0.00069, False),
    ]  # fmt: skip
    assert admission.next().configuration["lr"] == 0.00069
    later = Admission(plan_of("common.lr=found"), Memo(tmp_path / "another"), Journal(tmp_path / "journal"))
    assert not later.waits_for_rates, "the journal knows the rate, though the memo has lost the test"
    assert later.plan.arms["clr"].space["lr"].values == (0.00069,)


def test_looking_at_a_plan_writes_nothing(tmp_path):
    plan, memo = plan_of("common.lr=found"), Memo(tmp_path / "memo")
    closed = Journal(tmp_path / "journal")
    rates = FoundRates(plan, memo, closed)
    assert len({test.digest for test in rates.missing.values()}) == 1
    (first, *_) = rates.notes()
    assert first == (
        "arms.constant: its lr will be found by a range test (valley; exponential from 1e-07 to 10, 100 updates) when the "
        "study runs; until then it is planned with 0.05."
    )
    stored(memo, range_tests.of_arm(plan, "constant"))
    rates = FoundRates(plan, memo, closed)
    assert "arms.constant: its lr is 0.00069, found by a range test" in next(rates.notes())
    assert rates.plan.arms["step"].space["lr"].values == (0.00069,)
    assert closed.lines == []


def test_a_curve_that_suggests_no_rate_is_refused_at_the_field_that_asks(tmp_path):
    plan, memo = plan_of("arms={constant: null, clr: {lr: found}}"), Memo(tmp_path / "memo")
    stored(memo, range_tests.of_arm(plan, "clr"), Curve(100, (1e-7,), ()))
    with pytest.raises(InputError, match=r"arms\.clr\.lr: the range test diverged at its first rate, 1e-07"):
        FoundRates(plan, memo, Journal(tmp_path / "journal"))


def test_what_is_no_curve_counts_as_not_recorded(tmp_path):
    plan, memo = plan_of("common.lr=found"), Memo(tmp_path / "memo")
    memo.put_measurement(range_tests._path(range_tests.of_arm(plan, "clr")), {"device_s": 1.0, "rates": "x"})
    assert range_tests.recalled(memo, range_tests.of_arm(plan, "clr")) is None


def test_a_test_that_lost_its_worker_is_handed_out_again_and_one_that_failed_ends_the_study(tmp_path):
    admission = Admission(plan_of("common.lr=found"), Memo(tmp_path / "memo"), journal(tmp_path))
    assert admission.next() is None
    test = admission.next_test()
    assert admission.next_test() is None
    admission.test_returned(test)
    assert admission.next_test() == test
    admission.tested(test, "RuntimeError: x")
    assert str(admission.refusal) == "common.lr: the range test failed: RuntimeError: x."
    assert admission.next() is None
    assert admission.next_test() is None
    assert admission.is_over


def test_a_forecast_counts_tests_that_are_to_come_and_takes_rates_that_are_known(tmp_path):
    plan, memo = (
        plan_of("common.lr=found", "search.trials=1", "search.cohort=1", "confirm.top=0"),
        Memo(tmp_path / "memo"),
    )
    before = forecast.forecast(plan, Journal(tmp_path / "journal"), memo)
    stored(memo, range_tests.of_arm(plan, "constant"))
    after = forecast.forecast(plan, Journal(tmp_path / "journal"), memo)
    assert sum((before.work - after.work).values()) == 25, "passes of four updates, one test for three arms"
    assert sum((before.asked_work - after.asked_work).values()) == 75
    assert before.total.asked == after.total.asked


def test_the_table_has_the_rate_of_every_arm_and_its_cost_once(tmp_path):
    plan, memo, noted = plan_of("common.lr=found", ARMS), Memo(tmp_path / "memo"), journal(tmp_path)
    admission = Admission(plan, memo, noted)
    while (test := admission.next_test()) is not None:
        stored(memo, test)
        admission.tested(test)
    rows = range_test_table(admission.rates.tests, noted, memo).to_pylist()
    assert [(row["arm"], row["device_s"], row["spent_device_s"]) for row in rows] == [
        ("constant", 2.5, 2.5), ("step", 2.5, 0.0), ("adam", 2.5, 2.5), ("large", 2.5, 2.5),
    ]  # fmt: skip
    assert {row["lr"] for row in rows} == {0.00069}
    assert [row["batch_size"] for row in rows] == [20, 20, 20, 40]
    assert (rows[0]["suggestion"], rows[0]["updates"], len(rows[0]["smoothed_losses"])) == ("valley", 100, 100)
    later = journal(tmp_path, "later")
    recalled = range_test_table(Admission(plan, memo, later).rates.tests, later, memo).to_pylist()
    assert {(row["recalled"], row["spent_device_s"]) for row in recalled} == {(True, 0.0)}
    retired = range_test_table({}, noted, memo).to_pylist()
    assert (retired[0]["lr"], retired[0]["losses"]) == (0.00069, None)


@pytest.mark.slow
def test_a_study_runs_one_test_and_trains_all_arms_at_its_rate(tmp_path):
    few = ("search.trials=1", "search.cohort=1", "confirm.top=0", "common.lr={found: valley, updates: 40}")
    plan = study(tmp_path, SMALL, *few).plan()[0]
    ran = Serial(plan, tmp_path / "runs")
    admission = ran.run()
    lines = list(ran.journal.of_kind("found"))
    assert [line["own"] for line in lines] == [True] * 3
    assert len(list((tmp_path / "runs" / "memo" / "range_tests").iterdir())) == 1
    rates = {trial.configuration["lr"] for trial in admission.trials.values()}
    assert rates == {lines[0]["rate"]}
    again = Serial(plan, tmp_path / "runs")
    assert not again.admission.waits_for_rates
    again.run()
    assert again.trained == []
    assert len(list(again.journal.of_kind("found"))) == 3


@pytest.mark.slow
def test_a_test_begins_at_any_state_of_a_trial(tmp_path):
    """Its losses go on from where two epochs have led; these are recorded like any others."""
    plan, memo = study(tmp_path, SMALL).plan()[0], Memo(tmp_path / "memo")
    ran = Serial(plan, tmp_path / "runs")
    at_start = range_tests.of_arm(plan, "constant", RangeQuestion(updates=8))
    for test in (at_start, replace(at_start, depth=2)):
        spans = range_tests.measure(test, plan.workload, memo, lambda: ran.trainers[0])
        assert spans[-1].category == "range_test"
    assert "train" in {span.category for span in spans}
    first, later = (range_tests.recalled(memo, replace(at_start, depth=depth)).curve for depth in (0, 2))
    assert later.losses[0] < first.losses[0] - 0.1
    assert memo.find(at_start.spec.chain()[1]) is not None


@pytest.mark.slow
def test_a_worker_runs_the_test_before_the_first_trial_and_another_one_if_it_dies(tmp_path):
    from lrstudy.ray_tune.adapter import AdmissionSearcher
    from lrstudy.ray_tune.slots import Node, Slots
    from lrstudy.ray_tune.trainable import RangeTestAssignment, TuneTrial

    few = ("search.trials=1", "search.cohort=1", "common.lr={found: valley, updates: 40}")
    plan, noted = study(tmp_path, SMALL, *few).plan()[0], journal(tmp_path)
    admission, slots = Admission(plan, Memo(tmp_path / "memo"), noted), Slots(noted, "cpu", 1.0)
    slots.sync([Node("", "h", 2)], 0.0)
    searcher = AdmissionSearcher(admission, plan.workload, str(tmp_path), None, slots)
    assert isinstance(searcher.suggest("one")["assignment"], RangeTestAssignment)
    assert searcher.suggest("two") is None, "there is nothing else to do yet"
    searcher.on_trial_complete("one", error=True)
    config = searcher.suggest("again")
    report = TuneTrial(config).step()
    assert report["spans"][-1][2:] == ["range_test", ""]
    searcher.on_trial_complete("again", report)
    trial = searcher.suggest("three")["assignment"]
    assert trial.spec.parameters["lr"] == next(noted.of_kind("found"))["rate"]
    assert admission.num_running == 1


@pytest.mark.slow
def test_a_test_of_a_stage_that_trains_the_head_computes_the_features_first(tmp_path):
    stages = "arms={two: {stages: [{train: head, epochs: 2, policy: constant}, {train: all, policy: constant}]}}"
    plan, memo = study(tmp_path, SMALL, stages).plan()[0], Memo(tmp_path / "memo")
    trainer = Serial(plan, tmp_path / "runs").trainers[0]
    test = range_tests.of_arm(plan, "two", RangeQuestion(updates=8))
    assert test.passes[0].recipe.input == "features"
    spans = range_tests.measure(test, plan.workload, memo, lambda: trainer)
    assert {"features", "range_test"} <= {span.category for span in spans}
    later = replace(test, depth=2)
    assert later.passes[0].recipe.input == "images"
    range_tests.measure(later, plan.workload, memo, lambda: trainer)
    assert len(range_tests.recalled(memo, later).curve.losses) == 8
