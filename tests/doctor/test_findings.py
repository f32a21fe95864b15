"""Findings are read as one line per check, below their node; what has failed stops a run."""

from __future__ import annotations

import pytest

from lrstudy.doctor.findings import Finding, has_failed, render, require, to_json
from lrstudy.errors import InputError

FOUND = [
    Finding("a", "versions", "ok", "Python 3.11.7"),
    Finding("b", "versions", "fail", "torch 2.9 there, 2.10 here", "Install one."),
    Finding("", "GPUs", "fail", "no node has one"),
    Finding("b", "disk", "warn", "1.0 GiB free", "Free space."),
]


def test_findings_are_grouped_by_node_with_what_concerns_all_first():
    assert list(render(FOUND)) == [
        "All nodes",
        "  fail  GPUs      no node has one",
        "a",
        "  ok    versions  Python 3.11.7",
        "b",
        "  fail  versions  torch 2.9 there, 2.10 here. Install one.",
        "  warn  disk      1.0 GiB free. Free space.",
        "1 ok, 1 warn, 2 fail",
    ]


def test_every_failure_is_a_fault_and_warnings_are_none():
    with pytest.raises(InputError) as raised:
        require(FOUND)
    assert raised.value.sentences == (
        "versions on b: torch 2.9 there, 2.10 here. Install one.",
        "GPUs: no node has one.",
    )
    require([FOUND[0], FOUND[3]])


def test_a_program_reads_the_same():
    assert to_json(FOUND)["ok"] is False
    assert to_json(FOUND)["findings"][0] == {
        "node": "a", "check": "versions", "status": "ok", "measured": "Python 3.11.7", "advice": ""
    }  # fmt: skip
    assert not has_failed([FOUND[0], FOUND[3]])
