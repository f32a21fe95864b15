"""Scores of training algorithms over several workloads, by the time or the steps that each needs to reach a target.

The rules are those of AlgoPerf (Dahl et al. 2023, arXiv 2306.07179), which gives them to the performance profiles of Dolan
and More (2002): `runs.py` reads evaluations, `targets.py` what has to be reached, `reaching.py` finds when that is,
`profile.py` compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lrstudy_reports.scoring.profile import ProfileRules, Profiles, profiles
from lrstudy_reports.scoring.reaching import costs
from lrstudy_reports.scoring.runs import By, read_runs
from lrstudy_reports.scoring.targets import Goal, Targets, read_targets, relaxed


@dataclass(frozen=True)
class Scores:
    """The scores of submissions, the best first, and what they were computed from.

    `costs` has a row per submission and a column per workload: seconds or steps to the target, infinite where it is never
    reached; before the rules on slow and held-out workloads.
    """

    profiles: Profiles
    costs: pd.DataFrame

    def rows(self) -> list[dict[str, Any]]:
        """One map per submission: its name, its score, and how many of the counted workloads it solves."""
        solved = self.profiles.ratios.notna().sum(axis=1)
        frame = pd.DataFrame({"score": self.profiles.scores, "solved": solved.reindex(self.profiles.scores.index)})
        return [{"submission": str(row.Index), "score": row.score, "solved": row.solved} for row in frame.itertuples()]


def score(
    runs: str | Path,
    targets: str | Path,
    *,
    by: By = "time",
    goals: Mapping[str, Goal] | None = None,
    relax: float = 0.0,
    budget: float | None = None,
    rules: ProfileRules | None = None,
) -> Scores:
    """Score the submissions of a table of runs.

    Args:
        runs: A Parquet file in the long form of `read_runs`.
        targets: A JSON file in the form of `read_targets`.
        by: Whether the time of a submission counts, or its steps.
        goals: Which metrics are to be minimised or maximised, for those of which the targets do not say it.
        relax: By which part of itself every target is made easier, in [0, 1).
        budget: How often the workload's `step_hint` a run may take, by steps; None: what the targets say, or no limit.
        rules: How profiles are made; by default AlgoPerf's.

    Returns:
        The scores.

    Raises:
        ValueError: A file cannot be read, or what is in it does not fit; one paragraph for each fault.
    """
    aimed = relaxed(read_targets(Path(targets), goals or {}), relax)
    reached = costs(read_runs(Path(runs), by), aimed, by, budget)
    return Scores(profiles(reached, aimed, rules or ProfileRules()), reached)


__all__ = ["ProfileRules", "Scores", "Targets", "score"]
