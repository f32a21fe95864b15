"""Traces as an SVG drawing in the report's colours: panels on one horizontal axis, names at the ends of lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from lrstudy.tracing.trace import By, Trace
from lrstudy.tracing.trace_chart import OTHERS, Line, Panel, panels
from lrstudy_reports.style import SOFT, WIDTH, Look, canvas, label_ends, looks, plot_area, settings, svg, text_width
from lrstudy_reports.traces import decimated

_HIGH, _LOW, _GAP = 2.6, 1.05, 0.34  # inches: the first panel, the others, between them
_TOP, _BOTTOM, _LEFT = 0.28, 0.45, 0.62
_MANY_POINTS = 1500


def draw(traces: Sequence[Trace], by: By = "epoch") -> str:
    """The drawing as SVG text. The same traces give the same bytes."""
    with settings():
        return svg(figure_of(traces, by))


def figure_of(traces: Sequence[Trace], by: By = "epoch") -> Figure:
    """The drawing as a figure. Call it, and save the figure, within `style.settings()`."""
    drawn = panels(traces, by)
    heights = [_HIGH] + [_LOW] * (len(drawn) - 1)
    total = _TOP + sum(heights) + _GAP * (len(drawn) - 1) + _BOTTOM
    figure = canvas(total)
    control = "constant" if any(t.label == "constant" for t in traces) and len(traces) > 1 else None
    by_label = looks([trace.label for trace in traces], control)
    of_series = {number: by_label[trace.label] for number, trace in enumerate(traces)} | {OTHERS: Look(SOFT, "-")}
    right = text_width([line.label for panel in drawn for line in panel.lines]) + 0.45
    top = _TOP
    for number, (panel, height) in enumerate(zip(drawn, heights, strict=True)):
        axes = plot_area(figure, _LEFT, min(right, WIDTH / 3), top, total - top - height)
        _panel(axes, panel, of_series, is_last=number == len(drawn) - 1)
        top += height + _GAP
    figure.axes[-1].set_xlabel("epochs" if by == "epoch" else "updates")
    return figure


def _panel(axes: Axes, panel: Panel, of_series: Mapping[int, Look], is_last: bool) -> None:
    end = max(line.end for line in panel.lines)
    for line in panel.lines[::-1]:
        _draw_line(axes, line, of_series[line.series], panel.title)
    low, high = panel.limits
    axes.set_title(panel.title + (" (log scale)" if panel.log else ""))
    axes.set_xlim(0, end)
    if panel.log:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        axes.yaxis.set_major_locator(LogLocator(10, (1.0,) if high / low > 30 else (1.0, 2.0, 5.0), numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axes.set_ylim(low, high + 0.06 * (high - low))
        axes.yaxis.set_major_locator(MaxNLocator(5 if panel.title == "learning rate" else 3))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.tick_params(labelbottom=is_last)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    ends = [  # reversed, so that the first of lines that end together comes on top
        (line.end, max(float(line.y[-1]), low), line.label, of_series[line.series].colour)
        for line in reversed(panel.lines)
    ]
    label_ends(axes, ends)


def _draw_line(axes: Axes, line: Line, look: Look, title: str) -> None:
    """Draw a line, in steps if it has few values: each value holds until the next one."""
    x, y = np.append(line.x, line.end), np.append(line.y, line.y[-1])
    steps = len(x) <= _MANY_POINTS and (title == "batch size" or len(np.unique(y)) <= 12)
    if not steps:
        x, y = decimated(x, y, _MANY_POINTS)
    axes.plot(
        x, y, color=look.colour, ls=look.dash, drawstyle="steps-post" if steps else "default",
        lw=1.6 if line.is_main else 1.0, alpha=1.0 if line.is_main else 0.6, clip_on=True,
    )  # fmt: skip
