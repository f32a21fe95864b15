"""The curve of a range test as an SVG drawing in the report's colours, with the rates that it suggests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from lrstudy.training.range_curve import Curve
from lrstudy_reports.style import INK, SOFT, canvas, looks, plot_area, settings, svg

_HIGH, _LOW, _GAP = 2.6, 1.05, 0.34  # inches: the first panel, the other, between them
_TOP, _BOTTOM, _LEFT, _RIGHT = 0.42, 0.45, 0.62, 0.3
_LABEL_ROWS = 6


def draw(curve: Curve, suggestions: Mapping[str, float], chosen: str, is_logarithmic: bool) -> str:
    """The drawing as SVG text; the same curve gives the same bytes.

    Args:
        curve: With at least one loss.
        suggestions: The rates to mark, by name.
        chosen: The one of them to mark most clearly.
        is_logarithmic: Whether the rates rose exponentially.
    """
    with settings():
        return svg(figure_of(curve, suggestions, chosen, is_logarithmic))


def figure_of(curve: Curve, suggestions: Mapping[str, float], chosen: str, is_logarithmic: bool) -> Figure:
    """The drawing as a figure. Call it, and save the figure, within `style.settings()`."""
    has_accuracy = bool(curve.accuracies)
    total = _TOP + _HIGH + (_GAP + _LOW if has_accuracy else 0) + _BOTTOM
    figure = canvas(total)
    by_name = looks(["loss", "accuracy"], None)
    axes = plot_area(figure, _LEFT, _RIGHT, _TOP, total - _TOP - _HIGH)
    rates = np.array(curve.rates[: len(curve.losses)])
    axes.plot(rates, curve.losses, color=SOFT, lw=0.7, alpha=0.6)
    axes.plot(rates, curve.smoothed, color=by_name["loss"].colour)
    low, high = float(curve.smoothed.min()), float(curve.smoothed.max())
    room = 0.08 * (high - low) or 1.0
    axes.set_ylim(low - room, high + room)  # single batches may leave it
    _rates_axis(axes, curve, is_logarithmic, "loss: of each batch, and smoothed")
    _mark(axes, suggestions, chosen)
    if has_accuracy:
        axes.tick_params(labelbottom=False)
        below = plot_area(figure, _LEFT, _RIGHT, _TOP + _HIGH + _GAP, _BOTTOM)
        below.plot(curve.measured_rates, curve.accuracies, color=by_name["accuracy"].colour)
        _rates_axis(below, curve, is_logarithmic, "accuracy on the validation part")
    figure.axes[-1].set_xlabel("learning rate")
    return figure


def _rates_axis(axes: Axes, curve: Curve, is_logarithmic: bool, title: str) -> None:
    axes.set_title(title, pad=14 if title.startswith("loss") else None)
    if is_logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, numticks=12))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlim(curve.rates[0], curve.rates[len(curve.losses) - 1] * (1 + 1e-9))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)


def _mark(axes: Axes, suggestions: Mapping[str, float], chosen: str) -> None:
    """A vertical line at each suggestion, with its name at the foot; neighbours have their names at different heights."""
    low, high = axes.get_ylim()
    for number, (name, rate) in enumerate(sorted(suggestions.items(), key=lambda item: item[1])):
        is_chosen = name == chosen
        axes.axvline(rate, color=INK if is_chosen else SOFT, lw=1.2 if is_chosen else 0.6, ls="-" if is_chosen else ":")
        height = low + (0.02 + 0.065 * (number % _LABEL_ROWS)) * (high - low)
        axes.annotate(
            f" {name} {rate:.2g}", (rate, height), color=INK if is_chosen else SOFT, fontsize=8, annotation_clip=True,
            fontweight="bold" if is_chosen else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4},
        )  # fmt: skip
