"""The JSON Schema of study files, for editors: `python -m lrstudy.config.schema` writes study.schema.json anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrstudy.annotations import json_schema as schema_of
from lrstudy.config.common import COMMON, CommonParameter
from lrstudy.config.range_question import FOUND, RangeQuestion
from lrstudy.config.sections import StudyFile
from lrstudy.policies import TORCH, registry
from lrstudy.policies.base import parameter_names
from lrstudy.policies.parameters import hints
from lrstudy.policies.stages import Stage
from lrstudy.search import METHODS

FILE = Path(__file__).parents[1] / "study.schema.json"

_ANY = {"type": ["number", "string", "boolean", "null", "array"]}
_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_REFERENCE = r"\.py:[A-Za-z_]\w*$"


def json_schema() -> dict[str, Any]:
    """The schema as JSON values: what `config.load` checks, but for rules between fields."""
    schema = StudyFile.model_json_schema()
    parts, fields = schema["$defs"], schema["properties"]
    parts["Value"] = {"description": "A fixed value, or what to search.", **_value_or_space(_ANY)}
    parts |= {_value_name(parameter): schema_of(parameter.annotation) for parameter in COMMON.values()}
    parts["CommonConfig"]["properties"] = {name: _common(parameter) for name, parameter in COMMON.items()}
    parts |= {"Arm": _arm(), "Stage": _stage()}
    parts["RangeQuestion"] = RangeQuestion.model_json_schema() | {"required": [FOUND]}
    to_find = [{"const": FOUND}, {"$ref": "#/$defs/RangeQuestion"}]
    parts["CommonConfig"]["properties"]["lr"]["anyOf"] += to_find
    fields["arms"] = {
        "description": "A list of policies, or a map from arms to their parameters.",
        "anyOf": [
            {"type": "array", "items": {"enum": list(registry())}, "minItems": 1, "uniqueItems": True},
            {"type": "object", "additionalProperties": {"$ref": "#/$defs/Arm"}, "minProperties": 1},
        ],
    }
    # What a workload changes of a source need not name the source.
    parts["SourceChange"] = {key: value for key, value in parts["SourceConfig"].items() if key != "required"}
    of_change = json.dumps(parts["WorkloadConfig"]).replace("#/$defs/SourceConfig", "#/$defs/SourceChange")
    parts["WorkloadChange"] = json.loads(of_change)
    fields["workloads"] = {
        "description": "As many studies, each with what it changes of `workload`.",
        "type": "object",
        "additionalProperties": {"anyOf": [{"$ref": "#/$defs/WorkloadChange"}, {"type": "null"}]},
        "minProperties": 1,
    }
    one, several = {"enum": list(METHODS)}, {"type": "array", "minItems": 1, "uniqueItems": True}
    parts["SearchConfig"]["properties"]["method"] = {"anyOf": [one, {**several, "items": one}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "lrstudy study file"}


def render() -> str:
    """The text of study.schema.json."""
    return json.dumps(json_schema(), indent=1) + "\n"


def _value_or_space(value: Mapping[str, Any]) -> dict[str, Any]:
    """A value, or a space of such values: one of the domains, with steps, a default and conditions."""
    listed = {"type": "array", "items": value, "minItems": 1}
    domains = {"choice": listed, "ordered": listed, "uniform": _PAIR, "log": _PAIR, "int": _PAIR}
    space = {
        "type": "object",
        "properties": {
            **domains,
            "steps": {"type": "integer", "minimum": 2},
            "default": value,
            "when": {"type": "object"},
        },
        "additionalProperties": False,
        "oneOf": [{"required": [domain]} for domain in domains],
    }
    return {"anyOf": [value, space]}


def _common(parameter: CommonParameter) -> dict[str, Any]:
    """A common parameter: its meaning, its default and what its annotation says."""
    value = _value_or_space({"$ref": f"#/$defs/{_value_name(parameter)}"})
    return {"description": parameter.meaning, "default": parameter.default, **value}


def _value_name(parameter: CommonParameter) -> str:
    return f"one {parameter.name}"


def _arm() -> dict[str, Any]:
    """An arm: a policy with its parameters, or stages."""
    stages = {"anyOf": [{"const": "two"}, {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Stage"}}]}
    return _with_policy(
        "A policy with its parameters; a key left out has the policy's default space. Or `stages`.",
        ["object", "null"],
        {
            "stages": {"description": "Stages of the training, one after the other; `two` with sgdr_dlr.", **stages},
            "until": {"$ref": "#/$defs/BudgetConfig/properties/until"},
        },
    )


def _stage() -> dict[str, Any]:
    """A stage of an arm: a policy with its parameters, and what the stage trains."""
    of_stage = {name: _value_or_space(schema_of(annotation)) for name, annotation in hints(Stage).items()}
    described = _with_policy("A stage of the training: a policy with its parameters.", ["object"], of_stage)
    return described | {"required": ["train", "policy"]}


def _with_policy(description: str, types: list[str], others: Mapping[str, Any]) -> dict[str, Any]:
    """A policy of the catalogue with its parameters, beside `others`; those of a user's policy and of torch's have any names."""
    built_in = dict.fromkeys(name for policy in registry().values() for name in parameter_names(policy))
    common = {name: {"$ref": f"#/$defs/CommonConfig/properties/{name}"} for name in COMMON}
    value = {"$ref": "#/$defs/Value"}
    named = {"anyOf": [{"pattern": f"^{TORCH}"}, {"pattern": _REFERENCE}]}
    return {
        "description": description,
        "type": types,
        "properties": {
            "policy": {"type": "string", "anyOf": [{"enum": list(registry())}, *named["anyOf"]]},
            **dict.fromkeys(built_in, value),
            **common,
            **others,
        },
        "if": {"type": "object", "required": ["policy"], "properties": {"policy": named}},
        "then": {"additionalProperties": value},
        "else": {"propertyNames": {"enum": ["policy", *dict.fromkeys([*built_in, *common, *others])]}},
    }


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
