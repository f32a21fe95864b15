"""python -m benchmarks [NAME ...] [--repeats N]: measure some benchmarks, or all."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from benchmarks import harness

NAMES = (
    "loop",
    "sharing",
    "scheduling",
    "scale",
    "memo",
    "tables",
    "report",
    "streaming",
    "freed_memory",
    "study",
    "short",
    "controller",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; none: all")
    parser.add_argument("--repeats", type=int, default=harness.REPEATS)
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in NAMES]:
        parser.error(f"there is no benchmark {unknown[0]!r}; valid: {', '.join(NAMES)}")
    for name in given.names or NAMES:
        module = import_module(f"benchmarks.{name}")
        where = harness.machine()
        rows = module.run(given.repeats)
        harness.keep(name, module.TITLE, module.NOTES, rows, where)
        for row in rows:
            print(
                f"{name}: {row.what}: {row.ours} against {row.other}, x{row.ratio:.3g} [{row.low:.3g}, {row.high:.3g}]",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
