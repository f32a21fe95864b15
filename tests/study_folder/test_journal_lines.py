"""What a journal may hold that others can write to: lines that no driver writes are ignored, whatever is in them."""

from __future__ import annotations

import json

import pytest

from lrstudy.study_folder.journal import Journal
from lrstudy.study_folder.journal_lines import is_line
from prescribed import Training, run_study
from report_studies import FULL

SOUND = [
    {"kind": "run", "study_id": "a", "host": "h", "pid": 1, "started_at": 1.0, "overrides": []},
    {"kind": "told", "arm": "a", "method": "random", "index": 0, "cost": None},
    {"kind": "trial", "trial_id": "t", "status": "completed", "error": None, "test": {"loss": 0.5}, "ended_at": None},
    {"kind": "spans", "worker": "w", "slot": 0, "at": 1.0, "spans": [[0.0, 1.5, "train", "t"]]},
    {"kind": "look", "seeds": 5, "decided": True},
    {"kind": "of a later version", "anything": {"at": [1]}},
]
ODD = [
    "text", 5, None, [], {}, {"kind": 5}, {"kind": ["told"]},
    {"kind": "told", "arm": "a", "method": "random", "index": 0},
    {"kind": "told", "arm": "a", "method": "random", "index": -1, "cost": 0.5},
    {"kind": "told", "arm": "a", "method": "random", "index": True, "cost": 0.5},
    {"kind": "told", "arm": ["a"], "method": "random", "index": 0, "cost": 0.5},
    {"kind": "told", "arm": "a", "method": "random", "index": 0, "cost": float("nan")},
    {"kind": "told", "arm": "a", "method": "random", "index": 0, "cost": 10**400},
    {"kind": "slots", "count": 10**12, "start": 0.0, "share": 1.0, "device": "cpu", "host": "h"},
    {"kind": "spans", "worker": "w", "slot": 0, "spans": [[0.0, -1.0, "train", "t"]]},
    {"kind": "spans", "worker": "w", "slot": 0, "spans": [[0.0, float("inf"), "train", "t"]]},
    {"kind": "spans", "worker": "w", "slot": 0, "spans": "train"},
    {"kind": "trial", "trial_id": "t", "status": "completed", "test": {"loss": "0.5"}},
    {"kind": "frozen", "arms": ["a"], "deviates": False},
    {"kind": "killed", "of": "1", "at": 0.0},
    {"kind": "suggest", "arm": "a", "method": "random", "index": 0, "configuration": "lr"},
]  # fmt: skip


@pytest.mark.parametrize("line", SOUND, ids=lambda line: line["kind"])
def test_what_drivers_write_counts(line):
    assert is_line(json.loads(json.dumps(line)))


@pytest.mark.parametrize("line", ODD, ids=range(len(ODD)))
def test_what_no_driver_writes_is_ignored(tmp_path, line):
    texts = [json.dumps({"kind": "run"}), json.dumps(line), "[" * 100_000, "\x80", json.dumps({"kind": "last"})]
    (tmp_path / "0001.jsonl").write_text("\n".join(texts) + "\n")
    assert [kept["kind"] for kept in Journal(tmp_path).lines] == ["run", "last"]


def test_every_line_that_a_run_writes_is_read_again(tmp_path):
    """Every freeze was ignored: it has lists of configurations, and maps were expected."""
    deaths = Training(dies=lambda trial: trial.index == 1)
    folder = run_study(tmp_path, FULL, training=deaths)
    run_study(tmp_path, FULL, "confirm.seeds=4", training=deaths)
    written = [
        json.loads(text)
        for path in sorted((folder / "journal").glob("*.jsonl"))
        for text in path.read_text().splitlines()
    ]
    read = Journal(folder / "journal").lines
    assert [line["kind"] for line in read] == [line["kind"] for line in written]
    assert {"frozen", "died", "told", "trial", "slots", "spans", "idle", "end"} <= {line["kind"] for line in read}
