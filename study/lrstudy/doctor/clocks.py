"""Whether the nodes' clocks agree: their wall clocks within the time that an answer takes, and how fast the others run."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lrstudy.doctor.findings import Finding
from lrstudy.doctor.nodes import Answer

CHECK = "clocks"
ROUNDS = 5
"""How often every node is asked; the answer that came back soonest bounds the offset best."""
WARN_S, FAIL_S = 1.0, 10.0
"""Locks and records of other hosts are taken for abandoned when they are 30 s old or more."""
_DRIFT = 0.01
_ADVICE = "Set the clocks by NTP or chrony on every node."


def measure() -> list[float]:
    """Wall clock and monotonic clock, seconds."""
    return [time.time(), time.monotonic()]


def judge(rounds: Sequence[Sequence[Answer]]) -> list[Finding]:
    """One finding per node that answered in every round; rounds are lists of the same nodes in the order of time."""
    by_node = zip(*rounds, strict=True)
    return [_judge(answers) for answers in by_node if not any(answer.error for answer in answers)]


def _judge(answers: Sequence[Answer]) -> Finding:
    node = answers[0].node.name
    soonest = min(answers, key=lambda answer: answer.answered_at - answer.asked_at)
    doubt_s = (soonest.answered_at - soonest.asked_at) / 2
    offset_s = soonest.value[0] - (soonest.asked_at + doubt_s)
    least_s = max(0.0, abs(offset_s) - doubt_s)  # what the round trip cannot explain
    measured = f"{offset_s:+.3f} s from this host (within {doubt_s:.3f} s)"
    if rate := _wrong_rate(answers):
        return Finding(node, CHECK, "fail", f"{measured}; its monotonic clock runs {rate}", _ADVICE)
    if least_s > WARN_S:
        return Finding(node, CHECK, "fail" if least_s > FAIL_S else "warn", measured, _ADVICE)
    return Finding(node, CHECK, "ok", measured)


def _wrong_rate(answers: Sequence[Answer]) -> str:
    """How the node's monotonic clock runs against this host's clock, if that is more than round trips can explain."""
    first, last = answers[0], answers[-1]
    least_s, most_s = last.asked_at - first.answered_at, last.answered_at - first.asked_at
    passed_s = last.value[1] - first.value[1]
    if passed_s < least_s * (1 - _DRIFT):
        return f"slow ({passed_s:.2f} s in {least_s:.2f} s)"
    if passed_s > most_s * (1 + _DRIFT):
        return f"fast ({passed_s:.2f} s in {most_s:.2f} s)"
    return ""
