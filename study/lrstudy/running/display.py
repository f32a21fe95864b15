"""Progress that a person can follow: trials done per arm, best so far, device-hours, time left."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lrstudy.planning import arm_checks
from lrstudy.running.admission import Admission
from lrstudy.running.protocol import Trial

LINE_EVERY_S = 10.0
TABLE_EVERY_S = 0.5


class Progress:
    """A live table on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._last = 0.0

    def start(self, admission: Admission, slots: int) -> None:
        """Begin to show a run on `slots` slots."""
        self._admission, self._slots, self._began = admission, slots, time.monotonic()
        self._already = _num_ended(admission)
        statistics = admission.plan.workload.statistics
        for text in (f"Data: {statistics.summary}", *(f"note: {note}" for note in arm_checks.notes(admission.plan))):
            self._console.print(text, soft_wrap=True, markup=False)
        if self._console.is_terminal:
            self._live = Live(self._table(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            what = "measuring what their updates cost" if admission.is_done else f"training on {slots} slots"
            self._console.print(f"{self._already} of {admission.protocol.num_planned} trials are recorded; {what}")

    def refresh(self) -> None:
        """Show what is known now."""
        now = time.monotonic()
        if now - self._last < (TABLE_EVERY_S if self._live else LINE_EVERY_S):
            return
        self._last = now
        if self._live:
            self._live.update(self._table())
        else:
            self._console.print(self._line(), soft_wrap=True)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._live:
            self._live.stop()
            self._live = None

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for heading, justify in (
            ("arm", "left"),
            ("trials", "right"),
            ("", "left"),
            ("running", "right"),
            ("best so far", "right"),
            ("device", "right"),
        ):
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        plan = self._admission.plan
        per_arm = self._admission.protocol.num_planned // max(1, len(plan.arms))
        for arm in plan.arms:
            trials = [trial for trial in self._admission.trials.values() if trial.arm == arm]
            ended = [trial for trial in trials if trial.ended_at is not None]
            running = sum(trial.status == "running" for trial in trials)
            values = [t.value(plan.study.metric, plan.study.select) for t in ended]
            best = max((value for value in values if value is not None), default=None)
            table.add_row(
                arm, f"{len(ended)}/{per_arm}", ProgressBar(total=per_arm, completed=len(ended), width=24), str(running or ""),
                "" if best is None else f"{best:.4f}", duration(_device_s(trials)),
            )  # fmt: skip
        return Group(table, Text(self._line(), style="dim"))

    def _line(self) -> str:
        admission = self._admission
        ended, planned = _num_ended(admission), admission.protocol.num_planned
        elapsed = time.monotonic() - self._began
        pace = (ended - self._already) / elapsed if elapsed > 0 else 0.0
        left = f", about {duration((planned - ended) / pace)} left" if pace > 0 else ""
        phase = "confirming with fresh seeds" if admission.protocol.frozen else "tuning"
        phase = "measuring what updates cost" if admission.is_done else phase
        spent = duration(_device_s(admission.trials.values()))
        failed = sum(trial.status in ("failed", "diverged") for trial in admission.trials.values())
        bad = f", {failed} diverged or failed" if failed else ""
        died = sum(line["run"] == admission.journal.run for line in admission.journal.of_kind("died"))
        bad += f", {died} worker{'s' if died > 1 else ''} lost and replaced" if died else ""
        return f"{phase}: {ended} of {planned} trials, {spent} of device time trained{bad}, {duration(elapsed)} so far{left}"


def duration(seconds: float) -> str:
    """A time span in the unit that fits: ``38 s``, ``4.2 min``, ``7.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _num_ended(admission: Admission) -> int:
    return sum(trial.ended_at is not None for trial in admission.trials.values())


def _device_s(trials: Iterable[Trial]) -> float:
    return sum(r.device_s for t in trials for r, recalled in zip(t.records, t.recalled, strict=True) if not recalled)
