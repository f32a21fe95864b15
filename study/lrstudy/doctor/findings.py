"""What a check has found, and how a person or a program reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lrstudy.errors import Fault, InputError

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        node: Where it was checked; empty for what concerns all nodes together.
        check: What was checked, in one or two words.
        status: ``ok``; ``warn`` for what works, but slowly or with less than there is; ``fail`` for what a study needs.
        measured: What was found, as a sentence without its full stop.
        advice: What to do about it, in whole sentences; nothing if it is ok.
    """

    node: str
    check: str
    status: Status
    measured: str
    advice: str = ""


def has_failed(findings: Sequence[Finding]) -> bool:
    """Whether anything that a study needs is missing."""
    return any(finding.status == "fail" for finding in findings)


def require(findings: Sequence[Finding]) -> None:
    """Raise InputError with every failed finding."""
    faults = [
        Fault(
            f"{finding.check} on {finding.node}" if finding.node else finding.check,
            finding.measured,
            advice=finding.advice,
        )
        for finding in findings
        if finding.status == "fail"
    ]
    if faults:
        raise InputError(faults)


def render(findings: Sequence[Finding]) -> Iterator[str]:
    """One line per check, below the node that it was checked on; first what concerns all nodes together."""
    width = max((len(finding.check) for finding in findings), default=0)
    for node in sorted(dict.fromkeys(finding.node for finding in findings), key=bool):
        yield node or "All nodes"
        for finding in findings:
            if finding.node == node:
                advice = f". {finding.advice}" if finding.advice else ""
                yield f"  {finding.status:<4}  {finding.check:<{width}}  {finding.measured}{advice}"
    counts = {status: sum(finding.status == status for finding in findings) for status in ("ok", "warn", "fail")}
    yield ", ".join(f"{count} {status}" for status, count in counts.items())


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings for a program."""
    return {"ok": not has_failed(findings), "findings": [asdict(finding) for finding in findings]}
