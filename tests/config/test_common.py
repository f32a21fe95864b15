"""The table of common parameters, and what derives from it."""

from __future__ import annotations

from dataclasses import fields

import pytest

from lrstudy.annotations import reader
from lrstudy.config.common import COMMON, OF_POLICIES, documentation, is_left_out, recipe_faults
from lrstudy.config.schema import json_schema
from lrstudy.config.sections import CommonConfig
from lrstudy.policies.base import Policy, parameter_names
from lrstudy.search.parameter import parse_parameter
from lrstudy.settings import Recipe


def test_every_common_parameter_is_one_of_policies_or_a_field_of_the_recipe():
    assert parameter_names(Policy) == ("lr", "batch_size", "momentum")
    assert set(OF_POLICIES) == set(parameter_names(Policy))
    assert set(COMMON) - set(OF_POLICIES) < {field.name for field in fields(Recipe)}


@pytest.mark.parametrize("name", COMMON)
def test_the_default_of_a_common_parameter_is_one_that_it_may_have(name):
    parameter = parse_parameter(name, COMMON[name].default, name)
    for value in parameter.values:
        reader(COMMON[name].annotation)(value)


@pytest.mark.parametrize("name", COMMON)
def test_study_file_schema_and_documentation_have_every_common_parameter(name):
    assert getattr(CommonConfig(), name) == COMMON[name].default
    described = json_schema()["$defs"]["CommonConfig"]["properties"][name]
    assert (described["description"], described["default"]) == (COMMON[name].meaning, COMMON[name].default)
    assert f"| `{name}` |" in documentation()


def test_defaults_are_not_shared_between_study_files():
    CommonConfig().lr["steps"] = 3
    assert CommonConfig().lr == COMMON["lr"].default == {"log": [1e-3, 1.0], "steps": 10}


def test_a_configuration_lacks_what_is_optional_and_left_at_its_default():
    assert is_left_out("clip_norm", None)
    assert is_left_out("optimizer", "sgd")
    assert not is_left_out("optimizer", {"choice": ["sgd"]})
    assert not is_left_out("weight_decay", 5e-4), "every configuration has one"
    assert not is_left_out("gamma", None), "no common parameter"


@pytest.mark.parametrize(
    ("configuration", "sentences"),
    [
        ({"weight_decay": 1}, ["weight_decay: expected a number in [0, 1); got 1."]),
        (
            {"optimizer": "adan"},
            [
                "optimizer: expected sgd, adam, adamw, rmsprop or rmsprop_keras; got 'adan'. Did you mean 'adam' or 'adamw'?"
            ],
        ),
        (
            {"optimizer": "adan", "beta2": 0.9},
            [
                "optimizer: expected sgd, adam, adamw, rmsprop or rmsprop_keras; got 'adan'. Did you mean 'adam' or 'adamw'?"
            ],
        ),
        ({"beta2": 0.9}, ["beta2: expected it only with an optimizer that has it (adam, adamw); got optimizer sgd."]),
        (
            {"optimizer": "adam", "nesterov": True},
            ["nesterov: expected it only with optimizer sgd; got optimizer adam."],
        ),
        ({"momentum": 0, "nesterov": True}, ["nesterov: expected a momentum above 0 with it; got 0."]),
        ({"norm_batch": "initial", "micro_batch": 8, "tail": "drop"}, []),
        ({"lr": -1}, []),
    ],
)
def test_a_recipe_is_checked_value_by_value_and_together(configuration, sentences):
    """Those of policies are checked where a policy is built."""
    assert list(map(str, recipe_faults(configuration))) == sentences
