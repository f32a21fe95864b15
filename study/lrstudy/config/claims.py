"""The claims of a study file: their rules, and what the study lock says of them. Reports hold them against the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lrstudy.config.claim_section import ClaimConfig
from lrstudy.config.published import Expected, Measure, published, sided
from lrstudy.config.sections import StudyFile
from lrstudy.errors import Fault, unknown

_OWN = ("text", "source", "expected")
_OF_MEASURE = ("arm", "against", "metric", "label", "margin")
_PAIRED = ("difference", "cost_ratio", "equal")
_BY_CLASS = ("precision", "recall", "specificity")
_LABELLED = (*_BY_CLASS, "f1")
"""What may be asked of one class; all but F1 of nothing else."""
_TRAIN = "train_"
_SOUND: Mapping[Measure, tuple[str, Callable[[float], bool]]] = {
    "value": ("a fraction from 0 to 1", lambda x: 0 <= x <= 1),
    "difference": ("a fraction from -1 to 1 other than 0, above or below", lambda x: 0 < abs(x) <= 1),
    "cost_ratio": ("a number above 0 other than 1, above or below", lambda x: x > 0 and x != 1),
}
"""What may be expected of a measure, in words and as a test."""


def faults(study: StudyFile, workload_names: Sequence[str] = ()) -> list[Fault]:
    """The faults of all claims that can be found without the data; `workload_names` are those of the file's map, if any."""
    return [
        fault.within(f"claims[{k}]")
        for k, claim in enumerate(study.claims)
        for fault in (*_of_statement(claim), *_of_measure(claim, study), *_of_workload(claim, workload_names))
    ]


def faults_with_data(study: StudyFile, kind: str, metrics: Sequence[str], classes: Sequence[str]) -> Iterator[Fault]:
    """The faults of claims on metrics that a task of this `kind` does not have, or on classes that the data does not."""
    for k, claim in enumerate(study.claims):
        if not _is_about(claim, study):
            continue
        metric = (claim.metric or "").removeprefix(_TRAIN)
        if metric and claim.label is None and metric not in (*metrics, *_BY_CLASS):
            expected = f"a metric of a {kind} task"
            yield Fault(f"claims[{k}].metric", expected=expected, got=metric, valid=tuple(metrics), name=metric)
        if claim.label is not None and claim.label not in classes:
            yield unknown(f"claims[{k}].label", "class", claim.label, classes)


def for_lock(study: StudyFile, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The claims as study.lock.json has them, with arms by the `names` that they run under; numbers as fractions and ratios.

    What does not apply is null. `side` is 1 if a difference is to be above 0 or a ratio above 1, and -1 if below. Claims
    about other workloads of the file are left out.
    """
    return [_locked(claim, study, names) for claim in study.claims if _is_about(claim, study)]


def _is_about(claim: ClaimConfig, study: StudyFile) -> bool:
    """Whether a claim is about the workload of this study, which is the second part of its name if the file has several."""
    return claim.workload is None or claim.workload == study.name.partition("/")[2]


def _of_workload(claim: ClaimConfig, names: Sequence[str]) -> Iterator[Fault]:
    if claim.workload is not None and claim.workload not in names:
        if names:
            yield unknown("workload", "workload", claim.workload, names)
        else:
            yield Fault("workload", "means nothing in a study of one workload")


def _locked(claim: ClaimConfig, study: StudyFile, names: Mapping[str, str]) -> dict[str, Any]:
    known = published()[claim.claim] if claim.claim is not None else None
    expected = _expected(claim)
    is_equal = claim.measure == "equal"
    return {
        "claim": claim.claim,
        "text": known.text if known else claim.text,
        "source": known.source if known else claim.source,
        "printed": known.printed if known else None,
        "note": known.note if known else None,
        "measure": claim.measure,
        "not_testable": claim.not_testable,
        "arm": None if claim.arm is None else names[claim.arm],
        "against": None if claim.against is None else names[claim.against],
        "metric": (claim.metric or study.metric) if claim.measure not in (None, "cost_ratio") else None,
        "label": claim.label,
        "margin": (claim.margin or study.compare.margin) if is_equal else None,
        "expected": expected.number,
        "side": expected.side,
        "bound": expected.bound,
    }


def _expected(claim: ClaimConfig) -> Expected:
    """What a claim without faults expects; of one that cannot be tested, nothing."""
    if claim.measure is None:
        return Expected()
    if claim.claim is not None:
        return published()[claim.claim].expected(claim.measure) or Expected()
    if claim.expected is None or isinstance(claim.expected, str):
        return Expected(side={"above": 1, "below": -1}.get(claim.expected or ""))
    return sided(claim.measure, claim.expected)


def _of_statement(claim: ClaimConfig) -> Iterator[Fault]:
    """The faults of what is claimed, by whom, and what it expects."""
    if claim.claim is None:
        if claim.text is None:
            yield Fault("", expected="claim, the id of a published one, or text with its source", got="neither")
        elif claim.source is None:
            yield Fault("source", "this key is required beside text: who claims it, and where")
    elif beside := [name for name in _OWN if getattr(claim, name) is not None]:
        yield Fault(
            "claim", expected="it without text, source and expected, which the published claim has", got=beside[0]
        )
    elif claim.claim not in published():
        ids = list(published())
        yield Fault("claim", expected=f"the id of a published claim, {ids[0]} to {ids[-1]}", got=repr(claim.claim))
    elif claim.measure is not None and published()[claim.claim].expected(claim.measure) is None:
        fields = published()[claim.claim].fields
        is_of = f"{fields.get('value', 'no number')} {fields.get('unit', '')} of {fields['metric']}"
        advice = "Take another measure, or write text, source and expected out."
        yield Fault("measure", f"{claim.claim} says nothing of a {claim.measure}: it is {is_of}", advice=advice)
    if claim.claim is None and claim.text is not None:
        yield from _of_expected(claim)


def _of_expected(claim: ClaimConfig) -> Iterator[Fault]:
    """The faults of a number or a side that the study file gives."""
    number, measure = claim.expected, claim.measure
    if measure is None or measure == "equal":
        if number is not None:
            yield Fault(
                "expected", "means nothing here" if measure is None else "means nothing to equal; a margin does"
            )
        return
    expected, holds = _SOUND[measure]
    if number is None:
        yield Fault("expected", f"this key is required beside text; expected {expected}")
    elif (measure == "value") if isinstance(number, str) else not holds(number):
        yield Fault("expected", expected=expected, got=str(number), advice=_advice(number, measure))


def _advice(number: float | str, measure: Measure) -> str:
    if measure == "difference" and number == 0:
        return "For no difference there is measure: equal."
    is_percent = not isinstance(number, str) and abs(number) > 1 and measure != "cost_ratio"
    return "Per cent are written as fractions: 0.95, not 95." if is_percent else ""


def _of_measure(claim: ClaimConfig, study: StudyFile) -> Iterator[Fault]:
    """The faults of what the claim is held against."""
    given = [name for name in _OF_MEASURE if getattr(claim, name) is not None]
    if (claim.measure is None) == (claim.not_testable is None):
        got = "neither" if claim.measure is None else "both"
        expected = "either measure (value, difference, cost_ratio or equal) or not_testable with the reason"
        yield Fault("", expected=expected, got=got)
        return
    if claim.not_testable is not None:
        yield from (Fault(name, "means nothing beside not_testable") for name in given)
        return
    needed = ("arm", "against") if claim.measure in _PAIRED else ("arm",)
    for name in ("arm", "against"):
        arm = getattr(claim, name)
        if arm is None and name in needed:
            yield Fault(name, f"this key is required for {claim.measure}", valid=tuple(study.arms))
        elif arm is not None and name not in needed:
            yield Fault(name, f"means nothing to {claim.measure}, which is of one arm")
        elif arm is not None and arm not in study.arms:
            yield unknown(name, "arm", arm, study.arms)
    if claim.arm is not None and claim.arm == claim.against:
        yield Fault("against", expected="another arm", got=repr(claim.against))
    yield from _of_metric(claim, study)


def _of_metric(claim: ClaimConfig, study: StudyFile) -> Iterator[Fault]:
    metric = claim.metric or study.metric
    if claim.measure == "cost_ratio":
        yield from (
            Fault(name, "means nothing to cost_ratio")
            for name in ("metric", "label")
            if getattr(claim, name) is not None
        )
    elif claim.label is None and metric in _BY_CLASS:
        yield Fault("label", f"this key is required for {metric}: the class that it is of")
    elif claim.label is not None and metric not in _LABELLED:
        yield Fault("label", expected=f"it only with {', '.join(_LABELLED)}", got=f"metric {metric}")
    if claim.measure != "equal" and claim.margin is not None:
        yield Fault("margin", f"means nothing to {claim.measure}; equal has one")
    elif claim.measure == "equal" and claim.margin is None and study.compare.margin is None:
        yield Fault("margin", "this key is required for equal where compare.margin is not given")
