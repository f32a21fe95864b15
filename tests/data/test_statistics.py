"""Notes on a data set before anything is trained."""

from __future__ import annotations

import numpy as np
import pytest

from lrstudy.data.statistics import Statistics


def statistics(validation: tuple[int, ...], test: tuple[int, ...]) -> Statistics:
    counts = {"train": (90, 80, 70), "validation": validation, "test": test}
    totals = {part: int(np.sum(of_part)) for part, of_part in counts.items()}
    return Statistics(("ant", "bee", "cat"), totals, counts, False, 0, 8, 1)


@pytest.mark.parametrize(
    ("validation", "test", "said"),
    [
        ((5, 9, 9), (5, 9, 9), []),
        ((4, 9, 2), (9, 9, 9), ["The validation part has fewer than 5 examples of some classes (cat 2, ant 4): by a"]),
        (
            (9, 9, 9),
            (1, 9, 9),
            ["The test part has fewer than 5 examples of some classes (ant 1): by a mean over classes"],
        ),
        ((0, 9, 9), (9, 9, 9), ["In the validation part ant cannot be ranked"]),
    ],
)
def test_parts_with_a_few_examples_of_a_class_are_warned_about(
    validation: tuple[int, ...], test: tuple[int, ...], said: list[str]
) -> None:
    notes = list(statistics(validation, test).notes())
    assert len(notes) == len(said)
    for note, beginning in zip(notes, said, strict=True):
        assert note.startswith(beginning)
