"""The sentences of a report beside its answer: how to read each figure, the protocol and its limits."""

from __future__ import annotations

import math

from lrstudy_reports import formats
from lrstudy_reports.bootstrap import BY_EXAMPLE
from lrstudy_reports.calibration import Calibration
from lrstudy_reports.comparison import Comparison
from lrstudy_reports.headline import metric_name
from lrstudy_reports.lock import Lock
from lrstudy_reports.statistics import FEWEST
from lrstudy_reports.tables import StudyTables

FIGURES = {
    "verdicts": (
        "Difference to the control",
        "Points are mean differences over seeds, lines their intervals, each for itself; a line that crosses zero "
        "leaves the sign open, and the verdict also asks for a p that is corrected for all comparisons (Holm).",
    ),
    "over_cost": (
        "Validation metric against device time",
        "Confirm trials, mean and interval over seeds. Higher at the same abscissa is more for the same "
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
    "confusion": (
        "Confusion matrix of each arm",
        "A row has the test examples of one class, with their number, and says which percentage was taken for what, over all "
        "confirm trials. Blue is right, orange wrong; small errors are drawn stronger than in proportion.",
    ),
    "confusion_by_label": (
        "What became of each label under each arm",
        "Percentages over all confirm trials: of the test examples that have the label (their number stands beside it) found "
        "and missed, of the others wrongly said to have it and rightly not. Blue is right, orange wrong; small errors are drawn "
        "stronger than in proportion.",
    ),
    "sharing": (
        "Epochs asked for, distinct, trained",
        "Of one search and the confirm trials. Trials with the same settings so far share their epochs; the gap between "
        "the first bar and the last was not paid for.",
    ),
    "ledger": (
        "Where allocated device time went",
        "Every second of every slot of every run, by category; training itself is coloured.",
    ),
}


def caveats(study: StudyTables) -> list[str]:
    """What a reader must know of the data and of policies, each once for all arms that it concerns."""
    arms: dict[str, list[str]] = {}
    for arm in study.arms:
        for text in study.lock.caveats.get(arm, ()):
            arms.setdefault(text, []).append(arm)
    return [*_copies(study), *(f"{formats.listed(names)}: {text}" for text, names in arms.items())]


def _copies(study: StudyTables) -> list[str]:
    """A warning if test examples are copies of others: every arm is then measured on what it may have learnt by heart."""
    statistics = study.lock.data.get("statistics") or {}
    copies, total = statistics.get("copies"), study.lock.data.get("test")
    if not copies:
        return []
    return [
        f"{copies:,} of the {total:,} test examples {'has' if copies == 1 else 'have'} exactly the pixels of a training or "
        "validation example: what is measured on them is memory, not generalisation."
    ]


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
        _coverage(study),
        f"Intervals are {formats.percent(lock.level)} each, not jointly, but for those of the comparison with the best, "
        "which hold together. Verdicts use p-values adjusted by Holm over all "
        f"{formats.count(comparison.comparisons, 'comparison')}: those of a difference, and those of equivalence.",
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
    sentences = [str(text) for text in lock.weights.get("notes") or ()]
    sentences += [_tuned(study)] if lock.trials_per_arm is not None else []
    if len(searchers) > 1:
        sentences.append(f"The confirmed configurations are those that {searchers[0]} found.")
    sentences.extend(_confirmed(lock))
    if lock.select == "last_cycle":
        sentences.append(
            "Every training is judged and tested at the end of the last cycle that its policy completed; where the rate has no "
            "cycles, after the last epoch. It costs the whole training all the same."
        )
    if lock.margin is not None:
        sentences.append(
            f"Equivalent means: the difference lies within ±{lock.margin:g}, by two one-sided tests whose p-values are "
            "adjusted by Holm as well."
        )
    if not math.isnan(comparison.target):
        how = "as the study set it" if lock.target is not None else f"{lock.target_of_control:g} of the control"
        sentences.append(f"Target for device time: validation {metric_name(study)} {comparison.target:.4g} ({how}).")
    sentences.extend(f"Deviation: {text}" for text in (*lock.deviations, *(lock.weights.get("deviations") or ())))
    sentences.extend(f"Missing table: {name}.parquet; what it feeds is left out." for name in study.missing)
    return sentences


def _tuned(study: StudyTables) -> str:
    """How many configurations were tried and by whom: as planned, and once the study is complete as used."""
    lock, searchers = study.lock, study.searchers()
    counts = [lock.trials_per_arm or 0]
    if lock.complete and searchers:
        trials = study.of_searcher(searchers[0])
        used = trials[~trials["arm"].isin(lock.retired)].groupby("arm")["index"].nunique()
        counts = sorted(set(used.tolist())) or counts
    number = formats.count(counts[-1], "configuration")
    cohort = f", {lock.cohort} of them the cohort that all arms share" if lock.cohort else ""
    return (
        f"Tuned on validation: {f'{counts[0]} to ' if len(counts) > 1 else ''}{number} per arm"
        f"{' and searcher' if len(searchers) > 1 else ''}{cohort}; "
        f"searched by {formats.listed(list(searchers)) or 'nobody'}; tuning seeds {formats.value(list(lock.seeds))}."
    )


def _coverage(study: StudyTables) -> str:
    """Which spread the intervals include."""
    seeds = "the spread over seeds (initial weights, order, augmentation) of the tuned configurations"
    if study.num_searches == 1:
        return (
            f"The intervals cover {seeds}. They do not include the spread over searches: tuning was done once, and "
            "another run of it could choose others."
        )
    if study.num_searches < FEWEST:
        return f"The intervals cover {seeds} of two searches. Two searches do not show how much searches scatter; three do."
    by_example = " and, where predictions of every test example are kept, over test examples" * (
        study.lock.metric in BY_EXAMPLE
    )
    return (
        f"The intervals cover the spread over {study.num_searches} searches and over seeds{by_example}, by a hierarchical "
        "bootstrap with as many degrees of freedom as there are searches, less one."
    )


def _confirmed(lock: Lock) -> list[str]:
    """How the test part was read."""
    if not lock.confirm_seeds:
        return []
    text = f"Confirmed with {formats.count(lock.confirm_seeds, 'fresh seed')} per arm; arms are paired by seed."
    if lock.is_exploratory:
        read = "These trials alone read the test part, but the plan was changed after some had: see the deviations."
    elif len(lock.looks) > 1:
        read = "These trials alone read the test part, for looks that were planned before."
    else:
        read = "The test part was read once, by these trials."
    sentences = [f"{text} {read}"]
    if len(lock.looks) > 1:
        after = formats.listed([str(seeds) for seeds in lock.looks])
        sentences.append(
            f"Planned looks after {after} seeds, until one decides all comparisons. Each has an equal share of 0.05 "
            f"(Bonferroni): p-values must be below {lock.alpha:.3g}, and intervals are {formats.percent(lock.level)}."
        )
    if lock.is_exploratory:
        sentences.append(
            "Verdicts are exploratory: who changes a plan after looking at the test part finds differences more often "
            "than p-values say. A new study on test examples that nobody has looked at would confirm them."
        )
    return sentences


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
