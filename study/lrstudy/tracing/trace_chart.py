"""Traces as a chart for a terminal, drawn with braille dots, or with plain characters where there is no UTF-8.

The learning rate has a panel; momentum and batch size have one if they change. Each line has its name at its right end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.text import Text

from lrstudy.settings import FloatArray
from lrstudy.tracing.trace import By, Trace

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of a braille character by row and column of its dots."""
_MARKS = "*o+x#@%&"
_COLOURS = ("blue", "red", "green", "magenta", "yellow", "cyan")
_LOG_SHARE, _LOW = 0.2, 0.05
OTHERS = -1
"""The series of a line that stands for several traces."""
_NOBODY = -2
_AXIS = 10  # columns left of a panel


@dataclass(frozen=True, eq=False)
class Line:
    """A line of a panel.

    Attributes:
        label: The name at its end.
        series: The number of its trace, or `OTHERS`.
        x, y: The values, each holding from its x to the next one; both of shape (values,).
        end: Where the last value stops holding.
        is_main: Whether it is the line of the whole trace, not of one of its sections.
    """

    label: str
    series: int
    x: FloatArray
    y: FloatArray
    end: float
    is_main: bool = True


@dataclass(frozen=True)
class Panel:
    """One quantity, with the lines of all traces."""

    title: str
    lines: tuple[Line, ...]
    log: bool = False

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and highest value of the axis."""
        values = np.concatenate([line.y for line in self.lines])
        high = float(values.max())
        if self.log:
            # A cosine falls through every decade in its last few updates, and they would take up most of the axis.
            return min(float(np.quantile(line.y[line.y > 0], 0.02)) for line in self.lines if line.y.any()), high
        low = float(values.min())
        low = 0.0 if low >= 0 and low < 0.6 * high else low - 0.05 * (high - low)
        return (low, high) if high > low else (0.0, high or 1.0)


def panels(traces: Sequence[Trace], by: By = "epoch") -> list[Panel]:
    """What there is to draw: the rate, and momentum and batch size if any trace changes them."""
    rates = tuple(line for number, trace in enumerate(traces) for line in _rates(number, trace, by))
    drawn = [Panel("learning rate", rates, _is_log([trace.lr for trace in traces]))]
    if any(trace.momentum.min() != trace.momentum.max() for trace in traces):
        momenta = [Line(t.label, k, _x(t, by), t.momentum, _end(t, by)) for k, t in enumerate(traces)]
        drawn.append(Panel("momentum", _merged(momenta)))
    if any(trace.batch.min() != trace.batch.max() for trace in traces):
        batches = [Line(t.label, k, _epoch_starts(t, by), t.batch, _end(t, by)) for k, t in enumerate(traces)]
        drawn.append(Panel("batch size", _merged(batches)))
    return drawn


def chart(traces: Sequence[Trace], width: int, by: By = "epoch", *, is_unicode: bool = True) -> Text:
    """The panels, one below the other.

    Args:
        traces: The traces; colours tell them apart on a terminal that has colours.
        width: The most columns that the chart may take.
        by: Whether the horizontal axis counts epochs or updates.
        is_unicode: Whether lines are drawn with braille dots; otherwise each trace has a plain character of its own.

    Returns:
        The chart as text with styles, one line per row.
    """
    drawn = panels(traces, by)
    end = max(line.end for line in drawn[0].lines)
    name = "epochs" if by == "epoch" else "updates"
    return draw(drawn, width, ("0", f"{end / 2:g}", f"{end:g} {name}"), is_unicode=is_unicode)


def draw(drawn: Sequence[Panel], width: int, axis: tuple[str, str, str], *, is_unicode: bool = True) -> Text:
    """Panels on one horizontal axis, which `axis` labels at its beginning, middle and end; the rest is as for `chart`."""
    longest = max(len(line.label) for panel in drawn for line in panel.lines)
    gutter = min(longest + (1 if is_unicode else 3), max(8, width // 3))
    columns = max(16, width - _AXIS - 1 - gutter)
    text = Text(no_wrap=True)
    for number, panel in enumerate(drawn):
        rows = 13 if number == 0 else 5
        text.append(f"{panel.title}{' (log scale)' if panel.log else ''}\n", style="bold")
        text.append_text(_Grid(panel, columns, rows, is_unicode).text(gutter))
    return text.append_text(_x_axis(axis, columns, is_unicode))


class _Grid:
    """The characters of one panel."""

    def __init__(self, panel: Panel, columns: int, rows: int, is_unicode: bool) -> None:
        self.panel, self.columns, self.rows, self.is_unicode = panel, columns, rows, is_unicode
        self.low, self.high = panel.limits
        self.bits = np.zeros((rows, columns), dtype=np.int64)
        self.owner = np.full((rows, columns), _NOBODY)
        self.tall, self.wide = (4, 2) if is_unicode else (1, 1)
        self.ends: list[tuple[float, str, int]] = []
        end = max(line.end for line in panel.lines)
        for line in reversed(panel.lines):  # so that the first line lies on top
            self._draw(line, end)

    def text(self, gutter: int) -> Text:
        """The rows with their axis and labels."""
        ticks = self._ticks()
        labels = self._labels()
        text = Text()
        for row in range(self.rows):
            bar = "┤" if self.is_unicode and row in ticks else "│" if self.is_unicode else "+" if row in ticks else "|"
            text.append(f"{ticks.get(row, ''):>{_AXIS - 1}}{bar}", style="dim")
            for column in range(self.columns):
                owner = int(self.owner[row, column])
                text.append(self._character(row, column), style=_style(owner))
            if row in labels:
                name, series = labels[row]
                text.append(f" {name[: gutter - 1]}", style=_style(series))
            text.append("\n")
        return text

    def _draw(self, line: Line, end: float) -> None:
        """Mark the dots from the lowest to the highest value of every column, joined to those of the column before."""
        num = self.columns * self.wide
        edges = np.searchsorted(line.x, np.arange(num + 1) * end / num, side="left")
        last = min(num, max(1, math.ceil(line.end / end * num)))
        before: int | None = None
        level = 0
        for column in range(last):
            start, stop = int(edges[column]), int(edges[column + 1])
            held = line.y[max(start - 1, 0) : start] if stop == start else line.y[start:stop]
            levels = [self._level(float(v)) for v in (held.min(), held.max())] if len(held) else [level, level]
            level = self._level(float(held[-1])) if len(held) else level
            low, high = min(levels), max(levels)
            if before is not None:
                low, high = (
                    min(low, before + 1) if before < low else low,
                    max(high, before - 1) if before > high else high,
                )
            for at in range(low, high + 1):
                self._mark(at, column, line.series)
            before = level
        self.ends.append((float(line.y[-1]), line.label, line.series))

    def _level(self, value: float) -> int:
        """The height of a value above the panel's floor, in dots."""
        most = self.rows * self.tall - 1
        if self.panel.log:
            fraction = math.log(max(value, self.low) / self.low) / (math.log(self.high / self.low) or 1.0)
        else:
            fraction = (value - self.low) / (self.high - self.low)
        return min(max(round(fraction * most), 0), most)

    def _row(self, level: int) -> int:
        return self.rows - 1 - level // self.tall

    def _mark(self, level: int, column: int, series: int) -> None:
        row, cell = self._row(level), column // self.wide
        if self.owner[row, cell] != series:
            self.bits[row, cell] = 0
            self.owner[row, cell] = series
        self.bits[row, cell] |= _DOTS[3 - level % 4][column % 2] if self.is_unicode else 1

    def _character(self, row: int, column: int) -> str:
        bits = int(self.bits[row, column])
        if not bits:
            return " "
        return chr(0x2800 + bits) if self.is_unicode else _mark(int(self.owner[row, column]))

    def _ticks(self) -> dict[int, str]:
        """Values at the top, in the middle and at the bottom."""
        rows = (0, self.rows // 2, self.rows - 1)
        ticks = {}
        for row in rows:
            fraction = (self.rows - 1 - row) / (self.rows - 1)
            if self.panel.log:
                value = self.low * (self.high / self.low) ** fraction
            else:
                value = self.low + fraction * (self.high - self.low)
            ticks[row] = f"{value:.3g}"
        return ticks

    def _labels(self) -> dict[int, tuple[str, int]]:
        """The names of the lines by row, ordered by last value; each has a row of its own while there is room."""
        in_order = reversed(self.ends)  # if values are equal, the first trace comes first
        ordered = sorted(in_order, key=lambda end: -end[0])[: self.rows]
        rows: list[int] = []
        for value, _, _ in ordered:
            rows.append(max(self._row(self._level(value)), rows[-1] + 1 if rows else 0))
        for k in range(len(rows) - 1, -1, -1):  # move those that would fall below the last row up again
            rows[k] = min(rows[k], self.rows - len(rows) + k)
        return {
            row: (name if self.is_unicode else f"{_mark(series)} {name}", series)
            for row, (_, name, series) in zip(rows, ordered, strict=True)
        }


def _style(series: int) -> str:
    return _COLOURS[series % len(_COLOURS)] if series >= 0 else "dim"


def _mark(series: int) -> str:
    return _MARKS[series % len(_MARKS)] if series >= 0 else "."


def _merged(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The lines, with those that stay at the same value merged into one, called "others" if it stands for several."""
    levels: dict[float, list[Line]] = {}
    for line in lines:
        if line.y.min() == line.y.max():
            levels.setdefault(float(line.y[0]), []).append(line)
    varying = [line for line in lines if line.y.min() != line.y.max()]
    merged = [
        same[0] if len(same) == 1 else replace(max(same, key=lambda line: line.end), label="others", series=OTHERS)
        for same in levels.values()
    ]
    return (*varying, *merged)


def _rates(number: int, trace: Trace, by: By) -> list[Line]:
    """A line for the rate of the head, and one for each section whose rate differs from that of the next one."""
    x, end = _x(trace, by), _end(trace, by)
    last = trace.lr.shape[1] - 1
    lines = [Line(trace.label, number, x, trace.lr[:, last], end)]
    for section in range(last - 1, -1, -1):
        if not np.array_equal(trace.lr[:, section], trace.lr[:, section + 1]):
            lines.append(Line(f"{trace.label} section {section + 1}", number, x, trace.lr[:, section], end, False))
    return lines


def _x(trace: Trace, by: By) -> FloatArray:
    return trace.clock if by == "epoch" else np.arange(len(trace.clock), dtype=np.float64)


def _epoch_starts(trace: Trace, by: By) -> FloatArray:
    if by == "epoch":
        return np.arange(len(trace.settings), dtype=np.float64)
    return np.cumsum([0, *(s.num_updates for s in trace.settings[:-1])]).astype(np.float64)


def _end(trace: Trace, by: By) -> float:
    return float(len(trace.settings) if by == "epoch" else len(trace.clock))


def _is_log(values: Sequence[FloatArray]) -> bool:
    """Whether a linear axis would hide much: a fifth of some trace lies below a twentieth of the highest value."""
    high = max(float(v.max()) for v in values)
    low = min(float(v.min()) for v in values)
    return low > 0 and any(float((v < _LOW * high).mean()) >= _LOG_SHARE for v in values)


def _x_axis(axis: tuple[str, str, str], columns: int, is_unicode: bool) -> Text:
    corner, line = ("└", "─") if is_unicode else ("+", "-")
    text = Text(" " * (_AXIS - 1) + corner + line * columns + "\n", style="dim")
    first, middle, last = axis
    line_of_numbers = f"{first:<{columns // 2}}{middle}"
    line_of_numbers += last.rjust(columns - len(line_of_numbers))
    return text.append(" " * _AXIS + line_of_numbers + "\n")
