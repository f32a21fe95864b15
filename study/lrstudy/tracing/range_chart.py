"""The curve of a range test as a chart for a terminal: the smoothed loss and, where it was measured, the accuracy."""

from __future__ import annotations

import numpy as np
from rich.text import Text

from lrstudy.settings import FloatArray
from lrstudy.tracing.trace_chart import Line, Panel, draw
from lrstudy.training.range_curve import Curve


def chart(curve: Curve, width: int, *, is_unicode: bool = True) -> Text:
    """The curve over the updates of its test: rates are the axis, logarithmic where they rose exponentially.

    Args:
        curve: With at least one loss.
        width: The most columns that the chart may take.
        is_unicode: Whether lines are drawn with braille dots.
    """
    end = len(curve.losses)

    def line(label: str, x: FloatArray, y: FloatArray) -> tuple[Line]:
        return (Line(label, 0, x, y, float(end)),)

    drawn = [Panel("loss (smoothed)", line("loss", np.arange(end, dtype=np.float64), curve.smoothed))]
    if curve.accuracies:
        after = np.array(curve.measured_after, dtype=np.float64) - 1
        drawn.append(Panel("accuracy (validation)", line("accuracy", after, np.array(curve.accuracies))))
    first, middle, last = (f"{curve.rates[update]:.2g}" for update in (0, end // 2, end - 1))
    return draw(drawn, width, (first, middle, f"{last} rate"), is_unicode=is_unicode)
