"""The section on claims: what is claimed and by whom, what was measured, the verdict, and what would decide it."""

from __future__ import annotations

from collections import Counter

from lrstudy_reports import formats
from lrstudy_reports.analysis import Analysis
from lrstudy_reports.claim_findings import Finding
from lrstudy_reports.claims import MOST_SEEDS, Claim, ClaimVerdict
from lrstudy_reports.headline import ratio
from lrstudy_reports.page import Cell, PageSection, Table
from lrstudy_reports.statistics import FEWEST

_VERDICTS: tuple[ClaimVerdict, ...] = ("supported", "contradicted", "undecided", "not testable")


def claims(analysis: Analysis) -> PageSection:
    """The section; without content if the study file has no claims."""
    title = "Claims (exploratory)" if analysis.study.lock.is_exploratory else "Claims"
    if not analysis.findings:
        return PageSection("claims", title)
    rows = [_row(analysis, finding, k) for k, finding in enumerate(analysis.findings, 1)]
    columns = ["Claim", "What it says", "Expected", "Measured", "Verdict", "What would decide it"]
    caption = f"Claims against this study's numbers; {formats.percent(analysis.study.lock.level)} intervals in brackets"
    table = Table(caption, columns, rows, prose=frozenset({1, 3, 4, 5}))
    return PageSection("claims", title, text=[_summary(analysis)], tables=[table], notes=_how_to_read(analysis))


def _row(analysis: Analysis, finding: Finding, number: int) -> list[Cell]:
    claim, verdict = finding.claim, finding.verdict
    kind = "untestable" if verdict == "not testable" else verdict
    decimals = formats.decimals_for([formats.half_width(finding.measured.low, finding.measured.high)])
    return [
        Cell(claim.claim or f"own {number}"),
        Cell(_capitalised(claim.text), _origin(claim)),
        Cell(_expected(claim), f"printed: {claim.printed}" if claim.printed else ""),
        Cell(*_measured(finding, decimals)),
        Cell("not testable here" if kind == "untestable" else verdict, _beside(finding), kind=kind),
        Cell(*_deciding(analysis, finding)),
    ]


def _expected(claim: Claim) -> str:
    """The claimed number or side, in the study's terms."""
    if claim.measure == "equal":
        return f"within ±{claim.margin:g}"
    origin = "1×" if claim.measure == "cost_ratio" else "0"
    if claim.expected is None:
        return {1: f"above {origin}", -1: f"below {origin}"}.get(claim.side or 0, formats.MISSING)
    bound = f"{claim.bound} " if claim.bound else ""
    if claim.measure == "cost_ratio":
        return bound + ratio(claim.expected)
    decimals = next((d for d in (2, 3, 4) if round(claim.expected, d) == round(claim.expected, 5)), 5)
    return bound + formats.fixed(claim.expected, decimals, sign=claim.measure == "difference")


def _measured(finding: Finding, decimals: int) -> tuple[str, str]:
    """The number, then its interval and what it is of."""
    claim, measured = finding.claim, finding.measured
    if not measured.n:
        return ("not measured" if finding.note == "not measured" else formats.MISSING), ""
    if claim.measure == "cost_ratio":
        has_width = measured.low < measured.high
        span = f"[{ratio(measured.low)}, {ratio(measured.high)}] " if has_width else ""
        return ratio(measured.mean), f"{span}cost of {claim.against} / {claim.arm}, {_count(finding)}"
    is_difference = claim.measure != "value"
    span = formats.interval(measured.low, measured.high, decimals, sign=is_difference)
    metric = _metric(claim)
    of = f"{metric}, {claim.arm} − {claim.against}" if is_difference else f"{metric}, {claim.arm}"
    return formats.fixed(measured.mean, decimals, sign=is_difference), f"{span} {of}, {_count(finding)}".strip()


def _metric(claim: Claim) -> str:
    name = (claim.metric or "").replace("train_", "training ").replace("_", " ")
    return name + (f" of {claim.label}" if claim.label is not None else "")


def _count(finding: Finding) -> str:
    plural = {"seed": "seeds", "search": "searches"}[finding.counted]
    return f"1 {finding.counted}" if finding.measured.n == 1 else f"{finding.measured.n} {plural}"


def _beside(finding: Finding) -> str:
    """What stands beside a verdict: whether the claimed size is in the interval, and the note."""
    sizes = {True: "claimed size within the interval", False: "claimed size outside the interval", None: ""}
    note = "" if finding.note == "not measured" else finding.note
    return "; ".join(filter(None, (sizes[finding.size], note)))


def _deciding(analysis: Analysis, finding: Finding) -> tuple[str, str]:
    """What would decide an undecided claim: how many seeds or searches, and their device time."""
    if finding.verdict != "undecided":
        return formats.MISSING, ""
    if finding.note is not None:
        return ("the study's end", "") if not analysis.comparison.final else (formats.MISSING, "")
    plural = {"seed": "seeds per arm", "search": "searches per arm"}[finding.counted]
    if finding.needed is None:
        return f"more than {MOST_SEEDS:,} {plural}", ""
    more = f"{finding.needed - finding.measured.n:,} more"
    if finding.more_device_s is not None and finding.more_device_s == finding.more_device_s:
        more += f", up to {formats.one_time(analysis.study.lock.unit, finding.more_device_s)}"
    least = "at least" if finding.measured.n < FEWEST else "about"
    return f"{least} {finding.needed:,} {plural}", more


def _summary(analysis: Analysis) -> str:
    """How many claims have which verdict, and of which workload that is said."""
    counts = Counter(finding.verdict for finding in analysis.findings)
    parts = [f"{counts[verdict]} {verdict}" for verdict in _VERDICTS if counts[verdict]]
    lock = analysis.study.lock
    workload = ", ".join(str(part) for part in (lock.data.get("source"), lock.model.get("name")) if part)
    where = f" ({workload})" if workload else ""
    return (
        f"Of {formats.count(len(analysis.findings), 'claim')}: {', '.join(parts)}. Each is held against this study's "
        f"workload{where} and its trainings. A claim about other data or another budget is supported or contradicted here, "
        "not there."
    )


def _how_to_read(analysis: Analysis) -> list[str]:
    """What the verdicts mean."""
    measures = {finding.claim.measure for finding in analysis.findings}
    notes = []
    if measures & {"difference", "cost_ratio"}:
        notes.append(
            "The direction of a difference or a ratio decides: supported if the interval lies on the claimed side of 0 (of 1 for "
            "ratios), contradicted if on the other. Whether it holds the claimed size is said apart."
        )
    if "cost_ratio" in measures:
        alone = "" if analysis.comparison.calibration.is_alone else ", not measured alone on the device"
        notes.append(
            f"Ratios are of the calibrated cost of one training, stand-alone{alone}; tuning is not in them, nor the error of "
            "the price of an update."
        )
    if "value" in measures:
        notes.append("A value is supported if the interval holds the claimed one: a wide interval holds many.")
    if "equal" in measures:
        notes.append(
            "Equal means within the margin, by two one-sided tests; contradicted if the interval lies outside it."
        )
    notes.append(
        "Each claim is judged by itself, without correction for their number. What would decide it is a forecast with power "
        "0.8, if mean and spread stay what they are; arms that share epochs pay less."
    )
    return notes


def _origin(claim: Claim) -> str:
    """Who claims it, and what is known of that, in sentences."""
    parts = [part for part in (claim.source, _capitalised(claim.note or "")) if part]
    return " ".join(part if part.endswith((".", "?", "!")) else f"{part}." for part in parts)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
