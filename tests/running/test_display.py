"""What a run shows of its progress, and how often."""

from __future__ import annotations

import io
from itertools import pairwise
from types import SimpleNamespace

from rich.console import Console

from lrstudy.memo.memo import Memo
from lrstudy.running import display
from lrstudy.running.admission import Admission
from lrstudy.study_folder.journal import Journal
from study_files import plan_of


def test_what_takes_long_to_count_is_shown_less_often(tmp_path, monkeypatch):
    """Of 100,000 trials the epochs take a second to count; shown twice a second, nothing else would be done."""
    now = [100.0]
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now[0]))
    progress = display.Progress(Console(file=io.StringIO(), force_terminal=False))
    progress.start(Admission(plan_of(), Memo(tmp_path / "memo"), Journal(tmp_path / "journal")), 2)
    shown: list[float] = []

    def line() -> str:
        shown.append(now[0])
        now[0] += 1.0
        return "a line"

    monkeypatch.setattr(progress, "_line", line)
    for _ in range(200):
        now[0] += 0.5
        progress.refresh()
    gaps = [later - earlier - 1.0 for earlier, later in pairwise(shown)]
    assert len(gaps) > 3
    assert all(20.0 <= gap < 21.0 for gap in gaps)
