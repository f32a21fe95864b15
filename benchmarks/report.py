"""A report of 10,000 trials x 30 epochs: time and memory, against fixed limits."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import HERE, Row, in_turn
from benchmarks.study import last_json
from benchmarks.tables import limit

TITLE = "the report of a large study"
NOTES = (
    "Against fixed limits: the ratio is the limit over what was measured. Five arms of 2,000 trials x 30 epochs and 25 confirmed ones, in a",
    "process of its own, from its start to the page on disk. The engine has written the tables of a training that is prescribed.",
)
_LARGE = (
    "search.method=random",
    "search.trials=2000",
    "search.cohort=8",
    "budget.epochs=30",
    "common.lr={log: [0.001, 1.0]}",
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
    sys.path.insert(0, str(HERE.parent / "tests"))
    from prescribed import run_study
    from report_studies import FULL

    with tempfile.TemporaryDirectory(prefix="lrstudy-bench-") as folder:
        study = run_study(Path(folder), FULL, *_LARGE)
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
