"""What a probe measures: the fastest of some tries, without the time that other programs took."""

from __future__ import annotations

import time
from collections import Counter
from types import SimpleNamespace

import pytest

from lrstudy.running import probe_cost
from lrstudy.running.forecast import EpochKind
from lrstudy.training.epoch import train_epoch
from lrstudy.training.timing import Timed
from serial import SMALL, study


@pytest.fixture
def timed(monkeypatch):
    """A function that probes with tries of such seconds per update, each on a core of which it has `share`."""
    clock = SimpleNamespace(wall=0.0, cpu=0.0)
    monkeypatch.setattr(
        probe_cost, "time", SimpleNamespace(monotonic=lambda: clock.wall, thread_time=lambda: clock.cpu)
    )

    def run(updates_s, share=1.0, lasts_s=2.0):
        tries = iter(updates_s)

        def measure():
            clock.wall += lasts_s
            clock.cpu += share * lasts_s
            return Timed(next(tries), 0.5, 4.0)

        found = probe_cost._fastest(measure)
        return *found, len(updates_s) - len(list(tries))

    return run


def test_a_probe_tries_until_the_two_fastest_agree_and_takes_the_fastest(timed):
    """One try, with caches cold or beside another program, was the forecast: it varied by a factor of four."""
    assert timed([5.0, 2.04, 3.0, 2.0, 1.0]) == (Timed(2.0, 0.5, 4.0), 1.0, 4)
    assert timed([2.0, 2.05, 1.0])[2] == 2
    assert timed([6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5])[2] == 6, "tries come to an end"
    assert timed([6.0, 5.0, 4.0, 3.0], lasts_s=15.0)[2] == 2, "and long ones sooner"


def test_it_is_known_which_part_of_the_time_other_programs_had(timed):
    assert timed([2.0, 2.0], share=0.5) == (Timed(2.0, 0.5, 4.0), 0.5, 2)


@pytest.mark.slow
def test_on_a_cpu_time_does_not_pass_while_another_program_runs(tmp_path, monkeypatch):
    """The system lets this thread run for a quarter of the time."""
    plan = study(tmp_path, SMALL).plan()[0]
    alone = probe_cost.probe(plan, Counter({EpochKind(20, 4): 1}))
    monkeypatch.setattr("lrstudy.training.trainer.train_epoch", _slowly(train_epoch))
    beside = probe_cost.probe(plan, Counter({EpochKind(20, 4): 1}))
    assert beside.per_update_s[20] < 2 * alone.per_update_s[20]
    assert beside.running < 0.5


def _slowly(function):
    """The function, after each call of which this thread is kept from running for three times as long."""

    def slowly(*arguments):
        begin = time.monotonic()
        result = function(*arguments)
        time.sleep(3 * (time.monotonic() - begin))
        return result

    return slowly


@pytest.mark.slow
def test_a_probe_times_the_batches_that_will_be_trained_and_weighs_a_state(tmp_path):
    plan = study(tmp_path, SMALL).plan()[0]
    told = []
    timing = probe_cost.probe(plan, Counter({EpochKind(20, 4): 10, EpochKind(40, 2): 5}), told.append)
    assert set(timing.per_update_s) == {20, 40}
    assert all(0 < seconds < 10 for seconds in (*timing.per_update_s.values(), timing.evaluation_s))
    assert (timing.source, timing.count) == ("measured", 2)
    assert 0 < timing.running <= 1
    assert told == [
        "opening the data and building small_cnn",
        "timing updates of 20 examples (1 of 2)",
        "timing updates of 40 examples (2 of 2)",
    ]
    model = 4 * 21_578  # float32 weights, and as many numbers of momentum
    assert 2 * model < timing.state_bytes < 3 * model
