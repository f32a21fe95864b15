"""The JSON Schema of study files, for editors: `python -m lrstudy.config.schema` writes study.schema.json anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lrstudy.config.sections import StudyFile
from lrstudy.policies import registry
from lrstudy.policies.base import parameter_names
from lrstudy.search import METHODS

FILE = Path(__file__).parents[1] / "study.schema.json"

_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_LIST = {"type": "array", "minItems": 1}
_DOMAINS = {"choice": _LIST, "ordered": _LIST, "uniform": _PAIR, "log": _PAIR, "int": _PAIR}
_VALUE = {
    "description": "A fixed value, or what to search: choice, ordered, uniform, log or int.",
    "anyOf": [
        {"type": ["number", "string", "boolean", "null", "array"]},
        {
            "type": "object",
            "properties": {
                **_DOMAINS,
                "steps": {"type": "integer", "minimum": 2},
                "default": {},
                "when": {"type": "object"},
            },
            "additionalProperties": False,
            "oneOf": [{"required": [domain]} for domain in _DOMAINS],
        },
    ],
}


def json_schema() -> dict[str, Any]:
    """The schema as JSON values: what `config.load` checks, but for rules between fields."""
    schema = StudyFile.model_json_schema()
    parts, fields = schema["$defs"], schema["properties"]
    parts["Value"] = _VALUE
    parts["Arm"] = _arm()
    for name, described in parts["Common"]["properties"].items():
        if name != "optimizer":
            parts["Common"]["properties"][name] = {
                "$ref": "#/$defs/Value",
                **{key: described[key] for key in ("default",) if key in described},
            }
    fields["arms"] = {
        "description": "A list of policies, or a map from arms to their parameters.",
        "anyOf": [
            {"type": "array", "items": {"enum": list(registry())}, "minItems": 1, "uniqueItems": True},
            {"type": "object", "additionalProperties": {"$ref": "#/$defs/Arm"}, "minProperties": 1},
        ],
    }
    one, several = {"enum": list(METHODS)}, {"type": "array", "minItems": 1, "uniqueItems": True}
    parts["Search"]["properties"]["method"] = {"anyOf": [one, {**several, "items": one}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "lrstudy study file"}


def render() -> str:
    """The text of study.schema.json."""
    return json.dumps(json_schema(), indent=1) + "\n"


def _arm() -> dict[str, Any]:
    names = dict.fromkeys(name for policy in registry().values() for name in parameter_names(policy))
    value = {"$ref": "#/$defs/Value"}
    common = dict.fromkeys(("weight_decay", "nesterov", "clip_norm"), value)
    return {
        "description": "A policy with its parameters; a key left out has the policy's default space.",
        "type": ["object", "null"],
        "properties": {"policy": {"enum": list(registry())}, "optimizer": {"const": "sgd"}, **common}
        | dict.fromkeys(names, value),
        "additionalProperties": False,
    }


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
