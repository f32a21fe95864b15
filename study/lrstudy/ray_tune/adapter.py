"""The adapter between Tune and admission: Tune asks here for trials and tells what they gave.

Holding a trial back works in a Tune searcher (no placement group exists meanwhile) and does not in a
scheduler, which starts every pending trial anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from lrstudy.admission import Admission, Trial
from lrstudy.ray_tune.trainable import Order
from lrstudy.records import Record
from lrstudy.workload import Workload


class AdmissionSearcher(Searcher):
    """Hands out what admission admits. Tune pickles its searcher for a resume that we do not use: it gets an empty one.

    `first` is a trial that was admitted before Ray was started.
    """

    def __init__(self, admission: Admission, workload: Workload, folder: str, first: Trial | None,
                 observe: Callable[[dict[str, Any]], None]) -> None:  # fmt: skip
        super().__init__(metric="epoch", mode="max")
        self._admission = admission
        self._workload, self._folder = workload, folder
        self._first = first
        self._observe = observe
        self._ids: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """An order for a worker, None while everything is held back, FINISHED at the end."""
        trial = self._first or self._admission.next()
        self._first = None
        if trial is None:
            is_over = self._admission.is_done or self._admission.stopped
            return Searcher.FINISHED if is_over else None
        self._ids[trial_id] = trial.trial_id
        memo = self._admission.memo.location
        return {"order": Order(trial.spec, trial.arm, self._workload, memo, self._folder)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take the epochs of a report that is not the last."""
        self._take(self._ids[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take the last report of a trial, or its failure after its workers died too often."""
        name = self._ids[trial_id]
        if error or not result:
            self._admission.ended(name, "failed", "its worker died, again and again; see Ray's logs for the reason")
            return
        self._take(name, result)
        if "fatal" in result:
            self._admission.fail(result["fatal"])
            self._admission.ended(name, "interrupted")
        else:
            self._admission.ended(name, result["status"], result.get("error", ""), result.get("test"))

    def _take(self, name: str, result: dict[str, Any]) -> None:
        epochs = [(Record(**epoch["record"]), epoch["recalled"]) for epoch in result["epochs"]]
        self._admission.stepped(name, epochs)
        self._observe(result)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal and the memo hold everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a study is resumed by running it again."""
