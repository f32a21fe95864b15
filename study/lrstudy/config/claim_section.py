"""The section of a study file on one claim. config/claims.py has the rules between its fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lrstudy.config.published import Measure
from lrstudy.config.section import ConfigSection, Fraction, Text
from lrstudy.config.until import Metric

ClaimMetric = Literal[Metric, "precision", "recall", "specificity", "train_accuracy", "train_exact_match"]


class ClaimConfig(ConfigSection):
    """What somebody claims, and which numbers of the study it is held against.

    The claim is a published one by its id, or `text` with its `source` and, as a fraction or a ratio, what is `expected`.
    """

    claim: Text | None = None
    text: Text | None = None
    source: Text | None = None
    expected: Annotated[float | Literal["above", "below"] | None, Field(description="a number, above or below")] = None
    measure: Measure | None = None
    not_testable: Text | None = None
    arm: Text | None = None
    against: Text | None = None
    metric: ClaimMetric | None = None
    label: Text | None = None
    margin: Fraction | None = None
    workload: Text | None = None
