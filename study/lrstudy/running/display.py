"""The progress of a run for a person to follow: trials done per arm, best value so far, device time, time left."""

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
from lrstudy.running.trials import Trial

LINE_EVERY_S = 10.0
TABLE_EVERY_S = 0.5
_COST = 20.0
"""What is shown is computed anew only when this many times what it last took has passed: it counts all epochs."""


class Progress:
    """Shows progress: as a live table on a terminal, elsewhere as a line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._last, self._cost_s = 0.0, 0.0

    def start(self, admission: Admission, slots: int) -> None:
        """Start showing a run on `slots` slots."""
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
        """Show the current state, if the last one is old enough."""
        now = time.monotonic()
        if now - self._last < max(TABLE_EVERY_S if self._live else LINE_EVERY_S, _COST * self._cost_s):
            return
        if self._live:
            self._live.update(self._table())
        else:
            self._console.print(self._line(), soft_wrap=True)
        self._last = time.monotonic()
        self._cost_s = self._last - now

    def stop(self) -> None:
        """Stop showing progress, and leave the terminal as it was."""
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
        for arm in (arm for arm in self._admission.plan.arms if arm not in self._admission.plan.retired):
            table.add_row(*self._row(arm, self._admission.protocol.num_planned_of(arm)))
        return Group(table, Text(self._line(), style="dim"))

    def _row(self, arm: str, num_planned: int) -> tuple[str | ProgressBar, ...]:
        """The cells of an arm."""
        trials = [trial for trial in self._admission.trials.values() if trial.arm == arm]
        ended = [trial for trial in trials if trial.ended_at is not None]
        num_running = sum(trial.status == "running" for trial in trials)
        values = [trial.value for trial in ended]
        best = max((value for value in values if value is not None), default=None)
        return (
            arm, f"{len(ended)}/{num_planned}", ProgressBar(total=num_planned, completed=len(ended), width=24),
            str(num_running or ""), "" if best is None else f"{best:.4f}", duration(_device_s(trials)),
        )  # fmt: skip

    def _line(self) -> str:
        admission = self._admission
        num_ended, num_planned = _num_ended(admission), admission.protocol.num_planned
        elapsed_s = time.monotonic() - self._began
        trials_per_s = (num_ended - self._already) / elapsed_s if elapsed_s > 0 else 0.0
        left = f", about {duration((num_planned - num_ended) / trials_per_s)} left" if trials_per_s > 0 else ""
        phase = "confirming with fresh seeds" if admission.protocol.frozen else "tuning"
        phase = "finding learning rates" if admission.waits_for_rates else phase
        phase = "measuring what updates cost" if admission.is_done else phase
        spent = duration(_device_s(admission.trials.values()))
        return (
            f"{phase}: {num_ended} of {num_planned} trials, {spent} of device time trained{self._losses()}, "
            f"{duration(elapsed_s)} so far{left}"
        )

    def _losses(self) -> str:
        """How many trials failed and workers died, if any did."""
        trials, journal = self._admission.trials.values(), self._admission.journal
        num_failed = sum(trial.status in ("failed", "diverged") for trial in trials)
        num_died = sum(line["run"] == journal.run for line in journal.of_kind("died"))
        losses = f", {num_failed} diverged or failed" if num_failed else ""
        return losses + (f", {num_died} worker{'s' if num_died > 1 else ''} lost and replaced" if num_died else "")


def duration(seconds: float) -> str:
    """A time span in a suitable unit: ``38 s``, ``4.2 min``, ``7.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _num_ended(admission: Admission) -> int:
    """How many trials have ended, without those of retired arms, as nobody plans any of these."""
    retired = admission.plan.retired
    return sum(trial.ended_at is not None and trial.arm not in retired for trial in admission.trials.values())


def _device_s(trials: Iterable[Trial]) -> float:
    return sum(r.device_s for t in trials for r, recalled in zip(t.records, t.recalled, strict=True) if not recalled)
