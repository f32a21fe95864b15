"""Measuring in turn, ratios with their spread, and the table of results."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TypeVar

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
REPEATS = 5
T = TypeVar("T")
_PACKAGES = ("lrstudy", "torch", "torchvision", "ray", "numpy", "pyarrow", "obstore")


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, the two things and how long each took (or what it cost), and their ratio.

    `ratio` is the median over repeats of other / ours (how many times better ours is), `low` and `high` the extremes.
    `target` is what the ratio should reach; None where there is none.
    """

    what: str
    ours: str
    other: str
    ratio: float
    low: float
    high: float
    repeats: int
    target: float | None = None

    @property
    def is_met(self) -> bool | None:
        return None if self.target is None else self.ratio >= self.target


def in_turn(variants: Mapping[str, Callable[[], T]], repeats: int = REPEATS) -> dict[str, list[T]]:
    """What each variant returns, `repeats` times, all variants in every round, each round beginning with another."""
    names = list(variants)
    found: dict[str, list[T]] = {name: [] for name in names}
    for number in range(repeats):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(variants[name]())
    return found


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """A variant that returns the wall seconds of `work`."""

    def measure() -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return measure


def compared(
    what: str, ours: Sequence[float], other: Sequence[float], unit: str = "s", target: float | None = None
) -> Row:
    """A row of two series that were measured in turn."""
    ratios = [b / a for a, b in zip(ours, other, strict=True)]
    return Row(
        what,
        shown(median(ours), unit),
        shown(median(other), unit),
        median(ratios),
        min(ratios),
        max(ratios),
        len(ratios),
        target,
    )


def shown(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"
    return f"{value:.3g} {unit}".strip()


def machine() -> dict[str, object]:
    """Where and with what the figures were measured."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "measured": time.strftime("%Y-%m-%d"),
        **{name: version(name) for name in _PACKAGES},
    }


def keep(name: str, title: str, notes: Sequence[str], rows: Sequence[Row], where: Mapping[str, object]) -> None:
    """Put one benchmark's result into results.json and write README.md anew."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = {
        "title": title,
        "notes": list(notes),
        "machine": dict(where),
        "rows": [asdict(row) for row in rows],
    }
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1, ensure_ascii=False) + "\n")
    (HERE / "README.md").write_text(render(results))


def render(results: Mapping[str, dict]) -> str:
    """README.md: a table for each benchmark, with what it was measured on."""
    lines = [
        "# Benchmarks",
        "",
        "Every figure is a ratio of two things measured in turn in the same run, the median over repeats with the lowest and highest.",
        "A ratio above 1 means that ours is that many times faster or cheaper. `make bench` measures them all anew;",
        "`python -m benchmarks loop memo` only some. results.json holds the numbers.",
    ]
    for name, result in sorted(results.items()):
        where = result["machine"]
        lines += ["", f"## {name}: {result['title']}", "", *result["notes"], ""]
        lines += ["| what | ours | against | ratio | spread | target |", "|---|---|---|---|---|---|"]
        for stored in result["rows"]:
            row = Row(**stored)
            target = "" if row.target is None else f">= {row.target:g}, {'met' if row.is_met else 'NOT met'}"
            spread = f"{row.low:.3g} to {row.high:.3g} ({row.repeats})"
            lines.append(f"| {row.what} | {row.ours} | {row.other} | {row.ratio:.3g} | {spread} | {target} |")
        versions = ", ".join(f"{package} {where[package]}" for package in _PACKAGES if package in where)
        lines += [
            "",
            f"{where['cpu']}, {where['cores']} cores; Python {where['python']}, {versions}; {where['measured']}.",
        ]
    return "\n".join(lines) + "\n"
