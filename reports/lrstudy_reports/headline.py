"""The answer of a study in a few sentences, claiming no more than its table does."""

from __future__ import annotations

from typing import Any

from lrstudy_reports import formats
from lrstudy_reports.comparison import Comparison
from lrstudy_reports.last_answer import LastAnswer
from lrstudy_reports.tables import ENDED, StudyTables

Row = dict[str, Any]

SAYS_NOTHING = 0.25
"""A smallest detectable difference from here on, of a metric that lies in [0, 1], is not worth its number."""


def metric_name(study: StudyTables) -> str:
    """The name of the study's metric, in words."""
    return study.lock.metric.replace("_", " ")


def status(study: StudyTables) -> str:
    """How far the study is, retired arms aside: 'complete, 105 trials' or 'running, 31 of 105 trials'."""
    trials = study.trials[~study.trials["arm"].isin(study.lock.retired)]
    ended = int(trials["status"].isin(ENDED).sum())
    if study.lock.complete:
        return f"complete, {formats.count(ended, 'trial')}"
    planned = max(study.lock.planned_trials or 0, len(trials))
    return f"running, {ended:,} of {formats.count(planned, 'trial')}" if planned else "running, no trials yet"


def answer(study: StudyTables, comparison: Comparison, last: LastAnswer | None = None) -> str:
    """The answer of the study in a few sentences, claiming no more than its verdicts do.

    While it is not complete that is the `last` complete answer, if there is one, with its date.
    """
    if not comparison.final and last is not None:
        return (
            f"{last.answer} (The answer of {last.ended}, from {formats.count(last.seeds, 'seed')} of each of "
            f"{formats.count(last.arms, 'arm')}. The study has gone on since: {status(study)}. The numbers below are "
            "interim, and change no verdict before every confirm trial has ended.)"
        )
    rows = [row for row in comparison.rows() if row["test_metric"] is not None and row["verdict"] != "retired"]
    if not rows:
        text = f"No answer{'' if comparison.final else ' yet'} ({status(study)}): no arm has a test value."
        return " ".join([text, *_lost_seeds(comparison)])
    if not comparison.final:
        return (
            f"No answer yet ({status(study)}): the numbers below are interim, and no verdict is given "
            "before every confirm trial has ended."
        )
    exploratory = "Exploratory, as the plan was changed after the test part had been read: "
    return (exploratory if study.lock.is_exploratory else "") + _final_answer(study, comparison, rows)


def ratio(value: float | None) -> str:
    """A ratio as '0.83×'; a dash if it is missing."""
    return formats.MISSING if value is None else f"{formats.significant(value, 3 if value >= 1 else 2)}×"


def _final_answer(study: StudyTables, comparison: Comparison, rows: list[Row]) -> str:
    control = study.lock.control
    reference = next((row for row in rows if row["arm"] == control), None)
    best = _best_of_all(comparison)
    if reference is None:
        why = "the study names no control" if control is None else f"the control {control} has no test value"
        mean = "highest" if study.lock.mode == "max" else "lowest"
        text = f"{_reached(study, rows[0])}, the {mean} mean; {why}, so no difference to it was tested."
        return " ".join([text, *best])
    if comparison.comparisons == 0:
        return f"{_reached(study, reference)}; there is no other arm to compare it with."
    better = [row for row in rows if row["verdict"] == "better"]
    parts = [_won(study, better)] if better else _nobody_won(study, rows, reference)
    return " ".join([*parts, *best, *_lost_seeds(comparison)])


def _reached(study: StudyTables, row: Row) -> str:
    decimals = formats.decimals_for([formats.half_width(row["test_low"], row["test_high"])])
    span = formats.interval(row["test_low"], row["test_high"], decimals)
    mean = formats.fixed(row["test_metric"], decimals)
    return f"{row['arm']} reached {f'{mean} {span}'.strip()} test {metric_name(study)}"


def _won(study: StudyTables, better: list[Row]) -> str:
    first = better[0]
    decimals = formats.decimals_for([formats.half_width(first["difference_low"], first["difference_high"])])
    sign = 1 if first["difference"] > 0 else -1
    low, high = sorted((sign * first["difference_low"], sign * first["difference_high"]))
    text = (
        f"{_reached(study, first)}, {formats.fixed(abs(first['difference']), decimals)} "
        f"{formats.interval(low, high, decimals)} {'above' if sign > 0 else 'below'} {study.lock.control}"
    )
    if first["cost_ratio"] is not None:
        text += f", at {ratio(first['cost_ratio'])} the device time"
    also = [f"{row['arm']} (by {formats.fixed(abs(row['difference']), decimals)})" for row in better[1:]]
    return text + (f"; {formats.listed(also)} did better than {study.lock.control} too." if also else ".")


def _nobody_won(study: StudyTables, rows: list[Row], reference: Row) -> list[str]:
    others = [row for row in rows if row is not reference]
    control, seeds = study.lock.control, formats.count(reference["seeds"], "seed")
    worse = [row["arm"] for row in others if row["verdict"] == "worse"]
    equal = [row["arm"] for row in others if row["verdict"] == "equivalent"]
    undecided = [row for row in others if row["verdict"] == "undecided"]
    shown = "could be told apart from" if not worse and not equal else "was shown to be better than"
    parts = [f"No policy {shown} {control} with {seeds}."]
    if worse:
        parts.append(f"{formats.listed(worse)} did worse.")
    if equal:
        parts.append(f"{formats.listed(equal)} can count as equivalent.")
    if reference["seeds"] < 3:
        number = "One seed gives" if reference["seeds"] == 1 else f"{reference['seeds']} seeds give"
        parts.append(f"{number} no interval, so no difference could have been shown.")
    return parts + _detectable(undecided, str(control))


def _detectable(undecided: list[Row], control: str) -> list[str]:
    """What true differences would have been shown, of the arms that are undecided: of others it is known what was."""
    known = {row["arm"]: row["smallest_detectable"] for row in undecided if row["smallest_detectable"] is not None}
    telling = {arm: value for arm, value in known.items() if value < SAYS_NOTHING}
    parts = []
    if telling:
        sizes = sorted(formats.significant(value, 2) for value in (min(telling.values()), max(telling.values())))
        size = sizes[0] if len(set(sizes)) == 1 else f"{sizes[0]} to {sizes[1]}, by arm,"
        arms = formats.listed(list(telling))
        parts.append(
            f"Of {arms} a true difference to {control} of about {size} would have shown in 4 of 5 such studies."
        )
    if hopeless := [arm for arm in known if arm not in telling]:
        parts.append(f"Seeds scatter too much to compare {formats.listed(hopeless)} with {control}.")
    return parts


def _best_of_all(comparison: Comparison) -> list[str]:
    """Which arms may be the best, by Hsu's comparison; nothing where fewer than two could be compared."""
    rows = [row for row in comparison.rows() if row["may_be_best"] is not None]
    if len(rows) < 2:
        return []
    best = [row["arm"] for row in rows if row["may_be_best"]]
    if len(best) == 1:
        return [f"Of {formats.count(len(rows), 'arm')}, {best[0]} is the best."]
    if len(best) == len(rows):
        return [f"Which of the {len(rows)} arms is the best cannot be said."]
    return [f"Of {formats.count(len(rows), 'arm')}, {formats.listed(best, 'or')} may be the best."]


def _lost_seeds(comparison: Comparison) -> list[str]:
    lost = []
    for how in ("diverged", "failed"):
        arms = [f"{row['arm']} ({row[how]} of {row['seeds_expected']})" for row in comparison.rows() if row[how]]
        if arms:
            lost.append(f"Confirm trials {how} in {formats.listed(arms)}.")
    return lost
