"""The stopwatch of updates."""

from __future__ import annotations

import pytest

from lrstudy.training.timing import _time_stretches


class Device:
    """It takes 1 ms an update and 0.5 ms an epoch, and twice that while it is cold."""

    def __init__(self, num_cold: int) -> None:
        self.calls, self.num_cold = 0, num_cold

    def train(self, num_updates: int) -> float:
        self.calls += 1
        return (0.0005 + 0.001 * num_updates) * (2 if self.calls <= self.num_cold else 1)


def test_a_cold_start_does_not_decide_what_an_update_costs_where_an_epoch_is_short():
    """Three repeats of 18 updates were over before the device was warm: 16 cost 29% too much, measured first."""
    device = Device(num_cold=6)
    assert _time_stretches(device.train, 18, stretch_s=0.2) == pytest.approx((0.001, 0.0005))
    assert device.calls < 60, "it ends"


def test_long_updates_are_not_repeated_for_longer_than_needed():
    device = Device(num_cold=0)
    _time_stretches(device.train, 1000, stretch_s=0.01)
    assert device.calls == 2 + 2 * 3, "warm-up, and three repeats of two lengths"
