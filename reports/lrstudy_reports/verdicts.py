"""Verdicts: what the test values of an arm's confirm trials show against the control's, and what they do not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lrstudy_reports.bootstrap import contributions, paired_over_searches
from lrstudy_reports.lock import Lock
from lrstudy_reports.statistics import FEWEST, FloatArray, Interval, Paired, mean_interval, paired_t, verdict
from lrstudy_reports.tables import ENDED, StudyTables, predictions

Key = tuple[int, int]
"""The number of a search, from 0, and a seed."""


@dataclass(frozen=True)
class Outcome:
    """The confirm trials of an arm: their test values by search (from 0) and seed, NaN where a trial has none.

    `trial_ids` and `lineages` have the same keys. `expected` is the number of trials that the study asks for; `final`
    says that all of them have ended.
    """

    tested: dict[Key, float] = field(default_factory=dict)
    trial_ids: dict[Key, str] = field(default_factory=dict)
    lineages: dict[Key, str] = field(default_factory=dict)
    trials: int = 0
    diverged: int = 0
    failed: int = 0
    expected: int = 0
    final: bool = False

    @property
    def lost(self) -> int:
        """How many seeds diverged or failed."""
        return self.diverged + self.failed

    @property
    def shortfall(self) -> str | None:
        """How many seeds diverged or failed, in words; None if none did."""
        parts = [
            f"{count} of {self.trials} seeds {word}"
            for count, word in ((self.diverged, "diverged"), (self.failed, "failed"))
            if count
        ]
        return ", ".join(parts) or None


def outcomes(study: StudyTables, look: int | None = None) -> dict[str, Outcome]:
    """The outcomes of all arms, including those without confirm trials, by all seeds or by those of an earlier `look`.

    A retired arm is final: nothing more comes.
    """
    confirm, lock = study.confirming, study.lock
    if look is not None:
        confirm = confirm[confirm["seed"].isin(sorted(confirm["seed"].unique())[:look])]
    counts = confirm.groupby("arm").size()
    expected = (look or lock.confirm_seeds or 0) * study.num_searches or int(counts.max() if len(counts) else 0)
    is_over = lock.complete and (look is None or look <= (lock.confirm_seeds or 0))
    return {
        arm: _outcome(confirm[confirm["arm"] == arm], expected, is_over or arm in lock.retired) for arm in study.arms
    }


def paired(study: StudyTables, arm: Outcome, control: Outcome | None) -> Paired:
    """The comparison of an arm with the control over the seeds that they have in common.

    A paired t-test; where the study searched three times or more and no seed is missing, a hierarchical bootstrap.
    """
    if control is None:
        return paired_t([], [])
    keys = sorted(key for key in arm.tested.keys() & control.tested.keys() if _is_known(arm, control, key))
    searches = [[key for key in keys if key[0] == search] for search in range(study.num_searches)]
    if len(searches) < FEWEST or len({len(of_search) for of_search in searches}) > 1 or not searches[0]:
        return paired_t([arm.tested[key] for key in keys], [control.tested[key] for key in keys], study.lock.level)
    differences, strata = _differences(study, arm, control, searches)
    return paired_over_searches(differences, strata, study.lock.level)


def over_seeds(study: StudyTables, values: Mapping[Key, float] | pd.Series[Any], *, bounded: bool = False) -> Interval:
    """The mean of the values of confirm trials with its interval: over seeds, or over the means of several searches.

    `values` are by search and seed, or a series whose index is, or begins with, the number of the search; NaN are left out.
    """
    known = pd.Series(values, dtype="float64").dropna()
    if study.num_searches > 1:
        known = known.groupby(level=0).mean()
    return mean_interval(known, study.lock.level, bounded=bounded)


def _is_known(arm: Outcome, control: Outcome, key: Key) -> bool:
    return math.isfinite(arm.tested[key]) and math.isfinite(control.tested[key])


def _differences(
    study: StudyTables, arm: Outcome, control: Outcome, searches: list[list[Key]]
) -> tuple[FloatArray, NDArray[Any] | None]:
    """Differences by search, seed and, where the metric allows it, test example; then with the classes of the examples."""
    by_seed = np.array([[arm.tested[key] - control.tested[key] for key in keys] for keys in searches])
    sides = [_by_example(study, outcome, searches) for outcome in (arm, control)]
    if sides[0] is None or sides[1] is None:
        return by_seed, None
    by_example = sides[0][0] - sides[1][0]
    is_the_metric = np.allclose(by_example.mean(axis=2), by_seed, rtol=0, atol=1e-6)  # metrics are float32 in part
    return (by_example, sides[0][1]) if is_the_metric else (by_seed, None)


def _by_example(
    study: StudyTables, outcome: Outcome, searches: list[list[Key]]
) -> tuple[FloatArray, NDArray[Any]] | None:
    """What each example gives to the metric, shape (searches, seeds, examples), with its class; None if it is not known."""
    ids = [outcome.trial_ids[key] for keys in searches for key in keys]
    known = predictions(study.folder, ids)
    parts = [contributions(known[trial_id], study.lock.metric) for trial_id in ids if trial_id in known]
    found = [part for part in parts if part is not None]
    if len(found) < len(ids):
        return None
    values = np.array([part[0] for part in found])
    return values.reshape(len(searches), -1, values.shape[1]), found[0][1]


@dataclass(frozen=True)
class Evidence:
    """What is tested of an arm: its differences to the control, and two p-values, each Holm-adjusted over `family` arms.

    `p` is against no difference, `p_equivalence` against one of the margin or beyond; either may be NaN.
    """

    pair: Paired
    p: float
    p_equivalence: float
    family: int


def judge(
    lock: Lock, arm: Outcome, control: Outcome | None, evidence: Evidence, is_final: bool
) -> tuple[str, str | None]:
    """Judge an arm against the control.

    There is no verdict while confirm trials of any arm are outstanding: a test repeated until it is significant is
    no test, and Holm corrects over all arms. Seeds are not lost at random, whether they diverged or failed (a network
    that needs more memory as its batch grows fails where it is largest), so the remaining ones may not be
    representative of the arm that lost them: an arm with lost seeds can be worse, but neither better nor equivalent;
    with lost seeds of the control, it can be better, but neither worse nor equivalent.

    Args:
        lock: The study's protocol.
        arm: The arm's confirm trials.
        control: The control's; None if the study has no control.
        evidence: The paired comparison of the two.
        is_final: Whether the confirm trials of all arms have ended.

    Returns:
        The verdict (`better`, `worse`, `equivalent` or `undecided`), and a note that a reader needs with it; the note
        is None or empty if there is nothing to say.
    """
    if control is None:
        why = "no control named" if lock.control is None else f"{lock.control}, the control, is not an arm"
        return "undecided", _joined(why, arm.shortfall)
    difference = evidence.pair.difference
    reason = _no_test(arm, control, difference, is_final)
    if reason is not None:
        return "undecided", reason
    shortfall = _joined(arm.shortfall, control.shortfall and f"control: {control.shortfall}")
    if same_training(arm, control):
        return "equivalent", _joined("the very same training as the control", shortfall)
    if difference.n < FEWEST:
        pairs = "one pair of seeds gives" if difference.n == 1 else f"{difference.n} pairs of seeds give"
        return "undecided", _joined(f"{pairs} no interval", shortfall)
    if not difference.sd > 0:
        return "undecided", _joined("all differences are equal: no spread to test against", shortfall)
    judged = verdict(difference, evidence.p, evidence.p_equivalence, lock.sign, lock.alpha)
    if judged in withheld(arm, control):
        return "undecided", _joined(shortfall, f"'{judged}' withheld: the seeds left may not speak for all")
    return judged, _joined(_beside_the_interval(judged, difference, evidence, lock.alpha), shortfall) or None


def withheld(arm: Outcome, control: Outcome) -> set[str]:
    """The verdicts that are not given, as lost seeds of the arm or of the control could speak against them."""
    unsafe = {"better", "equivalent"} if arm.lost else set()
    return unsafe | ({"worse", "equivalent"} if control.lost else set())


def same_training(arm: Outcome, control: Outcome) -> bool:
    """Whether the two trained the very same states, with every seed that they have in common."""
    shared = set(arm.lineages) & set(control.lineages)
    return bool(shared) and all(arm.lineages[seed] == control.lineages[seed] for seed in shared)


def _beside_the_interval(judged: str, difference: Interval, evidence: Evidence, alpha: float) -> str:
    """What a reader of the interval must know who expects another verdict; empty if nothing."""
    if judged == "equivalent":
        return "a real difference, but within the margin" if evidence.p < alpha else ""
    if judged == "undecided" and difference.low * difference.high > 0:
        return not_once_corrected(evidence.family)
    return ""


def _outcome(trials: pd.DataFrame, expected: int, complete: bool) -> Outcome:
    status = trials["status"]
    keys = [(int(k), int(seed)) for k, seed in zip(trials["repeat"].fillna(0), trials["seed"], strict=True)]
    values = trials["test_metric"].where(status == "completed", math.nan)
    lineages = zip(keys, trials["lineage"], strict=True)
    ended = len(trials) > 0 and len(trials) >= expected and bool(status.isin(ENDED).all())
    return Outcome(
        tested={key: float(value) for key, value in zip(keys, values, strict=True)},
        trial_ids={key: str(trial_id) for key, trial_id in zip(keys, trials["trial_id"], strict=True)},
        lineages={key: str(lineage) for key, lineage in lineages if pd.notna(lineage)},
        trials=len(trials),
        diverged=int((status == "diverged").sum()),
        failed=int((status == "failed").sum()),
        expected=expected,
        final=ended or complete,
    )


def _no_test(arm: Outcome, control: Outcome, difference: Interval, is_final: bool) -> str | None:
    """Why nothing can be tested; None if something can."""
    if not is_final:
        if not arm.expected:
            return "no confirm trials yet"
        return _joined(f"interim: {difference.n} of {arm.expected} pairs of seeds", arm.shortfall)
    if not arm.trials:
        return "no confirm trials"
    if not control.trials:
        return _joined("the control has no confirm trials", arm.shortfall)
    if not difference.n:
        lost = _joined(arm.shortfall, control.shortfall and f"control: {control.shortfall}")
        return lost or "no seed in common with the control"
    return None


def _joined(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note)


def not_once_corrected(comparisons: int) -> str:
    """The note of an undecided comparison whose interval leaves out 0."""
    return f"the interval alone leaves out 0, but not once corrected for {comparisons} comparisons (Holm)"
