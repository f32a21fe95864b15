"""What a page is made of: a study, its comparison, and the tables and figures made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from lrstudy_reports.comparison import Comparison
from lrstudy_reports.costs import Closing, Sharing
from lrstudy_reports.page import Cell, Drawing
from lrstudy_reports.style import Look
from lrstudy_reports.tables import StudyTables


@dataclass(frozen=True)
class Analysis:
    """All that the sections of a page draw on; `ranked` is the test AUROC of each class and arm."""

    study: StudyTables
    comparison: Comparison
    sharing: Sharing
    closing: Closing | None
    searchers: pd.DataFrame
    ranked: pd.DataFrame
    looks: Mapping[str, Look]
    drawings: Mapping[str, Drawing]

    def drawn(self, *names: str) -> tuple[Drawing, ...]:
        """Those of the figures `names` that there are."""
        return tuple(self.drawings[name] for name in names if name in self.drawings)

    def arm(self, name: str, sub: str = "") -> Cell:
        """A cell with the arm's name and colour."""
        return Cell(name, sub, colour=self.looks[name].colour)
