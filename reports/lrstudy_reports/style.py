"""The look of figures: palette, axes, labels at the ends of lines, reproducible SVG. No pyplot.

Colours are from Okabe and Ito and from Paul Tol, chosen so that colour-blind readers can tell them apart; the
control is grey. Where colours repeat, line styles differ.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

FIGURE_DPI = 72
WIDTH = 8.0  # inches; 576 points
INK, SOFT, FAINT = "#1f2933", "#5f6b7a", "#e3e7ec"
_CONTROL = "#6b7280"
_PALETTE = (
    "#0072b2",  # blue
    "#d55e00",  # vermilion
    "#009e73",  # green
    "#b5588f",  # purple
    "#c98a00",  # amber
    "#3a9bd0",  # sky
    "#332288",  # indigo
    "#882255",  # wine
    "#117733",  # pine
    "#7a7a00",  # olive
)
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_RC: dict[Any, Any] = {
    "svg.hashsalt": "lrstudy",
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 8.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "xtick.minor.size": 1.5,
    "xtick.major.width": 0.6,
    "xtick.minor.width": 0.5,
    "lines.linewidth": 1.6,
    "path.simplify": True,
    "text.parse_math": False,  # an arm may be called $x$
}


@dataclass(frozen=True)
class Look:
    """The colour and line style of an arm, the same in every figure."""

    colour: str
    dash: Any


def settings() -> Any:
    """The context in which figures are made and written: `with settings(): ...`."""
    return matplotlib.rc_context(_RC)


def looks(arms: Sequence[str], control: str | None) -> dict[str, Look]:
    """A colour and a line style for every arm; `arms` are in the study's order."""
    others = [arm for arm in arms if arm != control]
    look_of = {
        arm: Look(_PALETTE[k % len(_PALETTE)], _DASHES[k // len(_PALETTE) % len(_DASHES)])
        for k, arm in enumerate(others)
    }
    return look_of | ({control: Look(_CONTROL, "-")} if control is not None else {})


def canvas(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of `width` x `height` inches."""
    figure = Figure(figsize=(width, height), dpi=FIGURE_DPI)
    FigureCanvasSVG(figure)
    return figure


def plot_area(figure: Figure, left: float, right: float, top: float, bottom: float) -> Axes:
    """Add axes to a figure, placed by its margins: several times faster than a layout engine.

    Args:
        figure: The figure, which is modified.
        left: Margin in inches, at least 0, as are the others.
        right: Margin in inches.
        top: Margin in inches.
        bottom: Margin in inches.

    Returns:
        The axes.
    """
    width, height = figure.get_size_inches()
    axes: Axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    return axes


def text_width(labels: Sequence[str], size: float = 8.5) -> float:
    """The approximate width in inches of the longest of `labels`, in type of `size` points."""
    return max((len(label) for label in labels), default=0) * size * 0.62 / 72


def svg(figure: Figure) -> str:
    """The figure as SVG; the same figure always gives the same text."""
    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)
    return buffer.getvalue()


def inline(text: str, name: str, label: str) -> str:
    """An SVG for embedding in HTML: without the prologue, ids prefixed with `name`, and `label` for screen readers."""
    start = text.index("<svg")
    end = text.index(">", start)
    box = re.search(r'viewBox="[^"]*"', text[start:end])
    body = re.sub(r'\bid="', f'id="{name}-', text[end + 1 :])
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    view = box.group() if box else ""
    return f'<svg {view} role="img" aria-label="{html.escape(label, quote=True)}">{body.rstrip()}'


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Label the ends of curves, given as (x, y, text, colour), at the right edge of `axes` without overlaps.

    A thin line leads from each end to its label. Limits and scales of the axes must be final.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    height = axes.get_window_extent().height / FIGURE_DPI * 72
    gap = 10.5 / height
    placed = [(*to_axes.transform((x, y)), text, colour) for x, y, text, colour in ends]
    placed.sort(key=lambda item: float(item[1]))
    heights = spread([float(item[1]) for item in placed], gap)
    for (x, y, text, colour), where in zip(placed, heights, strict=True):
        axes.plot([x, 1.02], [y, where], transform=axes.transAxes, color=colour, lw=0.6, alpha=0.6, clip_on=False)
        axes.text(1.027, where, text, transform=axes.transAxes, color=colour, va="center", ha="left")


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Sorted `positions`, moved apart as little as needed for a distance of `gap`, and into [0, 1] if they fit."""
    moved = list(positions)
    for _ in range(20):
        for k in range(1, len(moved)):
            overlap = gap - (moved[k] - moved[k - 1])
            if overlap > 1e-9:
                moved[k - 1] -= overlap / 2
                moved[k] += overlap / 2
    for k in range(1, len(moved)):
        moved[k] = max(moved[k], moved[k - 1] + gap)
    if gap * (len(moved) - 1) > 1:
        return moved
    for k in range(len(moved)):
        moved[k] = max(moved[k], k * gap)
    for k in range(len(moved)):
        moved[-1 - k] = min(moved[-1 - k], 1 - k * gap)
    return moved
