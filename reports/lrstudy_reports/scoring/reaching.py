"""When a submission reaches the target of a workload."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from lrstudy_reports.scoring.runs import By
from lrstudy_reports.scoring.targets import Target, Targets


def costs(runs: pd.DataFrame, targets: Targets, by: By, budget: float | None = None) -> pd.DataFrame:
    """The cost at which each submission (rows) reaches the target of each workload (columns).

    Of a study the trial counts that reaches the target after the fewest evaluations, with its cost then; of two with as many
    the cheaper one. Of a workload it is the median over studies: infinite if the target is not reached in half of them. NaN
    where a submission has no run of a workload.

    Args:
        runs: The evaluations, as `read_runs` gives them.
        targets: The targets.
        by: What the cost is.
        budget: How often the `step_hint` a run may take (by steps); None: the limits of the targets, if they have any.

    Raises:
        ValueError: No run is of a workload that counts, a budget has nothing to refer to, or a target's metric was not
            measured.
    """
    submissions = sorted(runs["submission"].unique())
    names = list(targets.by_workload)
    table = pd.DataFrame(
        np.nan, index=pd.Index(submissions, name="submission"), columns=pd.Index(names, name="workload")
    )
    counted = runs[runs["workload"].isin(names)]
    if counted.empty:
        raise ValueError(
            f"no run is of a workload that counts ({', '.join(names)}); got {', '.join(sorted(runs['workload'].unique()))}"
        )
    for name, of_workload in counted.groupby("workload", sort=False):
        target = targets.by_workload[str(name)]
        measured = of_workload[of_workload["metric_name"] == target.metric]
        if measured.empty:
            found = ", ".join(sorted(of_workload["metric_name"].unique()))
            raise ValueError(f"no run of {name} measured {target.metric}, its target's metric; they have {found}")
        reached = _of_studies(measured, target, _limit(str(name), target, by, budget))
        for submission, of_submission in reached.groupby(level="submission"):
            table.loc[str(submission), str(name)] = float(np.median(of_submission))
    return table


def _of_studies(runs: pd.DataFrame, target: Target, limit: float) -> pd.Series[float]:
    """The cost at which each (submission, study) reaches the target within a limit; infinite if it does not."""
    better = runs["metric"] <= target.value if target.goal == "min" else runs["metric"] >= target.value
    evaluation = runs.groupby(["submission", "study", "trial"]).cumcount()
    hits = runs.assign(evaluation=evaluation)[better & (runs["cost"] <= limit)]
    first = hits.sort_values(["evaluation", "cost"], kind="stable").drop_duplicates(["submission", "study"])
    studies = pd.MultiIndex.from_frame(runs[["submission", "study"]].drop_duplicates())
    return first.set_index(["submission", "study"])["cost"].astype(float).reindex(studies, fill_value=math.inf)


def _limit(workload: str, target: Target, by: By, budget: float | None) -> float:
    """The cost beyond which evaluations do not count."""
    if budget is not None:
        if by != "steps" or target.step_hint is None:
            raise ValueError(
                f"a budget is so many times the step_hint of a workload, so it goes with --by steps; {workload} "
                f"{'has none' if by == 'steps' else 'is scored by time'}"
            )
        return budget * target.step_hint
    limit = target.max_time_s if by == "time" else target.max_steps
    return math.inf if limit is None else limit
