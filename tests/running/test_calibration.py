"""Calibrated cost: kinds of updates, measured once for a device and a workload, kept for every study of the storage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lrstudy.memo.memo import Memo
from lrstudy.running import calibration
from lrstudy.running.calibration import UpdateKind
from lrstudy.settings import Recipe, Settings
from lrstudy.training.trainer import Trainer
from serial import SMALL, Serial, study
from study_files import plan_of


def settings(batch: int = 20, lr: float = 0.1, **recipe) -> Settings:
    return Settings(np.full((4, 3), lr), np.array(0.9), batch, Recipe(**recipe))


def test_a_kind_is_what_changes_the_time_of_an_update_and_not_its_values():
    kind = UpdateKind.of(settings())
    assert UpdateKind.of(settings(lr=0.5, weight_decay=0.1, reset_optimizer=True, tail="drop")) == kind
    assert UpdateKind.of(settings(clip_norm=0.1)) == UpdateKind.of(settings(clip_norm=5.0))
    adam = UpdateKind.of(settings(optimizer="adam"))
    assert UpdateKind.of(settings(optimizer="adam", beta2=0.95, eps=1e-3)) == adam, "constants change no times"
    others = [
        settings(batch=40), settings(optimizer="adam"), settings(micro_batch=5), settings(norm_batch=10),
        settings(augment="flip"), settings(clip_norm=1.0), settings(trainable=(False, False, True)),
    ]  # fmt: skip
    assert len({kind.digest, *(UpdateKind.of(other).digest for other in others)}) == 1 + len(others)


class Clockwork:
    """A trainer by the clock: 0.1 s an epoch, 0.01 s an update and 0.001 s an example, 0.5 s an evaluation."""

    def __init__(self, workload) -> None:
        self.workload, self.trained = workload, 0

    def start(self, seed: int) -> None: ...

    def make_ready(self, settings: Settings) -> None: ...

    def train(self, settings: Settings, seed: int, epoch: int):
        from lrstudy.training.epoch import Evaluation
        from lrstudy.training.trainer import Trained

        self.trained += 1
        seconds = 0.1 + settings.num_updates * (0.01 + 0.001 * settings.batch_size)
        return Trained(1.0, Evaluation(1.0, {}), seconds, 0.5)


def test_prices_are_seconds_alone_times_what_a_trial_occupies(tmp_path):
    plan = plan_of("workload.subset=null", "resources.cpu=2")
    memo, kind = Memo(tmp_path / "memo"), UpdateKind.of(settings())
    trainer = Clockwork(plan.workload)
    assert calibration.update_cost(memo, plan.workload, kind) is None
    calibration.measure(trainer, memo, [kind])
    found = calibration.update_cost(Memo(tmp_path / "memo"), plan.workload, kind)
    assert found.device_s_per_update == pytest.approx(2 * 0.03)
    assert found.device_s_per_epoch == pytest.approx(2 * 0.1)
    assert found.device_s_per_evaluation == pytest.approx(2 * 0.5)
    half = replace(plan.workload, device="cuda", device_share=0.5)
    (path,) = Path(memo.location).glob("calibrations/*")
    path.rename(path.with_name(Path(calibration._path(half, kind)).name))
    assert calibration.update_cost(memo, half, kind).device_s_per_update == pytest.approx(0.03), (
        "alone, all of a GPU is used"
    )


def test_a_measurement_serves_every_study_of_the_same_shape_and_no_other(tmp_path):
    memo, kind = Memo(tmp_path / "memo"), UpdateKind.of(settings())
    plan = plan_of()
    calibration.measure(Clockwork(plan.workload), memo, [kind])
    same = plan_of("workload.split.seed=3", "name=other", "budget.epochs=9")
    assert calibration.unpriced(memo, same.workload, [kind]) == []
    for override in (
        "workload.model=resnet18",
        "workload.image.size=12",
        "workload.numerics.precision=bf16",
        "workload.subset=100",
    ):
        assert calibration.unpriced(memo, plan_of(override).workload, [kind]) == [kind], override


def test_the_first_measurement_stays_and_a_damaged_one_is_made_again(tmp_path):
    memo, kind, plan = Memo(tmp_path / "memo"), UpdateKind.of(settings()), plan_of()
    trainer = Clockwork(plan.workload)
    calibration.measure(trainer, memo, [kind])
    (path,) = Path(memo.location).glob("calibrations/*")
    before = path.read_bytes()
    calibration.measure(trainer, memo, [kind])
    assert path.read_bytes() == before
    stored = json.loads(before)
    stored["fact"]["update_s"] = 9.0
    path.write_text(json.dumps(stored))
    assert calibration.update_cost(memo, plan.workload, kind) is None, "its digest says that it is not what was written"
    calibration.measure(trainer, memo, [kind])
    assert path.read_bytes() == before


@pytest.mark.slow
def test_what_confirmed_trials_trained_with_is_measured_for_real(tmp_path):
    arms = "arms={constant: {batch_size: 20}, batch_increase: {milestones: [2], factor: 2, cap: null}}"
    adam = "arms.adam={policy: constant, batch_size: 30, optimizer: adam}"
    plan = study(tmp_path, SMALL, arms, adam).plan()[0]
    ran = Serial(plan, tmp_path / "runs")
    admission = ran.run()
    kinds = admission.kinds.to_measure(admission.trials.values())
    sizes = [(kind.batch_size, kind.recipe.optimizer) for kind in kinds]
    assert sorted(sizes) == [(20, "adam"), (20, "sgd"), (30, "adam"), (40, "sgd")], "of 80 by 30, the last batch has 20"
    assert calibration.unpriced(ran.memo, plan.workload, kinds) == kinds
    calibration.measure(Trainer(plan.workload), ran.memo, kinds)
    costs = [calibration.update_cost(ran.memo, plan.workload, kind) for kind in kinds]
    assert all(0 < cost.device_s_per_update < 10 and cost.device_s_per_evaluation > 0 for cost in costs)


def test_the_last_update_of_an_epoch_is_a_kind_of_its_own_if_its_size_differs():
    lr = np.full((4, 3), 0.1)
    of_64, dropping = Settings(lr, np.array(0.9), 64), Settings(lr, np.array(0.9), 64, Recipe(tail="drop"))
    assert UpdateKind.of_tail(of_64, 200).batch_size == 200 - 3 * 64
    assert UpdateKind.of_tail(of_64, 257).batch_size == 65, "a single example left joins the batch before it"
    assert UpdateKind.of_tail(of_64, 256) is None
    assert UpdateKind.of_tail(dropping, 300) is None
    assert UpdateKind.of_tail(of_64, 200).recipe == UpdateKind.of(of_64).recipe


def of_batches(phase: str, *sizes: int, num_examples: int = 1000, **recipe) -> SimpleNamespace:
    """A trial with one epoch for each batch size."""
    epochs = [
        Settings(np.full((-(-num_examples // size), 3), 0.1), np.array(0.9), size, Recipe(**recipe)) for size in sizes
    ]
    policy = SimpleNamespace(settings=lambda epoch, history, run: epochs[epoch])
    records = [SimpleNamespace(metrics={}, settings=settings.digest) for settings in epochs]
    return SimpleNamespace(phase=phase, records=records, spec=SimpleNamespace(build_policy=lambda: policy, run=None))


def test_what_is_measured_is_bounded_and_nothing_that_was_confirmed_is_left_out():
    sizes = [size for size in range(10, 510, 10) if 1000 % size == 0]
    tuned, confirmed = of_batches("tune", *sizes), of_batches("confirm", 40)
    kinds = calibration.Kinds(1000)
    assert sizes == [10, 20, 40, 50, 100, 200, 250, 500]
    assert [kind.batch_size for kind in kinds.used([tuned, confirmed])] == sizes
    assert [kind.batch_size for kind in kinds.to_measure([tuned])] == [10, 20, 50, 200, 500], "at even ratios"
    assert [kind.batch_size for kind in kinds.to_measure([tuned, confirmed])] == [10, 20, 40, 50, 200, 500]
    other = of_batches("tune", 300, optimizer="adam")
    assert [kind.batch_size for kind in kinds.to_measure([tuned, other])] == [10, 20, 50, 100, 200, 300, 500]


def test_an_epoch_of_a_single_smaller_batch_has_no_kind_of_full_batches():
    kinds = calibration.Kinds(100)
    assert [kind.batch_size for kind in kinds.used([of_batches("tune", 256, num_examples=100)])] == [100]


def test_what_was_not_measured_is_priced_between_its_neighbours(tmp_path):
    plan, memo = plan_of("workload.subset=null", "resources.cpu=1"), Memo(tmp_path / "memo")
    kinds = [UpdateKind.of(settings(batch=size)) for size in (20, 40, 60, 80)]
    other = UpdateKind.of(settings(batch=40, optimizer="adam"))
    calibration.measure(Clockwork(plan.workload), memo, [kinds[0], kinds[2], other])
    found = {cost.kind: cost for cost in calibration.prices(memo, plan.workload, [*kinds, other])}
    assert found[kinds[1]].device_s_per_update == pytest.approx(0.01 + 0.001 * 40)
    assert found[kinds[1]].device_s_per_evaluation == pytest.approx(0.5)
    assert [found[kind].source for kind in (*kinds[:3], other)] == ["measured", "interpolated", "measured", "measured"]
    assert kinds[3] not in found, "beyond the largest one nothing is known"


@pytest.mark.slow
def test_a_calibration_that_fails_leaves_the_study_and_says_why(tmp_path, monkeypatch):
    from lrstudy.ray_tune.adapter import AdmissionSearcher
    from lrstudy.ray_tune.slots import Slots
    from lrstudy.ray_tune.trainable import TuneTrial

    plan = study(tmp_path, SMALL, "arms=[constant]", "search.trials=1", "search.cohort=1").plan()[0]
    ran = Serial(plan, tmp_path / "runs")
    admission = ran.run()
    searcher = AdmissionSearcher(admission, plan.workload, "", None, Slots(ran.journal, "cpu", 1.0))
    config = searcher.suggest("one")

    def fails(*arguments):
        raise RuntimeError("the device fell asleep")

    monkeypatch.setattr(calibration, "measure", fails)
    searcher.on_trial_complete("one", TuneTrial(config).step())
    assert admission.notes == [
        "what updates cost alone on the device could not be measured (RuntimeError: the device fell asleep); the report takes the "
        "medians of what was recorded, and the next run tries again."
    ]
    assert [line["spans"][-1][2] for line in ran.journal.of_kind("spans")] == ["calibrate"], "its time is in the ledger"
    assert searcher.suggest("two") == searcher.FINISHED, "tried once"
    assert admission.unpriced(), "and again in the next run"


def test_what_a_confirmed_trial_trained_before_it_failed_has_a_price_too():
    """Reports price every recorded epoch of the confirm phase: one without a price sent all arms back to medians, for good."""
    plan = plan_of()
    arm = plan.arms["constant"]
    spec = plan.spec("t", arm, arm.space.default(), 0, True, {})
    record = SimpleNamespace(metrics={}, settings="s")
    trial = SimpleNamespace(phase="confirm", status="diverged", spec=spec, records=[record])
    kinds = calibration.Kinds(plan.workload.counts[0])
    assert [kind.batch_size for kind in kinds.to_measure([trial])] == [20]
