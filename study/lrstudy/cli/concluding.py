"""What a run ends with: the report of the study, and what the terminal and programs are told of it."""

from __future__ import annotations

import time
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lrstudy import __version__
from lrstudy.cli.options import console_for_tables

if TYPE_CHECKING:
    from lrstudy.run import Summary
    from lrstudy.study import Study
    from lrstudy.study_folder.mirror import Mirror

_WIDE = 100
"""Columns that the verdicts need with all intervals; a narrower terminal shows those of the differences alone."""


def concluded(study: Study, summary: Summary, begun: float, *, as_json: bool) -> dict[str, Any]:
    """Build the report of a study that has run, and print how it went unless `as_json`; returns that for programs."""
    from lrstudy.running.display import duration

    page = build_report(summary.folder, is_forced=summary.trained > 0)
    where = published(page, study.drivers_mirror)
    took_s = time.monotonic() - begun
    if not as_json:
        console = console_for_tables()
        _print_summary(console, summary)
        bad = ", ".join(f"{count} {status}" for status, count in summary.statuses.items() if status != "completed")
        console.print(
            f"{sum(summary.statuses.values())} trials{f' ({bad})' if bad else ''} in {duration(took_s)}. Report: {both(where, page)}",
            soft_wrap=True,
        )
    return {**_summary_dict(summary), "report": where, "seconds": round(took_s, 1)}


def published(page: Path, mirror: Mirror | None) -> str:
    """Where the page of a report lies; of a study in a bucket it is put there."""
    if mirror is None or mirror.location == str(mirror.folder):
        return str(page)
    mirror.publish()
    return f"{mirror.location}/report/{page.name}"


def both(where: str, page: Path) -> str:
    """A page's place, and beside that in a bucket the copy on this node."""
    return where if where == str(page) else f"{where} (a copy: {page})"


def build_report(folder: Path, is_forced: bool = True) -> Path:
    """Build the report; unless forced, only if a table or the lock has changed since the last report."""
    import lrstudy_reports
    from lrstudy_reports.schemas import PARQUET_TABLES

    page, stamp = folder / "report" / "index.html", folder / "report" / ".inputs"
    digest, its_own = blake2b(__version__.encode()), {table.name for table in PARQUET_TABLES}
    for path in sorted([*folder.glob("*.parquet"), folder / "study.lock.json"]):
        if path.stem not in its_own:
            digest.update(path.read_bytes())
    if is_forced or not page.exists() or not stamp.exists() or stamp.read_text() != digest.hexdigest():
        page = Path(lrstudy_reports.build(folder))
        stamp.write_text(digest.hexdigest())
    return page


def is_decided(folder: Path) -> bool:
    """Whether the look that has ended decides all comparisons; its report stays as the last complete answer."""
    import lrstudy_reports

    build_report(folder)
    return lrstudy_reports.is_decided(folder)


def _print_summary(console: Console, summary: Summary) -> None:
    """Print the notes of a run, the verdicts so far, and how many epochs were trained and recalled."""
    for note in summary.notes:
        console.print(f"[yellow]note:[/] {note}")
    _print_verdicts(console, summary.folder)
    if summary.trained == 0:
        console.print(f"Nothing was trained: all {summary.recalled} epochs were recalled from the memo.")
    else:
        console.print(
            f"{summary.asked} epochs asked, {summary.distinct} distinct; {summary.trained} trained now, {summary.recalled} recalled."
        )
    if summary.stopped:
        console.print(f"Stopped early: {summary.stopped}. Run again with a higher limit to go on.")


def _print_verdicts(console: Console, folder: Path) -> None:
    """Print the verdict table that the report has written, if any arm has a result on the test part, and the answer."""
    import pyarrow.parquet as pq
    from rich.table import Table

    import lrstudy_reports
    from lrstudy_reports import formats

    rows = pq.read_table(folder / "arms.parquet").to_pylist()
    if not any(row["test_metric"] is not None for row in rows):
        return
    decimals = formats.decimals_for(formats.half_width(row["test_low"], row["test_high"]) for row in rows)
    is_wide = console.width >= _WIDE
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for heading in (
        "arm",
        "test \\[interval]" if is_wide else "test",
        "against control",
        "p (Holm)",
        "verdict",
        "cost",
    ):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        low, high = (row["test_low"], row["test_high"]) if is_wide else (None, None)
        table.add_row(
            row["arm"],
            _with_interval(row["test_metric"], low, high, decimals),
            _with_interval(row["difference"], row["difference_low"], row["difference_high"], decimals, sign=True),
            "" if row["p_holm"] is None else formats.p_value(row["p_holm"]),
            row["verdict"] or "",
            "" if row["cost_ratio"] is None else f"x{row['cost_ratio']:.2f}",
        )
    console.print(table)
    for row in rows:
        if row["note"]:
            console.print(f"{row['arm']}: {row['note']}", soft_wrap=True, markup=False)
    console.print(lrstudy_reports.answer(folder), soft_wrap=True, markup=False)


def _with_interval(
    value: float | None, low: float | None, high: float | None, decimals: int, sign: bool = False
) -> str:
    from lrstudy_reports import formats

    if value is None:
        return ""
    interval = formats.interval(low, high, decimals, sign).replace("[", "\\[")
    return f"{formats.fixed(value, decimals, sign)} {interval}".strip()


def _summary_dict(summary: Summary) -> dict[str, Any]:
    return {
        "folder": str(summary.folder),
        "complete": summary.is_complete,
        "trials": dict(summary.statuses),
        "epochs_asked": summary.asked,
        "epochs_distinct": summary.distinct,
        "epochs_trained": summary.trained,
        "epochs_recalled": summary.recalled,
        "stopped": summary.stopped,
        "notes": list(summary.notes),
    }
