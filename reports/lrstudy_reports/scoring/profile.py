"""Performance profiles (Dolan and More 2002, Mathematical Programming 91) and their score, by AlgoPerf's rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lrstudy_reports.scoring.targets import Targets


@dataclass(frozen=True)
class ProfileRules:
    """How profiles are made.

    Attributes:
        max_ratio: What is slower than the fastest submission by more than this factor counts as not solved.
        num_points: At how many points of [1, max_ratio] the profile is integrated.
    """

    max_ratio: float = 4.0
    num_points: int = 100

    def __post_init__(self) -> None:
        if not self.max_ratio > 1 or self.num_points < 2:
            raise ValueError(
                f"expected a largest ratio above 1 and at least 2 points; got {self.max_ratio} and {self.num_points}"
            )


@dataclass(frozen=True)
class Profiles:
    """The profiles of submissions.

    Attributes:
        ratios: Cost of each submission (rows) on each base workload (columns) over that of the fastest; NaN: not solved.
        profiles: rho(tau), the share of base workloads whose ratio is at most tau: a row per submission, a column per tau.
        scores: The area under each profile over that of a perfect one, in [0, 1], the best first.
    """

    ratios: pd.DataFrame
    profiles: pd.DataFrame
    scores: pd.Series[float]


def profiles(costs: pd.DataFrame, targets: Targets, rules: ProfileRules) -> Profiles:
    """The profiles of submissions from their costs.

    1. A held-out workload is not solved where its base workload is not.
    2. What takes more than `max_ratio` times as long as the fastest submission is not solved.
    3. A base workload is not solved where a held-out variant of it is not.
    4. Score = integral of rho over [1, max_ratio] by the trapezoid rule / (max_ratio - 1).

    Args:
        costs: A row per submission, a column per workload; infinite where the target is not reached, NaN where nothing ran.
        targets: Which workloads count, and which are held out.
        rules: Largest ratio and points.
    """
    solved = costs.where(np.isfinite(costs))
    for name in targets.held_out:
        solved[name] = solved[name].where(solved[targets.base_of(name)].notna())
    solved = solved.where(solved <= rules.max_ratio * solved.min())
    for base in targets.base:
        for name in targets.variants(base):
            solved[base] = solved[base].where(solved[name].notna())
    counted = solved[list(targets.base)]
    ratios = counted / counted.min()
    taus = np.linspace(1.0, rules.max_ratio, rules.num_points)
    rho = (ratios.to_numpy()[:, :, None] <= taus).mean(axis=1)
    table = pd.DataFrame(rho, index=costs.index, columns=pd.Index(taus, name="tau"))
    area = np.trapezoid(rho, taus, axis=1) / (rules.max_ratio - 1)
    scores = pd.Series(area, index=costs.index, name="score").sort_values(ascending=False, kind="stable")
    return Profiles(ratios, table, scores)
