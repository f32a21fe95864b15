"""The golden trajectories and the table of docs/policies.md that maps study-file policies to them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case for case in json.loads((ROOT / "tests/golden/golden_policies.json").read_text())["cases"]
}
LEFT_OUT = {"lr_range_test_linear", "lr_range_test_exp_fastai07", "mishra_two_stage", "schedule_free_sgd"}
_ROW = re.compile(r"^\| `(\w+)` \| `([^`]*)` \| `([^`]*)` \| `([^`]+)` \|$", re.MULTILINE)
_NO_PARAMETER = ("N", "note", "status", "twin_batches")


def rows() -> list[tuple[str, str, str, str]]:
    """The rows of the docs' table: policy and parameters of a study file, canonical ones, golden case."""
    return _ROW.findall((ROOT / "docs" / "policies.md").read_text())


def canonical_words(case: dict[str, Any]) -> str:
    """Policy and parameters as the golden file names them."""
    words = {key: value for key, value in case["params"].items() if key not in _NO_PARAMETER}
    return " ".join([case["policy"], *(f"{k}={json.dumps(v, separators=(',', ':'))}" for k, v in words.items())])


def canonical() -> dict[str, tuple[str, dict[str, Any]]]:
    """Golden case -> policy and parameters, as a reader of the docs finds them."""
    yaml = YAML(typ="safe", pure=True)
    return {
        case: (policy, {key: yaml.load(value) for key, _, value in (p.partition("=") for p in parameters.split())})
        for policy, parameters, _, case in rows()
    }
