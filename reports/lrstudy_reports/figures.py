"""The figures of a report: each function draws one, or returns None if the study has no data for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from lrstudy_reports import formats
from lrstudy_reports.comparison import Comparison
from lrstudy_reports.costs import Closing, Sharing
from lrstudy_reports.style import (
    FAINT,
    INK,
    SOFT,
    WIDTH,
    Look,
    canvas,
    label_ends,
    plot_area,
    text_width,
)
from lrstudy_reports.tables import StudyTables

Looks = Mapping[str, Look]


def verdicts(study: StudyTables, comparison: Comparison, looks: Looks) -> Figure | None:
    """Forest plot of each arm's difference to the control and its interval, the best arm on top."""
    arms = [row for row in comparison.rows() if row["difference"] is not None]
    if not arms:
        return None
    halves = [formats.half_width(arm["difference_low"], arm["difference_high"]) for arm in arms]
    decimals = formats.decimals_for(halves)
    texts = [_verdict_text(arm, decimals) for arm in arms]
    figure = canvas(0.3 * len(arms) + 0.85)
    left = text_width([arm["arm"] for arm in arms]) + 0.15
    axes = plot_area(figure, left, text_width(texts, 8) + 0.15, 0.25, 0.5)
    if study.lock.margin is not None:
        axes.axvspan(-study.lock.margin, study.lock.margin, color=FAINT, lw=0)
        axes.text(0, 1.02, f"±{study.lock.margin:g} margin", transform=_above(axes), ha="center", color=SOFT)
    axes.axvline(0, color=SOFT, lw=1)
    for row, (arm, text) in enumerate(zip(arms, texts, strict=True)):
        look = looks[arm["arm"]]
        if arm["difference_low"] is not None:
            axes.plot([arm["difference_low"], arm["difference_high"]], [row, row], color=look.colour, lw=2)
        axes.plot([arm["difference"]], [row], "o", color=look.colour, ms=6)
        axes.text(1.02, row, text, transform=_beside(axes), va="center", fontsize=8, color=INK)
    axes.set(ylim=(len(arms) - 0.4, -0.6), xlabel=f"test {_metric(study)}, arm minus {study.lock.control}")
    axes.set_yticks(range(len(arms)), [arm["arm"] for arm in arms], color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.spines["left"].set_visible(False)
    return figure


def over_cost(study: StudyTables, curves: pd.DataFrame, comparison: Comparison, looks: Looks) -> Figure | None:
    """Validation metric against cumulative calibrated device time on a log axis, mean and interval by arm.

    Args:
        study: The study.
        curves: Mean curves by arm, with the columns of curves.csv.
        comparison: The compared arms; their target is drawn as a line if it lies within the figure.
        looks: Colour and line style by arm; arms are drawn in this order.

    Returns:
        The figure, or None if there are no curves or a cost is not positive.
    """
    if curves.empty or not (curves["device_s"] > 0).all():
        return None
    unit = formats.time_unit(study.lock.unit, curves["device_s"])
    figure = _curves(study, curves.assign(x=curves["device_s"] / unit.seconds), looks, log=True)
    axes = figure.axes[0]
    axes.set_xlabel(f"{unit.label} of one training, calibrated (log scale)")
    low, high = axes.get_ylim()
    if low < comparison.target < high:
        axes.axhline(comparison.target, color=SOFT, lw=0.8, ls=(0, (4, 3)))
        axes.text(0.005, comparison.target, "target", transform=_beside(axes), va="bottom", color=SOFT, fontsize=7.5)
    return figure


def over_epochs(study: StudyTables, curves: pd.DataFrame, looks: Looks) -> Figure | None:
    """Validation metric against epochs, mean and interval by arm."""
    if curves.empty:
        return None
    figure = _curves(study, curves.assign(x=curves["epoch"]), looks, log=False)
    figure.axes[0].set_xlabel("epochs")
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure


def best_after(study: StudyTables, curves: pd.DataFrame, looks: Looks) -> Figure | None:
    """Expected best validation value of t trials by arm, one panel per searcher, all on the same scale."""
    searchers = list(dict.fromkeys(curves["searcher"]))
    if not searchers:
        return None
    arms = [arm for arm in looks if (curves["arm"] == arm).any()]
    figure = canvas(2.7)
    right, left, between = text_width(arms) + 0.45, 0.6, 0.2
    each = (WIDTH - left - right - between * (len(searchers) - 1)) / len(searchers)
    limits = _limits(curves["expected_best"])
    for k, searcher in enumerate(searchers):
        start = left + k * (each + between)
        axes = plot_area(figure, start, WIDTH - start - each, 0.3, 0.45)
        mine = curves[curves["searcher"] == searcher]
        for arm, rows in mine.groupby("arm"):
            look = looks[str(arm)]
            axes.plot(rows["trials"], rows["expected_best"], color=look.colour, ls=look.dash)
        most = int(mine["trials"].max())
        axes.set(xscale="log", xlim=(0.95, most * 1.03), ylim=limits, title=searcher, xlabel="trials (log scale)")
        _log_ticks(axes, 1, most)
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        if k:
            axes.tick_params(labelleft=False)
    figure.axes[0].set_ylabel(f"expected best val. {_metric(study)}")
    last = curves[curves["searcher"] == searchers[-1]].groupby("arm").last()
    ends = [(row.trials, row.expected_best, str(arm), looks[str(arm)].colour) for arm, row in last.iterrows()]
    label_ends(figure.axes[-1], ends)
    return figure


def sharing(shared: Sharing) -> Figure | None:
    """Three bars: the epochs asked for, the distinct ones among them, and those that this study trained."""
    if not shared.asked:
        return None
    bars = [("asked for", shared.asked), ("distinct", shared.distinct), ("trained here", shared.trained)]
    texts = [f"{number:,}  ({number / shared.asked:.0%})" for _, number in bars]
    figure = canvas(1.25)
    axes = _bars(figure, [name for name, _ in bars], [number for _, number in bars], texts, "#0072b2")
    if shared.earlier:
        axes.barh([1], [shared.earlier], left=[shared.distinct - shared.earlier], color="#8fc1e0", height=0.66)
        axes.text(
            shared.distinct - shared.earlier / 2,
            1,
            "from earlier studies",
            ha="center",
            va="center",
            fontsize=7,
        )
    return figure


def ledger(study: StudyTables, closing: Closing | None) -> Figure | None:
    """Allocated device time by category; the last bar is what no category accounts for."""
    if closing is None:
        return None
    rows = closing.categories
    seconds = [*rows["device_s"], max(closing.unaccounted_s, 0.0)]
    unit = formats.time_unit(study.lock.unit, seconds)
    texts = [
        f"{text}  ({share:.1%})"
        for text, share in zip(unit.column(seconds), np.divide(seconds, closing.allocated_s), strict=True)
    ]
    texts[0] = texts[0].replace("  ", f" {unit.label}  ", 1)
    figure = canvas(0.24 * len(seconds) + 0.2)
    names = [str(name).replace("_", " ") for name in rows["category"]]
    axes = _bars(figure, [*names, "unaccounted"], seconds, texts, "#009e73")
    for bar, name in zip(axes.patches, [*rows["category"], ""], strict=True):
        if name not in ("train", "evaluate", "range_test", "features"):
            bar.set_facecolor("#b9c0c9")
    return figure


def _verdict_text(arm: dict[str, Any], decimals: int) -> str:
    numbers = formats.fixed(arm["difference"], decimals, sign=True)
    span = formats.interval(arm["difference_low"], arm["difference_high"], decimals, sign=True)
    return "  ".join(part for part in (numbers, span, arm["verdict"]) if part)


def _curves(study: StudyTables, curves: pd.DataFrame, looks: Looks, *, log: bool) -> Figure:
    arms = [arm for arm in looks if (curves["arm"] == arm).any()]
    figure = canvas(3.3)
    axes = plot_area(figure, 0.6, text_width(arms) + 0.45, 0.12, 0.48)
    for arm in arms:
        rows, look = curves[curves["arm"] == arm], looks[arm]
        axes.fill_between(rows["x"], rows["low"], rows["high"], color=look.colour, alpha=0.13, lw=0)
        marker = "o" if len(rows) == 1 else None
        axes.plot(rows["x"], rows["value"], color=look.colour, ls=look.dash, marker=marker, ms=4)
    low, high = float(curves["x"].min()), float(curves["x"].max())
    if log:
        axes.set_xscale("log")
        axes.set_xlim(low * 0.96, high * 1.04)
        _log_ticks(axes, low, high)
    late = curves["epoch"] > 0.2 * curves["epoch"].max()
    least, most = _limits(curves.loc[late, ["value", "low", "high"]])
    axes.set_ylim(max(least, -0.02), min(most, 1.02))  # every metric lies in [0, 1]
    axes.set_ylabel(f"validation {_metric(study)}")
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    last = curves.groupby("arm").last()
    label_ends(axes, [(row.x, row.value, str(arm), looks[str(arm)].colour) for arm, row in last.iterrows()])
    return figure


def _bars(figure: Figure, names: Sequence[str], lengths: Sequence[float], texts: Sequence[str], colour: str) -> Axes:
    """Horizontal bars, the first on top, with names on the left and numbers on the right."""
    axes = plot_area(figure, text_width(names) + 0.15, text_width(texts, 8) + 0.1, 0.05, 0.05)
    axes.barh(range(len(names)), lengths, color=colour, height=0.66)
    for row, (length, text) in enumerate(zip(lengths, texts, strict=True)):
        axes.annotate(text, (length, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, max(lengths) or 1), xticks=[])
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.spines[["left", "bottom"]].set_visible(False)
    return axes


def _limits(values: pd.DataFrame | pd.Series[float]) -> tuple[float, float]:
    """The range of the finite `values`, with a little padding."""
    array = np.asarray(values, dtype=np.float64).ravel()
    array = array[np.isfinite(array)]
    low, high = float(array.min()), float(array.max())
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _log_ticks(axes: Axes, low: float, high: float) -> None:
    """Label a log axis with plain numbers in 1-2-5 steps; by default an axis of one decade has a single tick."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    axes.xaxis.set_major_locator(FixedLocator(inside))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in inside]))
    axes.xaxis.set_minor_locator(NullLocator())


def _metric(study: StudyTables) -> str:
    return study.lock.metric.replace("_", " ")


def _above(axes: Axes) -> Any:
    """A transform with x in data units and y as a fraction of the axes."""
    return axes.get_xaxis_transform()


def _beside(axes: Axes) -> Any:
    """A transform with x as a fraction of the axes and y in data units."""
    return axes.get_yaxis_transform()
