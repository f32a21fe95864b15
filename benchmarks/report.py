"""A report of 10,000 trials x 30 epochs: time and memory, against fixed limits."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import HERE, Row, in_turn
from benchmarks.study import last_json
from benchmarks.tables import limit

TITLE = "the report of a large study"
NOTES = (
    "Against fixed limits: the ratio is the limit over what was measured. Five arms of 2,000 trials x 30 epochs and 25 confirmed ones, in a",
    "process of its own, from its start to the page on disk. The tables are those that the reports' tests make up, in that size.",
)
_REPORT_S, _REPORT_MB = 30.0, 2000.0
_BUILD = """
import json, sys, time
begin = time.perf_counter()
import lrstudy_reports
lrstudy_reports.build(sys.argv[1])
seconds = time.perf_counter() - begin
most = next(int(line.split()[1]) / 1e3 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "megabytes": most}))
"""


def run(repeats: int) -> list[Row]:
    made_up = _made_up()
    with tempfile.TemporaryDirectory(prefix="lrstudy-bench-") as folder:
        study = made_up.write_study(
            Path(folder) / "large", made_up.Plan(searchers=("random",), trials=2000, cohort=8, epochs=30)
        )
        found: list[dict[str, float]] = []

        def build() -> float:
            done = subprocess.run(
                [sys.executable, "-c", _BUILD, str(study)], capture_output=True, text=True, check=True
            )
            found.append(last_json(done.stdout))
            return found[-1]["seconds"]

        seconds = in_turn({"report": build}, repeats)["report"]
    return [
        limit("time of a report", seconds, _REPORT_S),
        limit("memory of a report", [one["megabytes"] for one in found], _REPORT_MB, "MB"),
    ]


def _made_up() -> Any:
    """The module that makes up studies for the tests of reports."""
    path = HERE.parent / "tests" / "reports" / "conftest.py"
    spec = importlib.util.spec_from_file_location("made_up_studies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
