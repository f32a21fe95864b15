"""A small study that has finished, in this process: its states in the memo, its lock and tables in its folder."""

from __future__ import annotations

from pathlib import Path

from lrstudy.planning import study_lock
from lrstudy.running.tables import TableWriter
from serial import SMALL, Serial, study

SHORT = SMALL.replace("epochs: 4", "epochs: 2").replace("arms: [constant, step, clr]", "arms: [constant]")


def finish(tmp_path: Path, text: str = SHORT, *overrides: str, is_complete: bool = True) -> Serial:
    """Run a study called `small` below `tmp_path`/runs to its end; `is_complete` is what its lock says."""
    plan, _ = study(tmp_path, text, *overrides).plan()
    serial = Serial(plan, tmp_path / "runs")
    serial.run()
    folder = tmp_path / "runs" / "small"
    TableWriter(serial.admission, folder).write(0.0)
    (folder / "study.lock.json").write_text(study_lock.render(plan, overrides, is_complete, {}))
    return serial
