"""Several processes publish to one memo at once: one winner per name, and all know it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lrstudy.memo.memo import Memo
from memo_records import files, record

PUBLISH = """
import json, sys
from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
memo, me, drafts = Memo(sys.argv[1]), sys.argv[2], json.loads(sys.stdin.readline())
print("ready", flush=True)
sys.stdin.readline()
for draft in drafts:
    state = memo.put_state(f"{me} {draft['epoch']}".encode())
    winner = memo.commit(Record(**(draft | {"origin": {"trial": me}, "state": state})))
    print(winner.lineage, winner.origin["trial"], winner.state == memo.known(winner.lineage).state, flush=True)
"""


def publishers(folder: Path, count: int, names: int) -> list[subprocess.Popen[str]]:
    """Processes that publish the same names at the same time, each in its own words."""
    drafts = json.dumps([record(number).__dict__ for number in range(names)])
    started = []
    for number in range(count):
        arguments = [sys.executable, "-c", PUBLISH, str(folder), f"process {number}"]
        started.append(subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in started:
        process.stdin.write(drafts + "\n")
        process.stdin.flush()
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    return started


def ended(processes: list[subprocess.Popen[str]]) -> list[dict[str, str]]:
    """For each process, who won each name as it saw it."""
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    assert all(line.endswith(" True") for lines in said for line in lines)
    return [dict(line.removesuffix(" True").split(" ", 1) for line in lines) for lines in said]


def check_winners(folder: Path, reported: list[dict[str, str]], names: int) -> None:
    """All processes saw the same winners, and their records and states are there."""
    assert [len(winners) for winners in reported] == [names] * len(reported)
    assert all(winners == reported[0] for winners in reported)
    reader = Memo(folder)
    for number in range(names):
        winner = reader.find(record(number).lineage)
        assert winner is not None
        assert winner.origin["trial"] == reported[0][winner.lineage]
        assert reader.state_of(winner) == f"{winner.origin['trial']} {number}".encode()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_of_processes_that_publish_the_same_names_all_report_the_same_winners(tmp_path, count):
    reported = ended(publishers(tmp_path, count, names=50))
    check_winners(tmp_path, reported, names=50)
    assert [path.name for path in files(tmp_path, "records")] == sorted(reported[0])


@pytest.mark.slow
def test_compaction_while_others_publish_loses_nothing_and_changes_no_winner(tmp_path):
    processes = publishers(tmp_path, count=3, names=200)
    compacted, compactor = 0, Memo(tmp_path)
    while any(process.poll() is None for process in processes):
        compacted += compactor.compact(at_least=1)
    reported = ended(processes)
    assert compacted > 0
    check_winners(tmp_path, reported, names=200)
    Memo(tmp_path).compact(at_least=1)
    assert not files(tmp_path, "records")
    check_winners(tmp_path, reported, names=200)


@pytest.mark.slow
def test_compactions_at_once_lose_nothing_and_keep_one_record_per_name(tmp_path):
    memo = Memo(tmp_path)
    committed = [memo.commit(record(number)) for number in range(300)]
    threads = [threading.Thread(target=lambda: Memo(tmp_path).compact(at_least=1)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not files(tmp_path, "records")
    reader = Memo(tmp_path)
    assert [reader.find(r.lineage) for r in committed] == committed


@pytest.mark.slow
def test_a_killed_writer_leaves_nothing_half_visible(tmp_path):
    for _ in range(3):
        (process,) = publishers(tmp_path, 1, names=3000)
        try:
            for _ in range(50):
                process.stdout.readline()
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -9
    visible = [path for path in files(tmp_path, "records") if "#" not in path.name]  # obstore writes under NAME#1 first
    reader = Memo(tmp_path)
    assert len(visible) >= 50
    for path in visible:
        committed = reader.find(path.name)
        assert committed is not None
        assert reader.state_of(committed) == f"{committed.origin['trial']} {committed.epoch}".encode()
    assert not files(tmp_path, "damaged")
    assert reader.compact(at_least=1) == len(visible)
