"""Everything that the page is composed from: a study, its comparison, and the tables and figures derived from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from lrstudy_reports.claim_findings import Finding
from lrstudy_reports.comparison import Comparison
from lrstudy_reports.costs import Closing, Sharing
from lrstudy_reports.last_answer import LastAnswer
from lrstudy_reports.page import Cell, Drawing
from lrstudy_reports.predicted import Predicted
from lrstudy_reports.style import Look
from lrstudy_reports.tables import StudyTables


@dataclass(frozen=True)
class Analysis:
    """What the sections of the page draw on.

    `predicted` is what was predicted on the test part, and the four after it are its tables. `findings` is what was found of
    the study's claims, `last` the last complete answer, if there was one.
    """

    study: StudyTables
    comparison: Comparison
    sharing: Sharing
    closing: Closing | None
    searchers: pd.DataFrame
    predicted: Predicted
    areas: pd.DataFrame
    class_metrics: pd.DataFrame
    confusions: pd.DataFrame
    exact: pd.DataFrame
    looks: Mapping[str, Look]
    drawings: Mapping[str, Drawing]
    until: pd.DataFrame
    findings: Sequence[Finding] = ()
    last: LastAnswer | None = None

    def drawn(self, *names: str) -> tuple[Drawing, ...]:
        """The figures called `names`, leaving out those that the study has no data for."""
        return tuple(self.drawings[name] for name in names if name in self.drawings)

    def arm(self, name: str, sub: str = "") -> Cell:
        """A table cell with the arm's name and colour."""
        return Cell(name, sub, colour=self.looks[name].colour)
