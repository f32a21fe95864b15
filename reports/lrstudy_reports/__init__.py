"""lrstudy_reports turns the Parquet tables of a study folder into statistics, figures and a page.

Needs neither torch nor ray nor lrstudy. Importing this package is cheap; pandas, scipy and matplotlib
are imported when a function is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["answer", "answer_of_workloads", "build", "build_workloads", "is_decided", "summary"]


def build(path: str | Path) -> Path:
    """Write the tables and the page of a report into the study folder `path`; return the path of `index.html`.

    May be called at any time during a run: an unfinished study gives an interim report. Files are replaced
    atomically, and the same tables always give the same bytes. Raises ValueError if `path` holds no study or
    a table cannot be read.
    """
    from lrstudy_reports.building import build_report

    return build_report(Path(path))


def build_workloads(path: str | Path) -> Path:
    """Write the tables and the report over all workloads of a study file, from those of each; return the path of `index.html`.

    `path` is the folder above those of the workloads. Raises ValueError if it is none.
    """
    from lrstudy_reports.pooled_page import build_pooled

    return build_pooled(Path(path))


def answer_of_workloads(path: str | Path) -> str:
    """The answer over all workloads in a few plain sentences; writes nothing."""
    from lrstudy_reports.pooled import load_workloads, pool
    from lrstudy_reports.pooled_page import answer_over

    workloads = load_workloads(Path(path))
    return answer_over(workloads, pool(workloads))


def summary(path: str | Path) -> list[dict[str, Any]]:
    """The verdict table of the study folder `path`, one dict per arm, best first; writes nothing.

    The keys are the columns of `arms.parquet` (docs/tables.md); a missing number is None.
    """
    from lrstudy_reports.comparison import compare
    from lrstudy_reports.tables import load

    return compare(load(Path(path))).rows()


def answer(path: str | Path) -> str:
    """The study's answer in a few plain sentences; writes nothing.

    While an extension of the study is under way, that is its last complete answer, if a report was built of it.
    """
    from lrstudy_reports import last_answer
    from lrstudy_reports.comparison import compare
    from lrstudy_reports.headline import answer as worded
    from lrstudy_reports.tables import load

    study = load(Path(path))
    return worded(study, compare(study), last_answer.read(study.folder))


def is_decided(path: str | Path) -> bool:
    """Whether all confirm trials have ended and further seeds could change no verdict; writes nothing.

    An arm that lost seeds stays undecided however many there are.
    """
    from lrstudy_reports.comparison import compare
    from lrstudy_reports.tables import load

    comparison = compare(load(Path(path)))
    open_ones = [row for row in comparison.rows() if row["verdict"] == "undecided"]
    return comparison.final and all(row["diverged"] + row["failed"] > 0 for row in open_ones)
