"""What the tested states make of the examples that they were trained on, and what training itself counted there."""

from __future__ import annotations

import pandas as pd

from lrstudy_reports.statistics import Interval
from lrstudy_reports.tables import StudyTables
from lrstudy_reports.verdicts import over_seeds


def fitted(study: StudyTables, arm: str) -> Interval:
    """The metric of an arm's tested states on the training part, mean over its completed confirm trials."""
    return over_seeds(study, _trials(study, arm)["train_metric"], bounded=study.lock.is_bounded)


def lost_on_test(study: StudyTables, arm: str) -> Interval:
    """That metric minus the same on the test part, trial by trial."""
    trials = _trials(study, arm)
    return over_seeds(study, trials["train_metric"] - trials["test_metric"])


def counted_in_training(study: StudyTables) -> str:
    """The metric that training counted of its own predictions: the study's if it can be counted, else accuracy."""
    return "exact_match" if study.lock.metric == "exact_match" else "accuracy"


def as_it_went(study: StudyTables, arm: str) -> Interval:
    """What training counted in the selected epochs of an arm's completed confirm trials, mean over these."""
    trials, column = _trials(study, arm), f"train_{counted_in_training(study)}"
    epochs = study.epochs.loc[study.epochs["trial_id"].isin(trials["trial_id"]), ["trial_id", "lineage", column]]
    selected = trials[["trial_id", "selected_lineage"]].set_axis(["trial_id", "lineage"], axis=1)
    return over_seeds(study, selected.merge(epochs, how="left")[column].set_axis(trials.index), bounded=True)


def _trials(study: StudyTables, arm: str) -> pd.DataFrame:
    """The completed confirm trials of an arm, by the number of the search."""
    confirmed = study.confirming
    return confirmed[(confirmed["arm"] == arm) & (confirmed["status"] == "completed")].set_index("repeat", drop=False)
