"""What a study found of each claim: the number measured for it, the verdict, and what would decide it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from lrstudy_reports import counting
from lrstudy_reports.claims import Claim, ClaimVerdict, holds_size, judge_claim, parse_claims, seeds_needed
from lrstudy_reports.comparison import Comparison
from lrstudy_reports.predicted import class_names
from lrstudy_reports.statistics import FEWEST, Interval
from lrstudy_reports.tables import StudyTables, predictions, trial_values
from lrstudy_reports.verdicts import Key, Outcome, outcomes, over_seeds, paired, same_training, withheld

NOTHING = Interval(math.nan, math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Finding:
    """What a study found of a claim.

    `measured` is what is shown, of costs a ratio; its `n` counts seeds, pairs of seeds or searches (`counted`: `seed` or
    `search`). `size` says whether the interval holds the claimed size; None where that says nothing. `needed` is how many
    of these would decide an undecided claim, and `more_device_s` what the missing ones cost at most, since arms may share.
    """

    claim: Claim
    measured: Interval
    counted: str
    verdict: ClaimVerdict
    size: bool | None = None
    note: str | None = None
    needed: int | None = None
    more_device_s: float | None = None

    def row(self, study: StudyTables) -> dict[str, Any]:
        """The columns of claims.parquet."""
        claim, lock = self.claim, study.lock
        return {
            **{name: getattr(claim, name) for name in Claim.__dataclass_fields__ if name != "note"},
            "source_note": claim.note,
            "measured": _known(self.measured.mean),
            "low": _known(self.measured.low),
            "high": _known(self.measured.high),
            "n": self.measured.n,
            "counted": self.counted,
            "verdict": self.verdict,
            "size_in_interval": self.size,
            "note": self.note,
            "needed": self.needed,
            "more_device_s": _known(self.more_device_s),
            "exploratory": lock.is_exploratory,
            "study": lock.name,
            "data": lock.data.get("source"),
            "model": lock.model.get("name"),
        }


def findings(study: StudyTables, comparison: Comparison) -> list[Finding]:
    """What the study found of its claims, in their order. Raises ValueError if the lock's claims cannot be read."""
    return [_found(study, comparison, claim) for claim in parse_claims(study.lock.claims)]


def in_metric(study: StudyTables, metric: str, label: str | None = None) -> StudyTables | None:
    """The study as if it had tested by another metric, or by that of one class; None if that was not measured."""
    if metric == study.lock.metric and label is None:
        return study
    values = _of_class(study, metric, label) if label is not None else _of_trials(study, metric)
    confirmed = study.confirming[study.confirming["status"] == "completed"]
    if confirmed["trial_id"].map(values).isna().all():
        return None
    trials = study.trials.assign(test_metric=study.trials["trial_id"].map(values).astype("float64"))
    return replace(study, trials=trials, lock=replace(study.lock, metric=metric))


def _found(study: StudyTables, comparison: Comparison, claim: Claim) -> Finding:
    if claim.measure is None:
        return Finding(claim, NOTHING, "seed", "not testable", note=claim.not_testable)
    if gone := [arm for arm in claim.arms if arm not in study.arms]:
        return Finding(claim, NOTHING, "seed", "undecided", note=f"{gone[0]} is no arm of the study")
    tested = study if claim.measure == "cost_ratio" else in_metric(study, claim.metric or "", claim.label)
    if tested is None:
        return Finding(claim, NOTHING, "seed", "undecided", note="not measured")
    outcome_of = outcomes(tested)
    sides = [outcome_of[arm] for arm in claim.arms]
    measured = _measured(tested, comparison, claim, sides)
    verdict, note = _verdict(study, comparison, claim, measured, sides)
    size, counted = holds_size(claim, measured), _counted(study, claim, measured)
    finding = Finding(claim, _shown(claim, measured), counted, verdict, size, note)
    return _with_need(study, comparison, finding, measured) if verdict == "undecided" and note is None else finding


def _measured(study: StudyTables, comparison: Comparison, claim: Claim, sides: list[Outcome]) -> Interval:
    """What was measured for a claim, on the scale on which it is judged."""
    if claim.measure == "value":
        return over_seeds(study, sides[0].tested, bounded=study.lock.is_bounded)
    if claim.measure != "cost_ratio":
        return paired(study, *sides).difference
    cost, of_control = (_costs(comparison, side) for side in sides)
    logs = {key: math.log(of_control[key] / cost[key]) for key in cost.keys() & of_control.keys()}
    interval = over_seeds(study, logs)
    is_exact = interval.n >= FEWEST and interval.sd == 0
    return replace(interval, low=interval.mean, high=interval.mean) if is_exact else interval


def _costs(comparison: Comparison, outcome: Outcome) -> dict[Key, float]:
    """Calibrated cost of the completed trainings of an arm, by search and seed."""
    cost_of = {curve.trial_id: float(curve.cost[-1]) for curve in comparison.curves if curve.status == "completed"}
    costs = {key: cost_of.get(trial_id, math.nan) for key, trial_id in outcome.trial_ids.items()}
    return {key: cost for key, cost in costs.items() if cost > 0}


def _verdict(
    study: StudyTables, comparison: Comparison, claim: Claim, measured: Interval, sides: list[Outcome]
) -> tuple[ClaimVerdict, str | None]:
    """The verdict with what a reader must know of it; an undecided one without a note lacks seeds alone."""
    lost = "; ".join(f"{arm}: {side.shortfall}" for arm, side in zip(claim.arms, sides, strict=True) if side.shortfall)
    if not comparison.final:
        return "undecided", "interim: confirm trials are still to come"
    if not measured.n:
        return "undecided", lost or "no confirm trials"
    if claim.measure in ("difference", "equal") and same_training(*sides):
        verdict: ClaimVerdict = "supported" if claim.measure == "equal" else "contradicted"
        return verdict, "the very same training"
    verdict = judge_claim(claim, measured, study.lock.alpha)
    if lost and (verdict == "undecided" or _is_withheld(study, claim, verdict, sides)):
        kept = "" if verdict == "undecided" else f"; '{verdict}' withheld: the seeds left may not speak for all"
        return "undecided", lost + kept
    if verdict == "undecided":
        no_spread = measured.n >= FEWEST and not measured.sd > 0
        return verdict, "all seeds give the same: no spread to test against" if no_spread else None
    if measured.low == measured.high:
        return verdict, "the same for every seed, as all train the same updates at one price"
    return verdict, lost or None


def _is_withheld(study: StudyTables, claim: Claim, verdict: ClaimVerdict, sides: list[Outcome]) -> bool:
    """Whether lost seeds forbid a verdict: of a difference as for verdicts between arms, of anything else always."""
    if claim.measure != "difference":
        return True
    is_above = ((claim.side or 0) > 0) == (verdict == "supported")
    return ("better" if is_above == (study.lock.sign > 0) else "worse") in withheld(*sides)


def _with_need(study: StudyTables, comparison: Comparison, finding: Finding, measured: Interval) -> Finding:
    """The finding with how many seeds or searches would decide, and what the missing ones cost."""
    needed = seeds_needed(finding.claim, measured, max(len(study.lock.looks), 1))
    if needed is None:
        return finding
    rows = [row for row in comparison.rows() if row["arm"] in finding.claim.arms]
    each = [_cost_of_one(study, row, finding.counted) for row in rows]
    return replace(finding, needed=needed, more_device_s=(needed - measured.n) * sum(each))


def _cost_of_one(study: StudyTables, row: Mapping[str, Any], counted: str) -> float:
    """Device-seconds of one more seed of an arm: a training; or of one more search with its confirm trials. NaN if unknown."""
    training = math.nan if row["training_device_s"] is None else row["training_device_s"]
    if counted == "seed":
        return float(training)
    tuning = math.nan if row["tuning_device_s"] is None else row["tuning_device_s"]
    return float(tuning + (study.lock.confirm_seeds or 1) * training)


def _counted(study: StudyTables, claim: Claim, measured: Interval) -> str:
    """What the interval counts: `search` if its values are means of searches, else `seed`."""
    fewest = FEWEST if claim.measure in ("difference", "equal") else 2  # as in `paired` and in `over_seeds`
    return "search" if study.num_searches >= fewest and measured.n <= study.num_searches else "seed"


def _shown(claim: Claim, measured: Interval) -> Interval:
    if claim.measure != "cost_ratio":
        return measured
    return replace(measured, mean=math.exp(measured.mean), low=math.exp(measured.low), high=math.exp(measured.high))


def _of_trials(study: StudyTables, metric: str) -> pd.Series[Any]:
    """A metric by trial: on the test part, or where its name begins so of the training part."""
    name = metric if metric.startswith("train_") else f"test_{metric}"
    return trial_values(study.folder, [name]).set_index("trial_id")[name]


def _of_class(study: StudyTables, metric: str, label: str) -> pd.Series[Any]:
    """A metric of one class by confirm trial, from its predictions; nothing if there is no such class."""
    names = class_names(study)
    if label not in names:
        return pd.Series(dtype="float64")
    known = predictions(study.folder, [str(trial_id) for trial_id in study.confirming["trial_id"]])
    of_trial = {trial_id: _ratio(rows, metric, names.index(label)) for trial_id, rows in known.items()}
    return pd.Series(of_trial, dtype="float64")


def _ratio(rows: Mapping[str, Any], metric: str, k: int) -> float:
    """`precision`, `recall`, `f1` or `specificity` of class `k` in the predictions of one trial; NaN where 0 / 0."""
    if rows["labels"] is None:
        matrix = counting.confusion(rows["label"], rows["scores"])
    else:
        matrix = counting.label_confusion(rows["labels"].astype(bool), rows["scores"])
    return float(counting.counts(matrix).ratios()[metric][k])


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
