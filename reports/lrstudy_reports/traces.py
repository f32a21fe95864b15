"""Learning rate and batch size as applied to each arm's confirmed configuration, update by update."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from lrstudy_reports.comparison import Comparison
from lrstudy_reports.statistics import FloatArray
from lrstudy_reports.style import SOFT, WIDTH, Look, canvas, plot_area
from lrstudy_reports.tables import StudyTables, learning_rates

MAX_POINTS = 400  # of a drawn line; longer ones are thinned
MAX_ARMS = 24


@dataclass(frozen=True)
class AppliedRates:
    """What one training applied: `lr` (updates, sections) at `clock` (updates,) in epochs; `batch` by epoch."""

    arm: str
    clock: FloatArray
    lr: FloatArray
    batch: FloatArray


def applied_rates(study: StudyTables, comparison: Comparison) -> list[AppliedRates]:
    """What the first completed confirm trial of each arm applied, if settings.parquet has all its epochs."""
    first = {curve.arm: curve.trial_id for curve in reversed(comparison.curves) if curve.status == "completed"}
    epochs = comparison.calibration.epochs
    epochs = epochs[epochs["trial_id"].isin(first.values()) & epochs["settings"].notna()]
    rates = learning_rates(study.folder, epochs["settings"].tolist())
    by_trial = {str(trial): rows for trial, rows in epochs.groupby("trial_id")}
    traces = []
    for arm in study.arms:
        rows = by_trial.get(first.get(arm, ""))
        if rows is None or not rows["settings"].isin(rates).all():
            continue
        parts = [rates[digest] for digest in rows["settings"]]
        if len({part.shape[1] for part in parts}) > 1:
            continue
        clock = np.concatenate([k + np.arange(len(part)) / len(part) for k, part in enumerate(parts)])
        batch = rows["batch_size"].to_numpy(dtype=np.float64)
        traces.append(AppliedRates(arm, clock, np.concatenate(parts), batch))
    return traces[:MAX_ARMS]


def draw(traces: list[AppliedRates], looks: Mapping[str, Look]) -> Figure | None:
    """One panel per arm: rates of the head section in full colour, of other sections lighter, batch size beneath."""
    if not traces:
        return None
    columns = min(len(traces), 3)
    rows = math.ceil(len(traces) / columns)
    high, gap, left = 1.95, 0.5, 0.55
    figure = canvas(rows * high + 0.25)
    each = (WIDTH - left - 0.1 - gap * (columns - 1)) / columns
    for k, applied in enumerate(traces):
        row, column = divmod(k, columns)
        start, top = left + column * (each + gap), row * high + 0.22
        right, below = WIDTH - start - each, (rows - 1 - row) * high + 0.25
        upper = plot_area(figure, start, right, top, below + 0.85)
        lower = plot_area(figure, start, right, top + 0.97, below + 0.33)
        _rates(upper, applied, looks[applied.arm])
        _batches(lower, applied, looks[applied.arm], last=k + columns >= len(traces))
    return figure


def decimated(x: FloatArray, y: FloatArray, points: int = MAX_POINTS) -> tuple[FloatArray, FloatArray]:
    """Thin a line to about `points` points: its ends, and the lowest and highest value of each piece."""
    if len(x) <= points:
        return x, y
    edges = np.linspace(0, len(x), points // 2 + 1).astype(int)
    kept = {0, len(x) - 1}
    for start, stop in pairwise(edges.tolist()):
        kept |= {start + int(y[start:stop].argmin()), start + int(y[start:stop].argmax())}
    index = sorted(kept)
    return x[index], y[index]


def _rates(axes: Axes, applied: AppliedRates, look: Look) -> None:
    for section in range(applied.lr.shape[1]):
        head = section == applied.lr.shape[1] - 1
        x, y = decimated(applied.clock, applied.lr[:, section])
        axes.plot(x, y, color=look.colour, lw=1.4 if head else 0.9, alpha=1.0 if head else 0.45)
    top = float(applied.lr.max())
    axes.set(xlim=(0, len(applied.batch)), ylim=(0, top * 1.08 or 1.0), title=applied.arm)
    axes.yaxis.set_major_locator(FixedLocator([0, top]))
    axes.set_yticklabels(["0", f"{top:.3g}"])
    axes.title.set_color(look.colour)
    axes.tick_params(labelbottom=False)
    if axes.get_position().x0 < 0.1:
        axes.set_ylabel("LR", labelpad=1)


def _batches(axes: Axes, applied: AppliedRates, look: Look, *, last: bool) -> None:
    epochs = np.arange(len(applied.batch) + 1)
    axes.stairs(applied.batch, epochs, color=look.colour, lw=1.2, baseline=0, fill=True, alpha=0.25)
    levels = sorted({float(applied.batch[0]), float(applied.batch.max())})
    axes.set(xlim=(0, len(applied.batch)), ylim=(0, levels[-1] * 1.25))
    axes.yaxis.set_major_locator(FixedLocator(levels if levels[-1] > 1.7 * levels[0] else levels[-1:]))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("epochs" if last else "", labelpad=1)
    axes.tick_params(colors=SOFT)
    axes.tick_params(axis="y", labelsize=7)
    if axes.get_position().x0 < 0.1:
        axes.set_ylabel("batch", labelpad=1)
