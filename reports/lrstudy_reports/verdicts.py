"""Verdicts: what the test values of an arm's confirm trials show against the control's, and what they do not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd

from lrstudy_reports.lock import Lock
from lrstudy_reports.statistics import ALPHA, Interval, Paired, mean_interval, paired_t, verdict
from lrstudy_reports.tables import ENDED, StudyTables


@dataclass(frozen=True)
class Outcome:
    """The confirm trials of an arm: their test values by seed, NaN where a trial has none.

    `expected` is the number of seeds that the study asks for; `final` says that all of them have ended.
    """

    tested: dict[int, float] = field(default_factory=dict)
    lineages: dict[int, str] = field(default_factory=dict)
    trials: int = 0
    diverged: int = 0
    failed: int = 0
    expected: int = 0
    final: bool = False

    @property
    def interval(self) -> Interval:
        """The mean of the test values and its interval."""
        return mean_interval(list(self.tested.values()))

    @property
    def shortfall(self) -> str | None:
        """How many seeds diverged or failed, in words; None if none did."""
        parts = [
            f"{count} of {self.trials} seeds {word}"
            for count, word in ((self.diverged, "diverged"), (self.failed, "failed"))
            if count
        ]
        return ", ".join(parts) or None


def outcomes(study: StudyTables) -> dict[str, Outcome]:
    """The outcomes of all arms, including those without confirm trials."""
    confirm = study.confirming
    counts = confirm.groupby("arm").size()
    expected = study.lock.confirm_seeds or int(counts.max() if len(counts) else 0)
    return {arm: _outcome(confirm[confirm["arm"] == arm], expected, study.lock.complete) for arm in study.arms}


def paired(arm: Outcome, control: Outcome | None) -> Paired:
    """The paired t-test over the seeds that arm and control have in common."""
    if control is None:
        return paired_t([], [])
    seeds = sorted(set(arm.tested) & set(control.tested))
    return paired_t([arm.tested[seed] for seed in seeds], [control.tested[seed] for seed in seeds])


def judge(lock: Lock, arm: Outcome, control: Outcome | None, pair: Paired, p_holm: float) -> tuple[str, str | None]:
    """Judge an arm against the control.

    There is no verdict while confirm trials of either are outstanding: a test repeated until it is significant is
    no test. Seeds are not lost to divergence at random, so the remaining ones may not be representative of the
    arm that lost them: an arm with diverged seeds can be worse, but neither better nor equivalent; with diverged
    seeds of the control, it can be better, but neither worse nor equivalent.

    Args:
        lock: The study's protocol.
        arm: The arm's confirm trials.
        control: The control's; None if the study has no control.
        pair: The paired comparison of the two.
        p_holm: Its Holm-adjusted p-value; may be NaN.

    Returns:
        The verdict (`better`, `worse`, `equivalent` or `undecided`), and a note that a reader needs with it; the note
        is None or empty if there is nothing to say.
    """
    if control is None:
        why = "no control named" if lock.control is None else f"{lock.control}, the control, is not an arm"
        return "undecided", _joined(why, arm.shortfall)
    reason = _no_test(arm, control, pair)
    if reason is not None:
        return "undecided", reason
    shortfall = _joined(arm.shortfall, control.shortfall and f"control: {control.shortfall}")
    if _same_training(arm, control):
        return "equivalent", _joined("the very same training as the control", shortfall)
    if pair.difference.n == 1:
        return "undecided", _joined("one pair of seeds gives no interval", shortfall)
    if not pair.difference.sd > 0:
        return "undecided", _joined("all differences are equal: no spread to test against", shortfall)
    judged = verdict(pair.difference, p_holm, lock.sign, lock.margin)
    unsafe = {"better", "equivalent"} if arm.diverged else set()
    unsafe |= {"worse", "equivalent"} if control.diverged else set()
    if judged in unsafe:
        return "undecided", _joined(shortfall, f"'{judged}' withheld: the seeds left may not speak for all")
    if judged == "equivalent" and p_holm < ALPHA:
        return judged, _joined("a real difference, but within the margin", shortfall)
    return judged, shortfall or None


def _outcome(trials: pd.DataFrame, expected: int, complete: bool) -> Outcome:
    status, seeds = trials["status"], [int(seed) for seed in trials["seed"]]
    values = trials["test_metric"].where(status == "completed", math.nan)
    lineages = zip(seeds, trials["lineage"], strict=True)
    ended = len(trials) > 0 and len(trials) >= expected and bool(status.isin(ENDED).all())
    return Outcome(
        tested={seed: float(value) for seed, value in zip(seeds, values, strict=True)},
        lineages={seed: str(lineage) for seed, lineage in lineages if pd.notna(lineage)},
        trials=len(trials),
        diverged=int((status == "diverged").sum()),
        failed=int((status == "failed").sum()),
        expected=expected,
        final=ended or complete,
    )


def _no_test(arm: Outcome, control: Outcome, pair: Paired) -> str | None:
    """Why nothing can be tested; None if something can."""
    if not (arm.final and control.final):
        if not arm.expected:
            return "no confirm trials yet"
        return _joined(f"interim: {pair.difference.n} of {arm.expected} pairs of seeds", arm.shortfall)
    if not arm.trials:
        return "no confirm trials"
    if not control.trials:
        return _joined("the control has no confirm trials", arm.shortfall)
    if not pair.difference.n:
        lost = _joined(arm.shortfall, control.shortfall and f"control: {control.shortfall}")
        return lost or "no seed in common with the control"
    return None


def _same_training(arm: Outcome, control: Outcome) -> bool:
    shared = set(arm.lineages) & set(control.lineages)
    return bool(shared) and all(arm.lineages[seed] == control.lineages[seed] for seed in shared)


def _joined(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note)
