"""The sentences of a report: its answer, how to read each figure, the protocol and its limits."""

from __future__ import annotations

import math
from typing import Any

from lrstudy_reports import formats
from lrstudy_reports.calibration import Calibration
from lrstudy_reports.comparison import Comparison
from lrstudy_reports.tables import ENDED, StudyTables

Row = dict[str, Any]

FIGURES = {
    "verdicts": (
        "Difference to the control",
        "Points are mean differences over seeds, lines their 95% intervals; a line that crosses zero leaves "
        "the sign open, and the verdict also asks for a Holm-adjusted p below 0.05.",
    ),
    "over_cost": (
        "Validation metric against device time",
        "Confirm trials, mean and 95% interval over seeds. Higher at the same abscissa is more for the same "
        "cost; before its end a curve shows a schedule under way, not what a shorter schedule would reach.",
    ),
    "over_epochs": (
        "Validation metric against epochs",
        "The same trials by epoch. A policy with larger batches costs less per epoch, so this view and the "
        "one above can disagree; cost decides.",
    ),
    "traces": (
        "Learning rate and batch size as applied",
        "The confirmed configurations, update by update, as recorded in settings.parquet. Light lines are "
        "sections nearer the input; batch size is drawn beneath.",
    ),
    "best_after": (
        "Best after t trials",
        "Expected best validation value of t tuning trials drawn from those that were run (all subsets, "
        "order ignored). A curve that is flat early is cheap to tune.",
    ),
    "sharing": (
        "Epochs asked for, distinct, trained",
        "Trials with the same settings so far share their epochs; the gap between the first bar and the last "
        "was not paid for.",
    ),
    "ledger": (
        "Where allocated device time went",
        "Every second of every slot of every run, by category; training itself is coloured.",
    ),
}


def metric_name(study: StudyTables) -> str:
    """The name of the study's metric, in words."""
    return study.lock.metric.replace("_", " ")


def status(study: StudyTables) -> str:
    """How far the study is: 'complete, 105 trials' or 'running, 31 of 105 trials'."""
    ended = int(study.trials["status"].isin(ENDED).sum())
    if study.lock.complete:
        return f"complete, {formats.count(ended, 'trial')}"
    planned = max(study.lock.planned_trials or 0, len(study.trials))
    return f"running, {ended:,} of {formats.count(planned, 'trial')}" if planned else "running, no trials yet"


def answer(study: StudyTables, comparison: Comparison) -> str:
    """The answer of the study in a few sentences, claiming no more than its verdicts do."""
    rows = [row for row in comparison.rows() if row["test_metric"] is not None]
    if not rows:
        text = f"No answer{'' if comparison.final else ' yet'} ({status(study)}): no arm has a test value."
        return " ".join([text, *_lost_seeds(comparison)])
    if not comparison.final:
        return (
            f"No answer yet ({status(study)}): the numbers below are interim, and no verdict is given "
            "before every confirm trial has ended."
        )
    control = study.lock.control
    reference = next((row for row in rows if row["arm"] == control), None)
    if reference is None:
        why = "the study names no control" if control is None else f"the control {control} has no test value"
        mean = "highest" if study.lock.mode == "max" else "lowest"
        return f"{_reached(study, rows[0])}, the {mean} mean; {why}, so no difference was tested."
    if comparison.comparisons == 0:
        return f"{_reached(study, reference)}; there is no other arm to compare it with."
    better = [row for row in rows if row["verdict"] == "better"]
    parts = [_won(study, better)] if better else _nobody_won(study, comparison, rows, reference)
    return " ".join([*parts, *_lost_seeds(comparison)])


def caveats(study: StudyTables) -> list[str]:
    """The caveats of policies, each once for all arms that it concerns."""
    arms: dict[str, list[str]] = {}
    for arm in study.arms:
        for text in study.lock.caveats.get(arm, ()):
            arms.setdefault(text, []).append(arm)
    return [f"{formats.listed(names)}: {text}" for text, names in arms.items()]


def _of_calibration(calibration: Calibration) -> str:
    left_out = "It leaves out start-up, data loading and the writing of states (the ledger has them)."
    if calibration.is_alone:
        return (
            "Calibrated cost is what an update takes alone on the device, measured for each batch size and kind of "
            f"update, times updates, plus one evaluation per epoch. {left_out}"
        )
    return (
        "Calibrated cost is the median over this study's own epochs, by batch size and device kind, times "
        "updates, plus one evaluation per epoch; it was not measured alone on the device, so trials that shared it "
        f"with others count as slower than they are. {left_out}"
    )


def limits(study: StudyTables, comparison: Comparison) -> list[str]:
    """What the numbers do not show."""
    lock = study.lock
    sentences = [
        "The intervals cover the spread over seeds (initial weights, order, augmentation) of the tuned "
        "configurations. Tuning itself was done once: another run of it could choose others.",
        "Intervals are 95% each, not jointly; the verdict uses p-values adjusted by Holm over all "
        f"{formats.count(comparison.comparisons, 'comparison')}.",
        _of_calibration(comparison.calibration),
    ]
    if lock.budget_epochs is not None:
        sentences.append(
            f"One budget was studied: {formats.count(lock.budget_epochs, 'epoch')}. Schedules know their "
            "end, so nothing here ranks policies at another budget."
        )
    error = _test_error(study, comparison)
    if error:
        sentences.append(error)
    if lock.select == "best":
        sentences.append(
            "Values are of the best epoch on validation, of equally many in all arms, and so is the state that was tested. "
            "This favours noisy curves."
        )
    if not comparison.final:
        sentences.append("The study is unfinished; every number can still change.")
    return sentences


def protocol(study: StudyTables, comparison: Comparison) -> list[str]:
    """How the numbers were obtained."""
    lock, searchers = study.lock, study.searchers()
    sentences = []
    if lock.trials_per_arm is not None:
        cohort = f", {lock.cohort} of them the cohort that all arms share" if lock.cohort else ""
        sentences.append(
            f"Tuned on validation: {formats.count(lock.trials_per_arm, 'configuration')} per arm"
            f"{' and searcher' if len(searchers) > 1 else ''}{cohort}; "
            f"searched by {formats.listed(list(searchers)) or 'nobody'}; "
            f"tuning seeds {formats.value(list(lock.seeds))}."
        )
    if len(searchers) > 1:
        sentences.append(f"The confirmed configurations are those that {searchers[0]} found.")
    seeds = lock.confirm_seeds
    if seeds:
        sentences.append(
            f"Confirmed with {formats.count(seeds, 'fresh seed')} per arm; arms are paired by seed. The test "
            "set was read once, by these trials."
        )
    if lock.select == "last_cycle":
        sentences.append(
            "Every training is judged and tested at the end of the last cycle that its policy completed; where the rate has no "
            "cycles, after the last epoch. It costs the whole training all the same."
        )
    if lock.margin is not None:
        sentences.append(f"Equivalent means: the 95% interval of the difference lies within ±{lock.margin:g}.")
    if not math.isnan(comparison.target):
        how = "as the study set it" if lock.target is not None else f"{lock.target_of_control:g} of the control"
        sentences.append(f"Target for device time: validation {metric_name(study)} {comparison.target:.4g} ({how}).")
    sentences.extend(f"Deviation: {text}" for text in lock.deviations)
    sentences.extend(f"Missing table: {name}.parquet; what it feeds is left out." for name in study.missing)
    return sentences


def _reached(study: StudyTables, row: Row) -> str:
    half = formats.half_width(row["test_low"], row["test_high"])
    decimals = formats.decimals_for([half])
    spread = f" ± {formats.fixed(half, decimals)}" if half is not None else ""
    mean = formats.fixed(row["test_metric"], decimals)
    return f"{row['arm']} reached {mean}{spread} test {metric_name(study)}"


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


def _nobody_won(study: StudyTables, comparison: Comparison, rows: list[Row], reference: Row) -> list[str]:
    others = [row for row in rows if row is not reference]
    control, seeds = study.lock.control, formats.count(reference["seeds"], "seed")
    worse = [row["arm"] for row in others if row["verdict"] == "worse"]
    equal = [row["arm"] for row in others if row["verdict"] == "equivalent"]
    if not worse and not equal:
        parts = [f"No policy could be told apart from {control} with {seeds}."]
    else:
        parts = [f"No policy was better than {control} with {seeds}."]
    if worse:
        parts.append(f"{formats.listed(worse)} did worse.")
    if equal:
        parts.append(f"{formats.listed(equal)} can count as equivalent.")
    if math.isfinite(comparison.detectable):
        size = formats.significant(comparison.detectable, 2)
        parts.append(f"The smallest difference this study could have detected is about {size}.")
    elif reference["seeds"] < 2:
        parts.append("One seed gives no interval, so it could not have detected any difference.")
    return parts


def _lost_seeds(comparison: Comparison) -> list[str]:
    lost = [
        f"{row['arm']} ({row['diverged']} of {row['seeds_expected']})" for row in comparison.rows() if row["diverged"]
    ]
    return [f"Confirm trials diverged in {formats.listed(lost)}."] if lost else []


def _test_error(study: StudyTables, comparison: Comparison) -> str | None:
    """A sentence on the sampling error of accuracy on a test set of this size; None for other metrics."""
    size, best = study.lock.data.get("test"), comparison.arms["test_metric"].max()
    if study.lock.metric != "accuracy" or not isinstance(size, int) or size < 1 or not 0 < best < 1:
        return None
    error = math.sqrt(best * (1 - best) / size)
    return (
        f"All arms are judged on the same {size:,} test examples; on other test sets of that size an "
        f"accuracy near {best:.3f} would vary by about {formats.significant(error, 2)} (one standard error), "
        "which the intervals do not include."
    )


def ratio(value: float | None) -> str:
    """A ratio as '0.83×'; a dash if it is missing."""
    return formats.MISSING if value is None else f"{formats.significant(value, 3 if value >= 1 else 2)}×"
