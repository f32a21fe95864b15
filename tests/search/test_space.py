from __future__ import annotations

import math

import pytest

from lrstudy.errors import InputError
from lrstudy.search.halton import spread
from lrstudy.search.parameter import Parameter, parse_parameter
from lrstudy.search.space import Space
from lrstudy.settings import canonical_json


def space(**specs: object) -> Space:
    return Space(tuple(parse_parameter(name, spec, name) for name, spec in specs.items()))


def values(spec: object) -> list[object]:
    return list(parse_parameter("p", spec, "p").values)


# --- reading a study file ---------------------------------------------------------------------------


def test_a_ladder_over_whole_decades_is_1_2_5():
    assert values({"log": [1e-4, 1e-1], "steps": 10}) == [*(1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)]


def test_other_ladders_are_geometric_linear_or_whole():
    assert values({"log": [1, 100], "steps": 5}) == [1.0, 3.16, 10.0, 31.6, 100.0]
    assert values({"uniform": [0, 1], "steps": 5}) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert values({"int": [1, 9], "steps": 5}) == [1, 3, 5, 7, 9]


def test_a_narrow_logarithmic_ladder_keeps_its_steps_apart():
    """Rounded to 3 digits the steps of `log: [0.999, 0.99999]` repeated, and the last left the range."""
    assert values({"log": [0.999, 0.99999], "steps": 4}) == [0.999, 0.9993, 0.9997, 0.99999]


def test_a_short_range_of_whole_numbers_is_finite():
    assert values({"int": [2, 5]}) == [2, 3, 4, 5]
    assert parse_parameter("p", {"int": [3, 3]}, "p").is_fixed
    assert values({"int": [1, 10**6]}) == []


@pytest.mark.parametrize(
    ("spec", "default"),
    [
        (0.9, 0.9),
        ({"choice": ["a", "b"]}, "a"),
        ({"ordered": [1, 2, 4]}, 2),
        ({"log": [1e-4, 1e-2], "steps": 3}, 1e-3),
        ({"uniform": [0, 4]}, 2.0),
        ({"uniform": [0, 4], "default": 1}, 1.0),
        ({"int": [2, 10], "default": 3.0}, 3),
        ({"choice": [0.5, 2.0], "default": 2}, 2.0),
    ],
)
def test_the_default_is_the_centre_or_what_was_given_with_the_type_of_the_range(spec, default):
    found = parse_parameter("p", spec, "p").default
    assert found == default
    assert type(found) is type(default)  # 3 and 3.0 are named differently


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"chioce": [1]}, "arms.a.p: unknown key 'chioce'. Did you mean 'choice'?"),
        (
            {"choice": [1], "log": [1, 2]},
            "exactly one of choice, ordered, uniform, log, int; got choice and log",
        ),
        ({"choice": []}, "arms.a.p.choice: expected a list of at least one value; got []"),
        ({"choice": [1, 1.0]}, "arms.a.p.choice: values repeat: [1, 1.0]"),
        ({"choice": [1], "steps": 2}, "only ranges (uniform, log, int) take steps"),
        ({"choice": [1, 2], "default": 3}, "arms.a.p.default: 3 is not among [1, 2]"),
        ({"choice": [1, 2], "default": True}, "arms.a.p.default: True is not among [1, 2]"),
        ({"uniform": [1]}, "arms.a.p.uniform: expected [low, high], two numbers; got [1]"),
        ({"uniform": [2, 1]}, "expected low < high, both finite; got [2, 1]"),
        ({"log": [0, 1]}, "arms.a.p.log: expected bounds above 0; got [0, 1]"),
        ({"int": [1, 2.5]}, "arms.a.p.int: expected whole numbers; got [1, 2.5]"),
        ({"int": [1, 3], "steps": 4}, "there are only 3 whole numbers for 4 steps"),
        ({"log": [1, 2], "steps": 1}, "arms.a.p.steps: expected a whole number >= 2; got 1"),
        ({"uniform": [0, 1], "default": 2}, "arms.a.p.default: expected a number in [0, 1]; got 2"),
        ({"uniform": [0, 1], "steps": 3, "default": 0.3}, "expected one of [0.0, 0.5, 1.0]; got 0.3"),
        (
            {"choice": [1, 2], "when": "mode"},
            "arms.a.p.when: expected a map from parameter to value; got 'mode'",
        ),
    ],
)
def test_a_fault_names_field_rule_and_value(spec, sentence):
    with pytest.raises(InputError) as caught:
        parse_parameter("p", spec, "arms.a.p")
    assert sentence in str(caught.value)


# --- codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        {"choice": [[0.5, 0.75], [0.5], None, True, 1]},
        {"log": [1e-4, 1e-1], "steps": 10},
        {"log": [1e-5, 3e-1]},
        {"uniform": [-1, 3]},
        {"int": [1, 5000]},
    ],
)
def test_decode_inverts_encode(spec):
    parameter = parse_parameter("p", spec, "p")
    for position in (0.0, 0.1, 0.5, 0.999, 1.0):
        value = parameter.at(position)
        found = parameter.decode(parameter.encode(value))
        assert canonical_json(found) == canonical_json(value)
        assert type(found) is type(value)


@pytest.mark.parametrize("kind", ["uniform", "log", "int"])
def test_the_ends_of_a_range_belong_to_it(kind):
    parameter = parse_parameter("p", {kind: [3, 5000]}, "p")
    assert parameter.at(0.0) == 3
    assert parameter.at(1.0) == 5000
    assert 3 <= parameter.decode(-0.1) <= parameter.decode(1.1) <= 5000


def test_a_value_outside_its_parameter_has_no_code():
    with pytest.raises(ValueError, match=r"p: expected one of \[1, 2\]; got True"):
        parse_parameter("p", {"choice": [1, 2]}, "p").encode(True)
    with pytest.raises(ValueError, match="expected"):
        parse_parameter("p", {"choice": [[1, 1], 2]}, "p").encode(True)
    with pytest.raises(ValueError, match=r"p: expected a number in \[0, 1\]; got 1.5"):
        parse_parameter("p", {"uniform": [0, 1]}, "p").encode(1.5)


# --- conditions -------------------------------------------------------------------------------------

FAMILY = space(
    child={"choice": [1, 2], "when": {"mode": "b", "depth": 2}},  # before its parents, as a file may have it
    mode={"choice": ["a", "b", "c"]},
    depth={"int": [1, 3], "when": {"mode": "b"}},
    rate={"log": [1e-3, 1e-1], "steps": 3},
    tail=0.5,
)


def test_inactive_parameters_are_absent_over_all_generations():
    point = {"mode": "b", "depth": 2, "child": 2, "rate": 0.1}
    assert FAMILY.complete(point) == {**point, "tail": 0.5}
    assert FAMILY.complete(point | {"depth": 1}) == {"mode": "b", "depth": 1, "rate": 0.1, "tail": 0.5}
    assert FAMILY.complete(point | {"mode": "a"}) == {"mode": "a", "rate": 0.1, "tail": 0.5}
    assert FAMILY.default() == {"mode": "a", "rate": 0.01, "tail": 0.5}


def test_a_configuration_keeps_the_order_of_the_file():
    full = FAMILY.complete({"mode": "b", "depth": 2})
    assert list(full) == ["child", "mode", "depth", "rate", "tail"]


def test_a_condition_on_null_does_not_hold_for_an_absent_parameter():
    """`when: {weights: null}` used to hold where `weights` itself did not exist."""
    family = space(
        mode={"choice": ["a", "b"]},
        weights={"choice": [None, "balanced"], "when": {"mode": "b"}},
        child={"choice": [1, 2], "when": {"weights": None}},
    )
    assert family.complete({"mode": "a"}) == {"mode": "a"}
    assert family.complete({"mode": "b"}) == {"mode": "b", "weights": None, "child": 1}


def test_the_grid_has_every_configuration_once_and_size_counts_it():
    grid = list(FAMILY.grid())
    assert len({canonical_json(point) for point in grid}) == len(grid) == FAMILY.size
    assert FAMILY.size == 3 * (1 + (1 + 1 + 2) + 1)  # rates x (a, b with depths 1, 3 and 2 x children, c)
    assert [point["rate"] for point in space(x={"choice": [1, 2]}, rate={"ordered": [3, 4]}).grid()] == [
        3,
        4,
    ] * 2


def test_a_continuous_range_has_no_grid_and_says_so_before_the_first_point():
    with pytest.raises(InputError, match="grid needs finite parameters, but lr is continuous"):
        space(lr={"log": [1e-4, 1e-1]}).grid()
    assert space(lr={"log": [1e-4, 1e-1]}).size == math.inf


def test_a_fixed_parent_passes_on_its_own_conditions():
    family = space(
        mode={"choice": ["a", "b"]},
        middle={"choice": [7], "when": {"mode": "b"}},
        child={"choice": [1, 2], "when": {"middle": 7}},
    )
    assert family.requirements("child") == {"mode": "b"}
    assert FAMILY.requirements("child") == {"mode": "b", "depth": 2}


def test_a_parameter_that_can_never_exist_is_not_searched():
    """A study that fixes `mode` must still be able to use the family's default space, and to grid it."""
    narrowed = space(mode="triangular", gamma={"log": [0.9, 0.99], "when": {"mode": "exp_range"}})
    assert narrowed.searched == ()
    assert narrowed.size == 1
    assert list(narrowed.grid()) == [{"mode": "triangular"}]
    torn = space(
        mode={"choice": ["a", "b"]},
        low={"choice": [1, 2], "when": {"mode": "a"}},
        child={"choice": [1, 2], "when": {"mode": "b", "low": 1}},
    )
    assert torn.requirements("child") is None


def test_impossible_conditions_are_faults_all_at_once():
    with pytest.raises(InputError) as caught:
        space(
            lr={"log": [1e-4, 1e-1]},
            mode="x",
            a={"choice": [1, 2], "when": {"mod": 0.1}},
            b={"choice": [1, 2], "when": {"lr": 0.1}},
        )
    assert len(caught.value.sentences) == 2
    assert "a.when: there is no parameter 'mod'. Did you mean 'mode'?" in str(caught.value)
    assert "b.when: lr is a continuous range" in str(caught.value)
    with pytest.raises(InputError, match=r"a.when: a, b depend on each other\."):
        space(a={"choice": [1, 2], "when": {"b": 1}}, b={"choice": [1, 2], "when": {"a": 1}})


@pytest.mark.parametrize(
    "configuration",
    [
        {"mode": "a", "rate": 0.1},  # the fixed value is missing
        {"mode": "a", "depth": 1, "rate": 0.1, "tail": 0.5},  # depth should not exist
        {"mode": "b", "rate": 0.1, "tail": 0.5},  # depth should exist
        {"mode": "a", "rate": 0.3, "tail": 0.5},  # not a value of the ladder
    ],
)
def test_what_is_not_a_configuration_of_the_space_has_no_codes(configuration):
    with pytest.raises(ValueError, match="expected"):
        FAMILY.encode(configuration)


def test_the_codes_of_a_configuration_give_it_back():
    for point in FAMILY.grid():
        assert FAMILY.decode(FAMILY.encode(point)) == point


# --- cohorts ----------------------------------------------------------------------------------------


def test_spread_starts_at_the_defaults_and_covers_the_range():
    parameters = space(lr={"log": [1e-4, 1e-1], "steps": 10}, wd={"choice": [0, 1e-4, 5e-4]}, m=0.9).parameters
    points = spread(parameters, 8)
    assert points[0] == {"lr": parameters[0].default, "wd": 0, "m": 0.9}
    assert len({canonical_json(point) for point in points}) == 8
    assert len({point["lr"] for point in points}) == 8  # of 10; an earlier sequence tried 4 of them again and again
    assert {point["wd"] for point in points} == {0, 1e-4, 5e-4}
    assert spread(parameters, 5) == points[:5]


def test_spread_is_the_halton_sequence():
    parameters = space(wd={"choice": [0, 1, 2]}, lr={"uniform": [0, 1]}).parameters
    points = [(point["lr"], point["wd"]) for point in spread(parameters, 6)]
    # lr has more values, so base 2: 1/2, 1/4, 3/4, 1/8, ...; wd base 3: (default), 2/3, 1/9, 4/9, 7/9, 2/9
    assert points == [(0.5, 0), (0.25, 2), (0.75, 0), (0.125, 1), (0.625, 2), (0.375, 0)]


def test_spread_repeats_points_only_when_there_are_no_others():
    parameters: list[Parameter] = list(space(a={"choice": [1, 2]}).parameters)
    assert spread(parameters, 5) == [{"a": 1}, {"a": 2}] * 2 + [{"a": 1}]
