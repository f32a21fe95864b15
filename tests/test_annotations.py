"""One reading of annotations, for study files and for the parameters of policies."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field

from lrstudy.annotations import Rule, description, either, has_metadata, json_schema, names, reader
from lrstudy.policies.durations import DURATION, Duration

Count = Annotated[int, Field(ge=1, description="a whole number of at least 1")]
Even = Annotated[int, Rule("an even number", lambda value: value % 2 == 0)]
REFUSED = object()


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (float, 2, 2.0),
        (float, np.float32(0.5), 0.5),
        (float, Fraction(1, 2), 0.5),
        (float, True, REFUSED),
        (float, "0.1", REFUSED),
        (float, math.inf, REFUSED),
        (float, math.nan, REFUSED),
        (int, np.int64(3), 3),
        (int, 3.0, REFUSED),
        (int, True, REFUSED),
        (bool, True, True),
        (bool, 1, REFUSED),
        (str, "a", "a"),
        (str, 1, REFUSED),
        (Count, 1, 1),
        (Count, 0, REFUSED),
        (Even, 2, 2),
        (Even, 3, REFUSED),
        (Even | None, None, None),
        (Literal["keep", "drop"], "keep", "keep"),
        (Literal["keep", "drop"], "cut", REFUSED),
        (tuple[float, ...], [1, 2.5], (1.0, 2.5)),
        (list[int], [1, 2], (1, 2)),
        (tuple[Duration, ...], ["50%", 3], ("50%", 3)),
        (tuple[float, ...], 1.0, REFUSED),
        (tuple[float, ...], [1.0, "a"], REFUSED),
        (float | tuple[float, ...], [0.1], (0.1,)),
        (Duration, "100/7%", "100/7%"),
        (Duration, 3, 3),
        (Duration, 2.5, 2.5),
        (Duration, "half", REFUSED),
        (Duration, -1, REFUSED),
        (Duration, True, REFUSED),
        (Duration | None, None, None),
    ],
)
def test_a_value_is_read_or_refused_but_never_repaired(annotation, value, expected):
    if expected is REFUSED:
        with pytest.raises(ValueError):
            reader(annotation)(value)
        return
    read = reader(annotation)(value)
    assert (read, type(read)) == (expected, type(expected))


def test_a_rule_is_asked_with_a_value_of_the_right_type_alone():
    asked: list[Any] = []
    rule = Rule("anything", lambda value: asked.append(value) or True)
    with pytest.raises(ValueError):
        reader(Annotated[float, rule])("a")
    assert reader(Annotated[float, rule])(2) == 2.0
    assert asked == [2.0]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (float, "a number"),
        (Count, "a whole number of at least 1"),
        (Even | None, "an even number or null"),
        (Annotated[Duration, Rule("a duration above 0", lambda value: value)], "a duration above 0"),
        (Literal["a", "b", "c"], "a, b or c"),
        (tuple[Count, ...], "a list of which each is a whole number of at least 1"),
        (float | tuple[float, ...], "a number or a list of which each is a number"),
        (Duration, "a duration, like 4, '25%' or '2000u'"),
    ],
)
def test_an_annotation_says_what_it_expects(annotation, words):
    assert description(annotation) == words


def test_null_is_left_out_where_a_key_may_be_left_out():
    assert description(Count | None, says_null=False) == "a whole number of at least 1"


def test_the_names_of_an_annotation_are_those_that_it_lists():
    assert names(Literal["keep", "drop"] | None) == ("keep", "drop")
    assert names(float) == ()
    assert either(["a"]) == "a"


def test_a_duration_is_known_by_its_rule():
    assert has_metadata(Duration, DURATION)
    assert has_metadata(Duration | None, DURATION)
    assert has_metadata(Annotated[Duration, Rule("a duration above 0", lambda value: value)], DURATION)
    assert not has_metadata(int | float | str, DURATION)
    assert not has_metadata(tuple[Duration, ...], DURATION), "a list of durations is none"


def test_types_of_an_author_pass_where_pydantic_cannot_check_them():
    class Opaque:
        pass

    value = Opaque()
    assert reader(Opaque)(value) is value


def test_bounds_reach_the_json_schema():
    schema = json_schema(Annotated[float, Field(gt=0, description="a number above 0")])
    assert (schema["type"], schema["exclusiveMinimum"]) == ("number", 0)
