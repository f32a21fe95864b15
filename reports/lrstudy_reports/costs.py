"""Where device time went: the cost of tuning, what sharing saved, and the ledger summed up.

All costs are in allocated device-seconds, i.e. share x wall time.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from lrstudy_reports.tables import StudyTables

CATEGORIES = (
    "train",
    "evaluate",
    "range_test",
    "features",
    "state",
    "setup",
    "data",
    "recompute",
    "calibrate",
    "waiting",
    "between",
    "idle",
    "lost",
    "teardown",
)


@dataclass(frozen=True)
class Sharing:
    """How many epochs the trials asked for, and how many of them had to be trained.

    `asked` counts the rows of the epochs table, `distinct` the different lineages among them, `trained` the
    epochs that this study trained, `earlier` the distinct lineages that other studies had trained before.
    `arms` has the same counts by arm. Times are in device-seconds.
    """

    asked: int
    distinct: int
    trained: int
    earlier: int
    asked_device_s: float
    trained_device_s: float
    arms: pd.DataFrame


@dataclass(frozen=True)
class Closing:
    """The ledger summed up: device-seconds by category, against the time that was allocated.

    `allocated_s` is the length of each run x its slots x their share. `unaccounted_s` is what no category
    accounts for; during a run that includes time that workers have not reported yet.
    """

    categories: pd.DataFrame
    allocated_s: float
    accounted_s: float
    runs: int
    slots: int

    @property
    def unaccounted_s(self) -> float:
        """Allocated time that no category accounts for; negative if intervals overlap."""
        return self.allocated_s - self.accounted_s


def tuning_costs(study: StudyTables) -> pd.DataFrame:
    """What tuning, confirming and losses cost each arm, in device-seconds.

    Tuning counts every trial of the cohort and of all searchers, including those that were stopped, diverged
    or failed. `lost_device_s` sums the ledger's `lost` and `recompute` over the arm's trials.
    """
    trials = study.trials
    tuning, confirm = study.tuning, trials[trials["phase"] == "confirm"]
    ledger = study.ledger[study.ledger["category"].isin(["lost", "recompute"])]
    arm_of = trials.drop_duplicates("trial_id").set_index("trial_id")["arm"]
    lost = (ledger["share"] * ledger["duration_s"]).groupby(ledger["trial_id"].map(arm_of)).sum()
    return pd.DataFrame(
        {
            "tuning_standalone_device_s": tuning.groupby("arm")["standalone_device_s"].sum(),
            "tuning_spent_device_s": tuning.groupby("arm")["spent_device_s"].sum(),
            "confirm_spent_device_s": confirm.groupby("arm")["spent_device_s"].sum(),
            "lost_device_s": lost,
        },
        index=pd.Index(study.arms, name="arm"),
    ).fillna(0.0)


def sharing(study: StudyTables) -> Sharing:
    """Count the epochs asked for, the distinct ones and those trained, over all trials and by arm."""
    epochs = study.epochs.dropna(subset=["lineage"])
    own = epochs[~epochs["recalled"]]
    grouped, trained = epochs.groupby("arm"), own.groupby("arm")
    arms = pd.DataFrame(
        {
            "asked": grouped.size(),
            "distinct": grouped["lineage"].nunique(),
            "trained": trained.size(),
            "asked_device_s": grouped["device_s"].sum(),
            "trained_device_s": trained["device_s"].sum(),
        },
        index=pd.Index(study.arms, name="arm"),
    ).fillna(0)
    distinct, here = epochs["lineage"].nunique(), own["lineage"].nunique()
    return Sharing(
        asked=len(epochs),
        distinct=int(distinct),
        trained=len(own),
        earlier=int(distinct - here),
        asked_device_s=float(epochs["device_s"].sum()),
        trained_device_s=float(own["device_s"].sum()),
        arms=arms,
    )


def close_ledger(study: StudyTables) -> Closing | None:
    """Sum up the ledger; None if it is empty. A run lasts until its last interval ends."""
    ledger = study.ledger
    if ledger.empty:
        return None
    seconds = (ledger["share"] * ledger["duration_s"])[ledger["category"] != "unaccounted"]
    length = (ledger["start"] + ledger["duration_s"]).groupby(ledger["run"]).max()
    slots = ledger.groupby(["run", "host", "device"], dropna=False)["share"].max()
    allocated = float((slots.groupby(level="run").sum() * length).sum())
    by_category = seconds.groupby(ledger["category"]).sum()
    order = [*CATEGORIES, *sorted(set(by_category.index) - set(CATEGORIES))]
    by_category = by_category.reindex([name for name in order if by_category.get(name, 0.0) > 0])
    categories = pd.DataFrame({"category": by_category.index, "device_s": by_category.to_numpy()})
    categories["fraction"] = categories["device_s"] / allocated if allocated > 0 else float("nan")
    return Closing(categories, allocated, float(seconds.sum()), len(length), len(slots))
