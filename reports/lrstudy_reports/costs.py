"""Where device time went: the cost of tuning, what sharing saved, and the ledger summed up.

All costs are in allocated device-seconds, i.e. share x wall time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import pandas as pd

from lrstudy_reports.calibration import Calibration
from lrstudy_reports.schemas import SEARCHES
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
    """How many epochs one search asked for, and how many of them had to be trained.

    Another searcher, or a repeat, asks for the cohort once more. That it is recalled then says nothing of what a search
    shares, so `asked`, `distinct`, `trained`, `earlier` and `asked_device_s` count the first search of the first searcher
    and the confirm trials. `asked` counts epochs of trials, `distinct` the different lineages among them, `trained` those
    of these that this study trained, `earlier` those that other studies had trained before. `searches` has a row for every
    search, its tuning trials alone, `arms` one for every arm. `total` is how many epochs the whole study trained,
    `repeated` how many of these it had trained before. Times are in device-seconds.
    """

    asked: int
    distinct: int
    trained: int
    earlier: int
    asked_device_s: float
    searches: pd.DataFrame
    arms: pd.DataFrame
    total: int
    repeated: int
    total_device_s: float


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


def arm_costs(study: StudyTables, calibration: Calibration) -> pd.DataFrame:
    """What tuning, confirming and losses cost each arm, in device-seconds.

    Two columns on tuning count every trial of the cohort and of all searchers, including those that were stopped,
    diverged or failed: `tuning_standalone_device_s` and `tuning_spent_device_s`. `tuning_device_s` is the calibrated
    cost of the search that chose: the first searcher's trials, the mean over its repeats; NaN where a kind of update has
    no price. All of them include the range tests that found an arm's rates. Those with `paid` in their name divide what was trained here among all arms that used it. `lost_device_s`
    sums the ledger's `recompute` over the arm's trials, and `lost` over those whose worker died.
    """
    trials = study.trials
    tuning, confirm = study.tuning, trials[trials["phase"] == "confirm"]
    paid = _paid(study)
    costs = pd.DataFrame(
        {
            "tuning_standalone_device_s": tuning.groupby("arm")["standalone_device_s"].sum(),
            "tuning_spent_device_s": tuning.groupby("arm")["spent_device_s"].sum(),
            "confirm_spent_device_s": confirm.groupby("arm")["spent_device_s"].sum(),
            "lost_device_s": _lost(study),
            "tuning_paid_device_s": paid[paid["phase"] != "confirm"].groupby("arm")["device_s"].sum(),
            "confirm_paid_device_s": paid[paid["phase"] == "confirm"].groupby("arm")["device_s"].sum(),
        },
        index=pd.Index(study.arms, name="arm"),
    ).fillna(0.0)
    tested = _of_range_tests(study, calibration)
    for column in ("standalone_device_s", "spent_device_s", "paid_device_s"):
        costs[f"tuning_{column}"] += tested[column]
    one_search = _of_one_search(study, calibration).reindex(costs.index)
    return costs.assign(tuning_device_s=one_search + tested["calibrated_device_s"])


def _of_one_search(study: StudyTables, calibration: Calibration) -> pd.Series[float]:
    """The calibrated cost of one search of the first searcher, by arm; NaN where a trial has epochs without a price."""
    trials = _trials_of(study, next(iter(study.searchers()), None))
    cost = trials["trial_id"].map(calibration.cost_of_trials()).astype("float64")
    has_trained = trials["trial_id"].isin(set(study.epochs["trial_id"]))
    total = cost.where(has_trained, 0.0).groupby(trials["arm"]).agg(lambda costs: costs.sum(skipna=False))
    return total / trials["repeat"].fillna(0).groupby(trials["arm"]).nunique()


def _of_range_tests(study: StudyTables, calibration: Calibration) -> pd.DataFrame:
    """What range tests cost each arm, in device-seconds; 0 for arms without one.

    Stand-alone every arm bears the whole test, spent only the first one with it; what was paid is divided among all that
    use it. At calibrated costs a test is its updates and evaluations, where their prices are known; else as recorded.
    """
    tests = study.range_tests
    paid = tests.groupby("range_test")["spent_device_s"].transform("sum")
    users = tests.groupby("range_test")["arm"].transform("nunique")
    costs = pd.DataFrame(
        {
            "standalone_device_s": tests["device_s"],
            "spent_device_s": tests["spent_device_s"],
            "paid_device_s": paid / users,
            "calibrated_device_s": _calibrated(study, calibration).fillna(tests["device_s"]),
        }
    )
    by_arm = costs.groupby(tests["arm"]).sum()
    return by_arm.reindex(pd.Index(study.arms, name="arm")).fillna(0.0)


def _calibrated(study: StudyTables, calibration: Calibration) -> pd.Series[float]:
    """Updates and evaluations at the costs measured alone on the device; NaN where these are not known."""
    tests, prices = study.range_tests, study.calibration
    if not calibration.is_alone:
        return pd.Series(float("nan"), index=tests.index, dtype="float64")
    each = tests["update_kind"].map(prices.set_index("update_kind")["device_s_per_update"]).astype("float64")
    evaluation = prices.loc[prices["source"] == "measured", "device_s_per_evaluation"].median()
    return tests["updates"] * each + tests["evaluations"] * evaluation


def _lost(study: StudyTables) -> pd.Series[float]:
    """Device-seconds that were lost or trained once more, by arm.

    The ledger has the boot of a dead worker's successor under the trial that came next. It is lost with the trial before,
    the last one that the slot worked on.
    """
    arm_of = study.trials.drop_duplicates("trial_id").set_index("trial_id")["arm"]
    concerned = study.ledger["category"].isin(["lost", "recompute"])
    runs = study.ledger["run"].isin(set(study.ledger.loc[concerned, "run"]))
    ledger = study.ledger[runs].sort_values(["run", "host", "device", "start"], kind="stable")
    is_lost = ledger["category"] == "lost"
    worked_on = ledger["trial_id"].where(~is_lost & ledger["trial_id"].isin(arm_of.index))
    before = worked_on.groupby([ledger["run"], ledger["host"], ledger["device"]], dropna=False).ffill()
    trial = ledger["trial_id"].where(~is_lost, before)
    seconds = (ledger["share"] * ledger["duration_s"])[is_lost | (ledger["category"] == "recompute")]
    return seconds.groupby(trial.map(arm_of)).sum()


def _paid(study: StudyTables) -> pd.DataFrame:
    """What was trained here, divided: one row per lineage, arm and phase (tuning or confirm) that used it, `device_s` its part.

    Arms pay in equal parts, whoever trained first; so do the phases of one arm.
    """
    phase_of = study.trials.drop_duplicates("trial_id").set_index("trial_id")["phase"].replace("cohort", "tune")
    epochs = study.epochs.dropna(subset=["lineage"])
    cost = epochs[~epochs["recalled"]].groupby("lineage")["device_s"].sum()
    used = epochs.assign(phase=epochs["trial_id"].map(phase_of))[["lineage", "arm", "phase"]].drop_duplicates()
    used = used[used["lineage"].isin(cost.index)]
    arms = used.groupby("lineage")["arm"].transform("nunique")
    phases = used.groupby(["lineage", "arm"])["phase"].transform("nunique")
    return used.assign(device_s=used["lineage"].map(cost).astype("float64") / arms / phases)


def sharing(study: StudyTables) -> Sharing:
    """Count the epochs that one search asked for, the distinct ones and those trained; beside it other searches and arms.

    Times are those of epochs alone: features are no epochs, and shared in ways of their own.
    """
    epochs = study.trained.dropna(subset=["lineage"])
    own = epochs[~epochs["recalled"]]
    searches = _searches(study)
    first = next(iter(searches.values()), study.tuning)
    of_first = (study.trials["phase"] == "confirm") & (study.trials["repeat"].fillna(0) == 0)
    counted = epochs[epochs["trial_id"].isin({*first["trial_id"], *study.trials.loc[of_first, "trial_id"]})]
    distinct = set(counted["lineage"])
    trained = len(distinct & set(own["lineage"]))
    return Sharing(
        asked=len(counted),
        distinct=len(distinct),
        trained=trained,
        earlier=len(distinct) - trained,
        asked_device_s=float(counted["device_s"].sum()),
        searches=_of_searches(epochs, searches),
        arms=_of_arms(study, epochs, counted),
        total=len(own),
        repeated=len(own) - own["lineage"].nunique(),
        total_device_s=float(own["device_s"].sum()),
    )


def _searches(study: StudyTables) -> dict[tuple[str, int], pd.DataFrame]:
    """The tuning trials of every search, by searcher and repeat, the first searcher's first."""
    searches: dict[tuple[str, int], pd.DataFrame] = {}
    for searcher in study.searchers():
        trials = _trials_of(study, searcher)
        for repeat, of_repeat in trials.groupby(trials["repeat"].fillna(0)):
            searches[searcher, int(cast(float, repeat))] = of_repeat
    return searches


def _trials_of(study: StudyTables, searcher: str | None) -> pd.DataFrame:
    """The tuning trials of all searches of a searcher; those of the cohort that are in nobody's name count for all."""
    tuning = study.tuning
    in_nobodys_name = (tuning["phase"] == "cohort") & ~tuning["searcher"].isin(study.searchers())
    return tuning if searcher is None else tuning[(tuning["searcher"] == searcher) | in_nobodys_name]


def _of_searches(epochs: pd.DataFrame, searches: Mapping[tuple[str, int], pd.DataFrame]) -> pd.DataFrame:
    """The columns of searches.csv."""
    rows = []
    for (searcher, repeat), trials in searches.items():
        mine = epochs[epochs["trial_id"].isin(set(trials["trial_id"]))]
        once = mine.drop_duplicates("lineage")
        sums = (float(mine["device_s"].sum()), float(once["device_s"].sum()))
        rows.append((searcher, repeat, len(trials), len(mine), len(once), *sums))
    return pd.DataFrame(rows, columns=SEARCHES.names)


def _of_arms(study: StudyTables, epochs: pd.DataFrame, counted: pd.DataFrame) -> pd.DataFrame:
    """The columns of sharing.csv, by arm; `counted` are the epochs of one search and of the confirm trials."""
    grouped, trained, of_search = (part.groupby("arm") for part in (epochs, epochs[~epochs["recalled"]], counted))
    return pd.DataFrame(
        {
            "asked": grouped.size(),
            "distinct": grouped["lineage"].nunique(),
            "trained": trained.size(),
            "asked_device_s": grouped["device_s"].sum(),
            "trained_device_s": trained["device_s"].sum(),
            "search_asked": of_search.size(),
            "search_distinct": of_search["lineage"].nunique(),
        },
        index=pd.Index(study.arms, name="arm"),
    ).fillna(0)


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
