"""Numbers as a reader sees them."""

import math
from itertools import pairwise

import numpy as np
import pytest

from lrstudy_reports import formats
from lrstudy_reports.style import spread
from lrstudy_reports.traces import decimated


@pytest.mark.parametrize(
    ("largest", "label", "text"),
    [(2.7, "GPU-seconds", "2.70"), (700, "GPU-minutes", "11.7"), (36_000, "GPU-hours", "10.0")],
)
def test_the_unit_of_time_suits_the_largest(largest, label, text):
    unit = formats.time_unit("GPU-hours", [0.1, None, math.nan, largest])
    assert (unit.label, unit(largest)) == (label, text)


@pytest.mark.parametrize(("half", "decimals"), [(0.0044, 3), (0.010, 3), (0.0012, 4), (0.25, 2), (3.0, 2)])
def test_decimals_follow_the_half_width(half, decimals):
    assert formats.decimals_for([half]) == decimals


def test_numbers_have_true_minus_signs_and_the_sign_that_they_have():
    assert formats.fixed(-0.0049, 3, sign=True) == "\u22120.005"
    assert formats.fixed(-0.00009, 3, sign=True) == "\u2212<0.001"
    assert formats.fixed(0.00009, 3, sign=True) == "+<0.001"
    assert formats.fixed(0.00009, 3) == "<0.001"
    assert formats.fixed(-0.0, 3, sign=True) == formats.fixed(0.0, 3) == "0.000"
    assert formats.interval(-0.0001, 0.02, 3, sign=True) == "[\u2212<0.001, +0.020]"
    assert formats.fixed(None, 3) == formats.MISSING
    assert formats.significant(1234567) == "1.23e+06"
    assert formats.significant(0.0416) == "0.0416"


def test_a_column_of_times_has_one_number_of_decimals():
    assert formats.Unit("s", 1.0).column([117.9, -1e-13]) == ["117.9", "0.0"]
    assert formats.Unit("s", 1.0).column([117.9, 15.02, 1e-13]) == ["117.9", "15.0", "0.0"]


def test_a_configuration_shows_what_was_searched():
    values = {"lr": 0.05, "batch_size": 32, "mode": "exp_range"}
    assert formats.configuration(values, ["lr"]).split() == ["lr", "0.05"]
    assert formats.configuration(values, ["gone"]).split() == ["lr", "0.05,", "batch_size", "32,", "mode", "exp_range"]


def test_labels_are_moved_apart():
    moved = spread([0.50, 0.51, 0.52, 0.9], 0.05)
    assert all(b - a >= 0.05 - 1e-9 for a, b in pairwise(moved))
    assert moved[3] == pytest.approx(0.9)


def test_a_decimated_line_keeps_its_extremes_and_ends():
    y = np.sin(np.arange(10_000) / 7.0)
    y[1234] = 5.0
    x, kept = decimated(np.arange(10_000.0), y)
    assert len(x) <= 402
    assert kept.max() == 5.0
    assert (x[0], x[-1]) == (0, 9999)
