"""The figure of confusions: a panel per arm, where every row is a class and says what its examples were taken for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lrstudy_reports.counting import FloatArray, row_shares
from lrstudy_reports.predicted import Predicted
from lrstudy_reports.style import INK, WIDTH, canvas, plot_area, text_width

MOST_CLASSES = 20
"""With more classes no cell could be read."""
_MOST_CELLS = 1200
_RIGHT, _WRONG = (0, 114, 178), (213, 94, 0)  # blue and vermilion of Okabe and Ito
_LONGEST = 18
_SIZE = 7.0  # of type, in points
_WIDEST, _HIGHEST = 0.6, 0.3  # of a cell, in inches
_TOP, _BETWEEN = 0.28, 0.25
_OUTCOMES = ("found", "missed", "false alarm", "rightly none")
"""What becomes of the examples with a label (the first two), and of those without it."""
_APART = 0.3  # how far these pairs are apart, in cells


@dataclass(frozen=True)
class _Grid:
    """What all panels have in common: names of rows and columns, where columns begin (in cells), and which cells are right."""

    rows: Sequence[str]
    columns: Sequence[str]
    starts: Sequence[float]
    is_right: NDArray[np.bool_]

    @property
    def width(self) -> float:
        """In cells."""
        return self.starts[-1] + 1


def confusions(predicted: Predicted, arms: Sequence[str]) -> Figure | None:
    """A panel for each of the first of `arms`, as many as can be read; None without predictions or with too many classes."""
    known = [arm for arm in arms if arm in predicted.of_arm][: most_panels(len(predicted.names))]
    if not known or len(predicted.names) > MOST_CLASSES:
        return None
    grid = _grid(predicted, known[0])
    across = min(_most_across(grid), len(known))
    left = text_width(grid.rows, _SIZE) + 0.12
    cell = min(_WIDEST, ((WIDTH - left - 0.05 - _BETWEEN * (across - 1)) / across) / grid.width)
    is_upright = text_width(grid.columns, _SIZE) > cell
    bottom = (text_width(grid.columns, _SIZE) if is_upright else 0.1) + 0.14
    width, height = cell * grid.width, min(cell, _HIGHEST) * len(grid.rows)
    row_height = _TOP + height + bottom
    total = -(-len(known) // across) * row_height
    figure = canvas(total)
    for number, arm in enumerate(known):
        row, column = divmod(number, across)
        start, above = left + column * (width + _BETWEEN), row * row_height + _TOP
        axes = plot_area(figure, start, WIDTH - start - width, above, total - above - height)
        _draw(axes, grid, _shares(predicted, arm))
        axes.set_title(arm)
        axes.set_xticks([x + 0.5 for x in grid.starts], grid.columns, rotation=90 if is_upright else 0)
        axes.set_yticks(np.arange(len(grid.rows)) + 0.5, grid.rows if column == 0 else [], color=INK)
        axes.tick_params(length=0, labelsize=_SIZE)
    return figure


def most_panels(num_classes: int) -> int:
    """How many arms the figure shows at most."""
    return max(2, min(12, _MOST_CELLS // max(num_classes**2, 1)))


def _grid(predicted: Predicted, arm: str) -> _Grid:
    support = predicted.of_arm[arm][0].counts.support
    rows = [f"{_short(name)} ({count:,})" for name, count in zip(predicted.names, support, strict=True)]
    if predicted.has_several:
        is_right = np.tile([True, False, False, True], (len(rows), 1))
        return _Grid(rows, _OUTCOMES, (0, 1, 2 + _APART, 3 + _APART), is_right)
    names = [_short(name) for name in predicted.names]
    return _Grid(rows, names, range(len(names)), np.eye(len(names), dtype=bool))


def _shares(predicted: Predicted, arm: str) -> FloatArray:
    """The shares that a panel shows, (rows, columns), of the examples with the truth of their row; NaN if there are none."""
    shares = row_shares(predicted.matrix(arm))
    if not predicted.has_several:
        return shares
    return np.stack([shares[:, 1, 1], shares[:, 1, 0], shares[:, 0, 1], shares[:, 0, 0]], axis=1)


def _most_across(grid: _Grid) -> int:
    """How many panels stand side by side at most."""
    return 3 if len(grid.columns) <= 5 else 2 if len(grid.columns) <= 10 else 1


def _draw(axes: Axes, grid: _Grid, shares: FloatArray) -> None:
    """Fill `axes` with the cells of one panel."""
    corners, colours = [], []
    for row, column in product(range(len(grid.rows)), range(len(grid.columns))):
        share, is_right, left = shares[row, column], grid.is_right[row, column], grid.starts[column]
        strength = share if is_right else share**0.6  # a few wrong ones are to be seen as well
        corners.append([(left, row), (left + 1, row), (left + 1, row + 1), (left, row + 1)])
        colours.append(_tint(_RIGHT if is_right else _WRONG, strength if share > 0 else 0.0))
        if share > 0:
            text, ink = f"{100 * share:.0f}" if share >= 0.005 else "<1", "white" if strength > 0.6 else INK
            axes.text(left + 0.5, row + 0.53, text, ha="center", va="center", fontsize=_SIZE, color=ink)
    axes.add_collection(PolyCollection(corners, facecolors=colours, edgecolors="white", linewidths=0.8))
    axes.set(xlim=(0, grid.width), ylim=(len(grid.rows), 0))
    axes.spines[:].set_visible(False)


def _tint(colour: tuple[int, int, int], strength: float) -> tuple[float, float, float]:
    """Almost white for 0, `colour` for 1."""
    red, green, blue = (0.965 - strength * (0.965 - part / 255) for part in colour)
    return red, green, blue


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
