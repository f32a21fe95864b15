"""What the confirm trials predicted on the test part, counted and put into tables: by class, by confusion, by example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lrstudy_reports import counting
from lrstudy_reports.class_schemas import CLASS_METRICS, CONFUSION, EXACT_MATCH
from lrstudy_reports.counting import Counts, FloatArray, IntArray
from lrstudy_reports.statistics import Interval
from lrstudy_reports.tables import StudyTables, predictions
from lrstudy_reports.verdicts import over_seeds

RATIOS = ("precision", "recall", "f1", "specificity")
TRUTHS = ("no", "yes")
"""What a label may be, in the order of the rows and columns of its matrix."""


@dataclass(frozen=True, eq=False)
class Tested:
    """The predictions of one confirm trial: its `search`, the confusion `matrix`, and the AUROC of each class (`areas`).

    Where an example may have several labels the matrix has a table of two by two for each, and `wrong` counts the examples
    by how many of their labels are wrong.
    """

    search: int
    matrix: IntArray
    areas: FloatArray
    wrong: IntArray | None

    @property
    def counts(self) -> Counts:
        """Right and wrong predictions by class."""
        return counting.counts(self.matrix)


@dataclass(frozen=True, eq=False)
class Predicted:
    """The predictions of all arms on the test part.

    `names` are the classes; `has_several` whether an example may have several of them. `of_arm` has the confirm trials of
    every arm whose predictions are known.
    """

    study: StudyTables
    names: tuple[str, ...]
    has_several: bool
    of_arm: Mapping[str, Sequence[Tested]]

    @property
    def is_twofold(self) -> bool:
        """Whether every example has one of two classes; two labels that it may both have are each a class of their own."""
        return len(self.names) == 2 and not self.has_several

    def areas(self) -> pd.DataFrame:
        """Test AUROC by class (rows) and arm (columns), averaged over the arm's confirm trials; NaN where undefined."""
        columns = {arm: np.mean([trial.areas for trial in trials], axis=0) for arm, trials in self.of_arm.items()}
        return pd.DataFrame(columns, index=pd.Index(self.names, name="class"))

    def matrix(self, arm: str) -> IntArray:
        """The confusion matrix of an arm, or its tables by label, summed over its confirm trials."""
        return np.asarray(np.sum([trial.matrix for trial in self.of_arm[arm]], axis=0))

    def class_metrics(self) -> pd.DataFrame:
        """One row per arm and class, with the columns of class_metrics.csv."""
        rows = [row for arm, trials in self.of_arm.items() for row in self._by_class(arm, trials)]
        return pd.DataFrame(rows, columns=CLASS_METRICS.names)

    def confusions(self) -> pd.DataFrame:
        """One row per arm, true and predicted class that some example has, with the columns of confusion.csv."""
        rows = [row for arm in self.of_arm for row in self._cells(arm)]
        return pd.DataFrame(rows, columns=CONFUSION.names)

    def exact_matches(self) -> pd.DataFrame:
        """One row per arm and number of wrong labels, with the columns of exact_match.csv; none with one label each."""
        rows = [row for arm, trials in self.of_arm.items() for row in self._by_wrong(arm, trials)]
        return pd.DataFrame(rows, columns=EXACT_MATCH.names)

    def _by_class(self, arm: str, trials: Sequence[Tested]) -> Iterator[dict[str, Any]]:
        of_trials = [trial.counts for trial in trials]
        ratios = [counts.ratios() for counts in of_trials]
        summed = counting.counts(self.matrix(arm))
        for k, name in enumerate(self.names):
            row: dict[str, Any] = {"arm": arm, "label": k, "class": name, "trials": len(trials)}
            row["support"] = int(of_trials[0].support[k])
            row |= {count: int(getattr(summed, count)[k]) for count in ("tp", "fp", "fn", "tn")}
            for ratio in RATIOS:
                values = [of_trial[ratio][k] for of_trial in ratios]
                row |= _columns(ratio, self._mean(trials, values))
            row["predicted_by"] = sum(int(counts.tp[k] + counts.fp[k] > 0) for counts in of_trials)
            yield row

    def _cells(self, arm: str) -> Iterator[dict[str, Any]]:
        matrix = self.matrix(arm)
        shares = counting.row_shares(matrix)
        names = TRUTHS if self.has_several else self.names
        for cell in zip(*np.nonzero(matrix), strict=True):
            *label, truth, predicted = (int(index) for index in cell)
            yield {
                "arm": arm,
                "class": self.names[label[0]] if label else None,
                "true": names[truth],
                "predicted": names[predicted],
                "count": int(matrix[cell]),
                "fraction": float(shares[cell]),
                "trials": len(self.of_arm[arm]),
            }

    def _by_wrong(self, arm: str, trials: Sequence[Tested]) -> Iterator[dict[str, Any]]:
        counted = [trial.wrong for trial in trials if trial.wrong is not None]
        if len(counted) < len(trials):
            return
        for wrong in range(len(self.names) + 1):
            fractions = [float(counts[wrong] / counts.sum()) for counts in counted]
            row = {"arm": arm, "wrong": wrong, "count": sum(int(counts[wrong]) for counts in counted)}
            yield row | _columns("fraction", self._mean(trials, fractions)) | {"trials": len(trials)}

    def _mean(self, trials: Sequence[Tested], values: ArrayLike) -> Interval:
        """The mean of a value of each trial; of several searches, over their means."""
        by_trial = pd.Series(values, index=[trial.search for trial in trials], dtype="float64")
        return over_seeds(self.study, by_trial, bounded=True)


def predicted(study: StudyTables) -> Predicted:
    """The predictions of the study's confirm trials, counted trial by trial."""
    names = class_names(study)
    trials = study.confirming[["trial_id", "arm", "repeat"]].to_dict("records")
    rows_of = predictions(study.folder, [str(trial["trial_id"]) for trial in trials])
    of_arm: dict[str, list[Tested]] = {}
    for trial in trials:
        rows = rows_of.pop(str(trial["trial_id"]), None)  # scores of a large test part are not kept
        if rows is not None and rows["scores"].shape[1] == len(names):
            of_arm.setdefault(str(trial["arm"]), []).append(_tested(int(trial["repeat"]), rows))
    statistics = study.lock.data.get("statistics")
    has_several = bool(statistics.get("several")) if isinstance(statistics, dict) else False
    return Predicted(study, names, has_several, {arm: of_arm[arm] for arm in study.arms if arm in of_arm})


def class_names(study: StudyTables) -> tuple[str, ...]:
    """The names of the classes; none if the lock does not have them."""
    names = study.lock.data.get("classes")
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _tested(search: int, rows: Mapping[str, Any]) -> Tested:
    scores = np.asarray(rows["scores"], dtype=np.float64)
    if rows["labels"] is not None:
        labels: NDArray[np.bool_] = np.asarray(rows["labels"], dtype=bool)
        areas, wrong = counting.auroc(scores, labels), counting.wrong_labels(labels, scores)
        return Tested(search, counting.label_confusion(labels, scores), areas, wrong)
    label = np.asarray(rows["label"])
    positive = label[:, None] == np.arange(scores.shape[1])
    highest = scores.max(axis=1, keepdims=True)
    total = highest + np.log(np.exp(scores - highest).sum(axis=1, keepdims=True))
    areas = counting.auroc(scores - total, positive)  # log probabilities: each class against the rest
    return Tested(search, counting.confusion(label, scores), areas, None)


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
