"""Where device time went: calibrated cost of a training, cost of tuning, sharing, and the ledger's closing.

Every number is in allocated device-seconds: share x wall time.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from lrstudy_reports.tables import Study, trainable_sections

CATEGORIES = (
    "train",
    "evaluate",
    "range_test",
    "features",
    "state",
    "setup",
    "data",
    "recompute",
    "waiting",
    "between",
    "idle",
    "lost",
    "teardown",
)
_KEY = ["kind", "batch_size", "sections", "device_kind"]


@dataclass(frozen=True)
class Calibration:
    """Median device-seconds per update and per evaluation, and what each confirm epoch costs by them.

    `updates` has one row per kind of epoch, batch size, trainable sections and device kind; `evaluations`
    maps a device kind to its median. `epochs` are the epochs of the confirm trials with `calibrated_s`.
    The medians are over this study's own trained epochs; recalled ones stand in only where no other are
    (`source`). They are not yet measured alone on the device, but a median is not moved by the first
    epochs of a batch shape nor by a few epochs that had a device to themselves.
    """

    updates: pd.DataFrame
    evaluations: dict[str, float]
    epochs: pd.DataFrame


@dataclass(frozen=True)
class Sharing:
    """Epochs asked for by trials, and what they came down to.

    `asked` = rows of the epochs table; `distinct` = different lineages among them; `trained` = epochs
    trained by this study; `earlier` = distinct lineages that others had trained. Times in device-seconds.
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
    """The ledger summed up: device-seconds by category against the allocated time.

    `allocated_s` = length of each run x its slots x their share. `unaccounted_s` is what no category
    holds; while a run is under way it also holds what is in flight.
    """

    categories: pd.DataFrame
    allocated_s: float
    accounted_s: float
    runs: int
    slots: int

    @property
    def unaccounted_s(self) -> float:
        """Allocated time that no category holds; negative if intervals overlap."""
        return self.allocated_s - self.accounted_s


def calibrate(study: Study) -> Calibration:
    """Calibrated cost of the epochs of the confirm trials: updates x median per update + one evaluation.

    Where a study ran on several device kinds, all epochs are priced on the kind that trained most, as far
    as it has a median for them: an arm must not look cheap because it was given the faster device. An
    epoch without updates (a features pass) costs what was recorded.
    """
    epochs = _prepared(study)
    updates, evaluations = _update_medians(epochs), _evaluation_medians(epochs)
    confirm = epochs[epochs["trial_id"].isin(set(study.confirming["trial_id"]))]
    confirm = confirm.sort_values(["trial_id", "epoch"], kind="stable").reset_index(drop=True)
    reference = _reference_kind(epochs)
    rate = _looked_up(confirm.assign(device_kind=reference), updates).fillna(_looked_up(confirm, updates))
    recorded = confirm["device_share"] * confirm["train_s"]
    evaluate = pd.Series(evaluations.get(reference, 0.0), index=confirm.index, dtype="float64")
    calibrated = (rate * confirm["updates"]).fillna(recorded) + evaluate
    return Calibration(updates, evaluations, confirm.assign(calibrated_s=calibrated))


def tuning_costs(study: Study) -> pd.DataFrame:
    """Device-seconds by arm: tuning stand-alone and spent, confirming spent, and what was lost.

    Tuning counts every trial of the cohort and of all searchers, also stopped, diverged and failed ones.
    `lost_device_s` is the ledger's `lost` and `recompute` under the arm's trials.
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


def sharing(study: Study) -> Sharing:
    """How far epochs asked for were the same epochs."""
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


def close_ledger(study: Study) -> Closing | None:
    """The ledger summed up, or None if there is none. A run is as long as its last interval's end."""
    ledger = study.ledger
    if ledger.empty:
        return None
    seconds = ledger["share"] * ledger["duration_s"]
    length = (ledger["start"] + ledger["duration_s"]).groupby(ledger["run"]).max()
    slots = ledger.groupby(["run", "host", "device"], dropna=False)["share"].max()
    allocated = float((slots.groupby(level="run").sum() * length).sum())
    by_category = seconds.groupby(ledger["category"]).sum()
    order = [*CATEGORIES, *sorted(set(by_category.index) - set(CATEGORIES))]
    by_category = by_category.reindex([name for name in order if by_category.get(name, 0.0) > 0])
    categories = pd.DataFrame({"category": by_category.index, "device_s": by_category.to_numpy()})
    categories["fraction"] = categories["device_s"] / allocated if allocated > 0 else float("nan")
    return Closing(categories, allocated, float(seconds.sum()), len(length), len(slots))


def _prepared(study: Study) -> pd.DataFrame:
    """The epochs with `sections`, device-seconds per update and per evaluation, and without gaps in keys."""
    epochs = study.epochs.assign(kind=study.epochs["kind"].fillna("train"))
    partly = trainable_sections(study.folder)
    epochs["sections"] = epochs["settings"].map(partly).fillna("all") if partly else "all"
    epochs["device_kind"] = epochs["device_kind"].fillna(study.lock.device_kind)
    epochs["device_share"] = epochs["device_share"].fillna(1.0)
    updates = epochs["updates"].where(epochs["updates"] > 0)
    epochs["update_s"] = epochs["device_share"] * epochs["train_s"] / updates
    epochs["evaluate_s"] = epochs["device_share"] * epochs["eval_s"]
    return epochs


def _update_medians(epochs: pd.DataFrame) -> pd.DataFrame:
    """One row per key: median device-seconds per update, over how many epochs, trained or recalled ones."""
    timed = epochs.dropna(subset=["update_s"])
    parts = []
    for source, rows in (("trained", timed[~timed["recalled"]]), ("recalled", timed[timed["recalled"]])):
        medians = rows.groupby(_KEY)["update_s"].agg(["median", "size"]).reset_index()
        parts.append(medians.assign(source=source))
    both = pd.concat(parts, ignore_index=True).drop_duplicates(_KEY, keep="first")
    both = both.rename(columns={"median": "device_s_per_update", "size": "epochs"})
    return both.sort_values(_KEY, kind="stable").reset_index(drop=True)


def _evaluation_medians(epochs: pd.DataFrame) -> dict[str, float]:
    trained = epochs[~epochs["recalled"]]
    medians = epochs.groupby("device_kind")["evaluate_s"].median().dropna().to_dict()
    medians |= trained.groupby("device_kind")["evaluate_s"].median().dropna().to_dict()
    return {str(kind): float(value) for kind, value in medians.items()}


def _reference_kind(epochs: pd.DataFrame) -> str:
    trained = epochs[~epochs["recalled"]]
    counts = (trained if len(trained) else epochs)["device_kind"].value_counts()
    return min((kind for kind in counts.index if counts[kind] == counts.max()), default="")


def _looked_up(epochs: pd.DataFrame, updates: pd.DataFrame) -> pd.Series[float]:
    """The median per update for each row of `epochs`; NaN where there is none."""
    found = epochs[_KEY].merge(updates, on=_KEY, how="left")["device_s_per_update"]
    return found.set_axis(epochs.index)
