"""Calibrated cost of a training: what its updates cost alone on the device, or else their median recorded cost.

All costs are in allocated device-seconds, i.e. share x wall time.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from lrstudy_reports.tables import StudyTables, trainable_sections, update_kinds

_KEY = ["kind", "batch_size", "sections", "device_kind"]
ALONE = "alone"
"""The `source` of costs that were measured alone on the device."""


@dataclass(frozen=True)
class Calibration:
    """The cost of updates, and of each epoch of the confirm trials at those costs.

    `is_alone` says that all costs were measured alone on the device; `updates` then has one row per kind of update.
    Otherwise it has one row per kind of epoch, batch size, trainable sections and device kind, with the median over the
    epochs that this study trained, or over recalled ones where it trained none (column `source`). A few slow first
    epochs do not move a median, but whatever shared the device for long does. `epochs` holds the epochs of the confirm
    trials, with their cost as `calibrated_s`.
    """

    updates: pd.DataFrame
    epochs: pd.DataFrame
    is_alone: bool


def calibrate(study: StudyTables) -> Calibration:
    """Price the epochs of the confirm trials: updates x seconds per update, plus an epoch and an evaluation.

    Costs measured alone on the device are used only if they are known for all of these epochs: measured and recorded
    costs are not comparable.
    """
    return _alone(study) or _by_medians(study)


def _alone(study: StudyTables) -> Calibration | None:
    """Price by measured costs; None if some are missing.

    An epoch beyond its updates, and an evaluation, cost the same for all kinds of update: the median.
    """
    prices, confirm = study.calibration, _confirm(study, study.epochs)
    kinds = confirm["settings"].map(update_kinds(study.folder))
    if not len(confirm) or not kinds.isin(prices["update_kind"]).all():
        return None
    rate = kinds.map(prices.set_index("update_kind")["device_s_per_update"])
    each = prices["device_s_per_epoch"].median() + prices["device_s_per_evaluation"].median()
    updates = prices.assign(source=ALONE).drop(columns="update_kind")
    return Calibration(updates, confirm.assign(calibrated_s=rate * confirm["updates"] + each), is_alone=True)


def _by_medians(study: StudyTables) -> Calibration:
    """Price by the medians of recorded epochs.

    If a study ran on several kinds of device, epochs are priced on the kind that trained most of them, where
    it has a median for them: no arm may look cheap because it happened to get the faster device. An epoch
    without updates (a features pass) costs what was recorded.
    """
    epochs = _prepared(study)
    updates, evaluations = _update_medians(epochs), _evaluation_medians(epochs)
    confirm = _confirm(study, epochs)
    reference = _reference_kind(epochs)
    rate = _looked_up(confirm.assign(device_kind=reference), updates).fillna(_looked_up(confirm, updates))
    recorded = confirm["device_share"] * confirm["train_s"]
    evaluate = pd.Series(evaluations.get(reference, 0.0), index=confirm.index, dtype="float64")
    calibrated = (rate * confirm["updates"]).fillna(recorded) + evaluate
    return Calibration(updates, confirm.assign(calibrated_s=calibrated), is_alone=False)


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
    """The median cost of an update for each row of `epochs`; NaN where there is none."""
    rates = epochs[_KEY].merge(updates, on=_KEY, how="left")["device_s_per_update"]
    return rates.set_axis(epochs.index)
