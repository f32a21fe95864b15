"""What lies in the cells of tables and arrays: labels, groups and parts, decided for all rows at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrstudy.data.cells import POOL, TEST, VALIDATION, as_text, labels_of, parts_of
from lrstudy.errors import InputError


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ([0, 1, True, np.int64(2), 3.0, np.float32(1)], [0, 1, 1, 2, 3, 1]),
        (["a", np.str_("b")], ["a", "b"]),
        (["a|b", "b", ""], [("a", "b"), ("b",), ()]),
        ([[0, 1], [1, 0], [1, 1]], [("1",), ("0",), ("0", "1")]),
        ([[0.0, 1.0], np.array([True, False])], [("1",), ("0",)]),
        ([["a", "b"], [], ["No Finding"], ["b", "b"]], [("a", "b"), (), (), ("b",)]),
        ([[3, 5], [1]], [("3", "5"), ("1",)]),
        ([[0] * 11, [0] * 10 + [1]], [(), ("10",)]),
    ],
)
def test_labels_are_numbers_names_or_several(rows, labels):
    assert labels_of(rows, "data: d") == labels


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([1, None], "data: d, row 1: expected a label, a whole number or a name; got none."),
        ([1.0, math.nan], "data: d, row 1: expected a label, a whole number or a name; got none."),
        ([1, 1.5], "data: d, row 1: expected a label, a whole number or a name; got 1.5."),
        ([1, "a"], "data: d: expected all numbers or all names; got 1 in row 0, 'a' in row 1."),
        ([{}, 1], "data: d, row 0: expected a label, a whole number or a name; got {}."),
        ([[1, 0], None], "data: d, row 1: expected a list of labels as in other rows; got None."),
        (
            [[1, 0], [0, 1], [1]],
            "data: d, row 2: expected 2 values of 0 or 1, one for each label, as in other rows; got 1.",
        ),
        ([["a"], ["b", None]], "data: d, row 1: expected a label, a whole number or a name; got none."),
    ],
)
def test_a_row_that_does_not_fit_is_named(rows, fault):
    with pytest.raises(InputError) as caught:
        labels_of(rows, "data: d")
    assert str(caught.value).startswith(fault)


def test_a_patient_is_the_same_whatever_the_columns_type():
    assert [as_text(value) for value in (1, 1.0, np.float64(1), " p1 ", None, math.nan, True)] == [
        "1",
        "1",
        "1",
        "p1",
        "",
        "",
        "True",
    ]


def test_parts_have_many_names_and_a_column_means_them_or_something_else():
    assert parts_of(["Train", "valid", "dev", "TEST"], "d") == [POOL, VALIDATION, VALIDATION, TEST]
    assert parts_of(["north", "south"], "d") is None
    with pytest.raises(
        InputError,
        match="d: expected train, val or test in every row; got 'holdout', '' in 2 rows, the first of them row 1",
    ):
        parts_of(["train", "holdout", "", "test"], "d")
    with pytest.raises(InputError, match="expected train, val or test in every row"):
        parts_of(["north", "south"], "d", is_required=True)
