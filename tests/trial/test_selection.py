"""Which epoch is judged and tested."""

from __future__ import annotations

import pytest

from lrstudy.trial.selection import FINAL, Selection
from memo_records import record

NONE = float("nan")


def records(*values: float):
    return [
        record(epoch, metrics={"val_loss": 1.0} if value != value else {"val_loss": 1.0, "val_accuracy": value})
        for epoch, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ((0.1, 0.4, 0.3), 1),
        ((0.4, 0.1, 0.4), 0),  # of equal ones the first
        ((0.1, NONE, 0.05), 0),
        ((NONE, NONE, NONE), 2),  # undefined everywhere
        ((0.0, 0.0), 0),
    ],
)
def test_best_is_the_first_epoch_with_the_highest_validation_metric(values, best):
    assert Selection("best", "accuracy").epoch(records(*values)) == best


@pytest.mark.parametrize(
    ("ends", "num_epochs", "selected"),
    [((1, 3, 7), 7, 6), ((1, 3, 7), 6, 2), ((2,), 5, 1), ((), 5, 4), ((7,), 5, 4)],
)
def test_last_cycle_is_the_end_of_the_last_completed_one_else_the_last_epoch(ends, num_epochs, selected):
    falling = records(*(1 - epoch / 10 for epoch in range(num_epochs)))
    assert Selection("last_cycle", "accuracy").epoch(falling, ends) == selected


def test_final_is_the_last_epoch_whatever_was_measured():
    assert FINAL.epoch(records(0.9, 0.1), (1,)) == 1
