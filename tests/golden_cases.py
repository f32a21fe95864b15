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
_ROW = re.compile(r"^\| `(\w+)` \| `([^`]*)` \| `([^`]+)` \|$", re.MULTILINE)


def canonical() -> dict[str, tuple[str, dict[str, Any]]]:
    """Golden case -> policy and parameters, as a reader of the docs finds them."""
    yaml = YAML(typ="safe", pure=True)
    rows = _ROW.findall((ROOT / "docs" / "policies.md").read_text())
    return {
        case: (policy, {key: yaml.load(value) for key, _, value in (p.partition("=") for p in parameters.split())})
        for policy, parameters, case in rows
    }
