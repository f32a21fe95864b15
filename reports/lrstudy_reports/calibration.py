"""Calibrated cost of a training: what its updates cost alone on the device, or else their median recorded cost.

All costs are in allocated device-seconds, i.e. share x wall time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from lrstudy_reports.lock import Lock
from lrstudy_reports.tables import FEATURES, StudyTables, is_on_features, trainable_sections, update_kinds

_KEY = ["kind", "batch_size", "sections", "device_kind"]
ALONE = "alone"
"""The `source` of costs that were measured alone on the device."""
_BETWEEN = "interpolated"
"""The `source` of those that lie between measured ones."""


@dataclass(frozen=True)
class Calibration:
    """The cost of updates, and of each epoch at those costs.

    `is_alone` says that the costs were measured alone on the device; `updates` then has one row per kind of update.
    Otherwise it has one row per kind of epoch, batch size, trainable sections and device kind, with the median over the
    epochs that this study trained, or over recalled ones where it trained none (column `source`). A few slow first
    epochs do not move a median, but whatever shared the device for long does. `priced` holds all epochs of the study,
    with their cost on a `device_kind` as `calibrated_s`; NaN where it is not known, which can be so of tuning trials
    alone. `epochs` are those of the confirm trials that represent their arms.
    """

    updates: pd.DataFrame
    priced: pd.DataFrame
    epochs: pd.DataFrame
    is_alone: bool
    device_kind: str

    def identification(self, lock: Lock) -> dict[str, Any]:
        """The columns by which rows of several studies are told apart and joined."""
        return {
            "study": lock.name,
            "data": lock.data.get("source"),
            "model": lock.model.get("name"),
            "budget_epochs": lock.budget_epochs,
            "device_kind": self.device_kind or None,
            "unit": lock.unit,
        }

    def cost_of_trials(self) -> pd.Series[float]:
        """The calibrated cost of each trial with epochs, by its id; NaN where an epoch has none."""
        return (
            self.priced.groupby("trial_id")["calibrated_s"]
            .sum(min_count=1)
            .where(self.priced["calibrated_s"].notna().groupby(self.priced["trial_id"]).all())
        )


def calibrate(study: StudyTables) -> Calibration:
    """Price epochs: full updates x seconds per update, the smaller last update, plus an epoch and an evaluation.

    Costs measured alone on the device are used only if they are known for all epochs of the confirm trials: measured and
    recorded costs are not comparable.
    """
    return _alone(study) or _by_medians(study)


def _alone(study: StudyTables) -> Calibration | None:
    """Price by measured costs; None if some are missing.

    An epoch beyond its updates, and an evaluation, cost the same for all kinds of update on images, and for all on features:
    the median. What is no epoch, such as computing features, costs what was recorded.
    """
    prices, epochs = study.calibration, study.epochs
    measured = prices[prices["source"] != _BETWEEN]
    beyond = (measured["device_s_per_epoch"], measured["device_s_per_evaluation"])
    each = {
        on: sum(part[measured["recipe"].map(_is_on_features) == on].median() for part in beyond) for on in (True, False)
    }
    on_features = epochs["settings"].map(trainable_sections(study.folder)) == FEATURES
    of_epochs = _of_updates(study) + on_features.map(each).astype("float64")
    priced = epochs.assign(calibrated_s=of_epochs.where(epochs.index.isin(study.trained.index), epochs["device_s"]))
    confirm = _confirm(study, priced)
    if prices.empty or confirm["calibrated_s"].isna().any():
        return None
    updates = prices.assign(source=prices["source"].where(prices["source"] == _BETWEEN, ALONE))
    return Calibration(updates.drop(columns="update_kind"), priced, confirm, True, str(prices["device_kind"].iloc[0]))


def _is_on_features(recipe: str | None) -> bool:
    return is_on_features(json.loads(recipe)) if recipe else False


def _of_updates(study: StudyTables) -> pd.Series[float]:
    """The measured cost of each epoch's updates: the full ones, and the last where it is of another size; NaN if unknown.

    Tables of an earlier version do not tell the last update from the others.
    """
    rate = study.calibration.set_index("update_kind")["device_s_per_update"]
    kinds, tails = (study.epochs["settings"].map(kinds_of) for kinds_of in update_kinds(study.folder))
    full = study.epochs["updates"] - tails.notna()
    each, last = (digests.map(rate).astype("float64") for digests in (kinds, tails))
    return (full * each).where(full > 0, 0.0) + last.where(tails.notna(), 0.0)


def _by_medians(study: StudyTables) -> Calibration:
    """Price by the medians of recorded epochs.

    If a study ran on several kinds of device, epochs are priced on the kind that trained most of them, where
    it has a median for them: no arm may look cheap because it happened to get the faster device. An epoch
    without updates (a features pass) costs what was recorded. A smaller last update needs no care: epochs of one batch
    size have the same one.
    """
    epochs = _prepared(study)
    updates, evaluations = _update_medians(epochs), _evaluation_medians(epochs[epochs["kind"] == "train"])
    reference = _reference_kind(epochs)
    rate = _looked_up(epochs.assign(device_kind=reference), updates).fillna(_looked_up(epochs, updates))
    recorded = epochs["device_share"] * epochs["train_s"]
    keys = (epochs["sections"] == FEATURES).map(lambda on_features: (reference, on_features))
    evaluate = keys.map(evaluations).astype("float64").fillna(0.0)
    of_epochs = (rate * epochs["updates"]).fillna(recorded) + evaluate
    priced = epochs.assign(calibrated_s=of_epochs.where(epochs["kind"] == "train", epochs["device_s"]))
    return Calibration(updates, priced, _confirm(study, priced), False, reference)


def _confirm(study: StudyTables, epochs: pd.DataFrame) -> pd.DataFrame:
    """The epochs of the confirm trials, in order."""
    confirm = epochs[epochs["trial_id"].isin(set(study.confirming["trial_id"]))]
    return confirm.sort_values(["trial_id", "epoch"], kind="stable").reset_index(drop=True)


def _prepared(study: StudyTables) -> pd.DataFrame:
    """The epochs with `sections`, `update_s` and `evaluate_s` added, and with no missing value in the grouping keys."""
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
    """Median device-seconds per update by key, with the number of epochs and whether these were trained or recalled."""
    timed = epochs.dropna(subset=["update_s"])
    parts = []
    for source, rows in (("trained", timed[~timed["recalled"]]), ("recalled", timed[timed["recalled"]])):
        medians = rows.groupby(_KEY)["update_s"].agg(["median", "size"]).reset_index()
        parts.append(medians.assign(source=source))
    both = pd.concat(parts, ignore_index=True).drop_duplicates(_KEY, keep="first")
    both = both.rename(columns={"median": "device_s_per_update", "size": "epochs"})
    return both.sort_values(_KEY, kind="stable").reset_index(drop=True)


def _evaluation_medians(epochs: pd.DataFrame) -> dict[tuple[str, bool], float]:
    """Median device-seconds of an evaluation by device kind, and whether it was of features."""
    keys = [epochs["device_kind"], epochs["sections"] == FEATURES]
    medians = epochs["evaluate_s"].groupby(keys).median().dropna().to_dict()
    medians |= epochs["evaluate_s"][~epochs["recalled"]].groupby(keys).median().dropna().to_dict()
    return {cast(tuple[str, bool], key): float(value) for key, value in medians.items()}


def _reference_kind(epochs: pd.DataFrame) -> str:
    trained = epochs[~epochs["recalled"]]
    counts = (trained if len(trained) else epochs)["device_kind"].value_counts()
    return min((kind for kind in counts.index if counts[kind] == counts.max()), default="")


def _looked_up(epochs: pd.DataFrame, updates: pd.DataFrame) -> pd.Series[float]:
    """The median cost of an update for each row of `epochs`; NaN where there is none."""
    rates = epochs[_KEY].merge(updates, on=_KEY, how="left")["device_s_per_update"]
    return rates.set_axis(epochs.index)
