from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from lrstudy.errors import StorageError
from lrstudy.study_folder.journal import Journal


def written(folder, *kinds):
    journal = Journal(folder)
    journal.open_run(host="h")
    for number, kind in enumerate(kinds):
        journal.write(kind, number=number)
    journal.close()
    return journal


def test_what_was_written_is_read_again(tmp_path):
    journal = written(tmp_path / "journal", "proposed", "learnt")
    again = Journal(tmp_path / "journal")
    assert again.lines == journal.lines
    assert [line["kind"] for line in again.lines] == ["run", "proposed", "learnt"]
    assert again.lines[1] == {"kind": "proposed", "number": 0, "run": 1}


def test_a_line_is_readable_by_others_as_soon_as_it_is_written(tmp_path):
    journal = Journal(tmp_path)
    journal.open_run()
    journal.write("learnt", cost=None)
    assert [line["kind"] for line in Journal(tmp_path).lines] == ["run", "learnt"]


def test_every_run_has_a_file_of_its_own_and_reading_keeps_their_order(tmp_path):
    for kind in ("proposed", "learnt", "over"):
        written(tmp_path, kind)
    journal = Journal(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001.jsonl", "0002.jsonl", "0003.jsonl"]
    assert journal.run == 3
    assert [(line["run"], line["kind"]) for line in journal.lines if line["kind"] != "run"] == [
        (1, "proposed"), (2, "learnt"), (3, "over"),
    ]  # fmt: skip


def test_runs_are_ordered_by_number_and_not_by_name(tmp_path):
    for number in (10_000, 9_999):
        (tmp_path / f"{number}.jsonl").write_text('{"kind": "run"}\n')
    (tmp_path / "notes.jsonl").write_text('{"kind": "note"}\n')
    assert [line["run"] for line in Journal(tmp_path).lines] == [9_999, 10_000]


def test_lines_of_one_kind_come_oldest_first_over_all_runs(tmp_path):
    written(tmp_path, "learnt", "proposed", "learnt")
    written(tmp_path, "learnt")
    assert [(line["run"], line["number"]) for line in Journal(tmp_path).of_kind("learnt")] == [(1, 0), (1, 2), (2, 0)]


def test_a_study_keeps_its_identity_over_its_runs(tmp_path):
    first, second = written(tmp_path / "one"), written(tmp_path / "one")
    assert first.study_id == second.study_id != ""
    assert written(tmp_path / "other").study_id != first.study_id


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_ignored_and_the_next_run_goes_on(tmp_path, cut):
    written(tmp_path, "proposed", "learnt")
    path = tmp_path / "0001.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    written(tmp_path, "over")
    kinds = [line["kind"] for line in Journal(tmp_path).lines]
    assert kinds == (["run", "proposed", "learnt"] if cut == 1 else ["run", "proposed"]) + ["run", "over"]


def test_text_with_line_separators_of_unicode_is_one_line(tmp_path):
    journal = Journal(tmp_path)
    journal.open_run()
    journal.write("tried", error="a\u2028b\x85c\nd")
    assert [line["error"] for line in Journal(tmp_path).of_kind("tried")] == ["a\u2028b\x85c\nd"]


class Filling:
    """A file on a disk that takes `room` more bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if self.room == 0:
            raise OSError(28, os.strerror(28))
        taken = min(len(data), self.room)
        self.file.write(data[:taken])
        self.room -= taken
        return taken


def test_a_full_disk_is_one_clear_paragraph_and_the_line_counts_as_not_written(tmp_path):
    journal = Journal(tmp_path)
    journal.open_run()
    file = journal._file
    journal._file = Filling(file, 10)
    with pytest.raises(StorageError, match=r"^storage\.path: .*No space left on device\. .*the same command again\.$"):
        journal.write("learnt", cost=0.25)
    assert [line["kind"] for line in journal.lines] == ["run"]
    journal._file = Filling(file, 1000)
    journal.write("over", at=1.0)
    assert Journal(tmp_path).lines == journal.lines  # the torn line does not spoil the one after it
    assert [line["kind"] for line in journal.lines] == ["run", "over"]


def test_a_device_that_is_really_full_is_noticed_at_once(tmp_path):
    journal = Journal(tmp_path)
    journal.open_run()
    with open("/dev/full", "wb", buffering=0) as journal._file, pytest.raises(StorageError, match="No space left"):
        journal.write("learnt", cost=0.25)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"storage\.path: cannot write the journal .* Not a directory"):
        Journal(tmp_path / "file" / "journal").open_run()


def test_a_killed_driver_loses_nothing_that_it_had_said(tmp_path):
    code = (
        "import sys; from pathlib import Path; from lrstudy.study_folder.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1])); journal.open_run()\n"
        "for number in range(10**9): journal.write('learnt', number=number); print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as driver:
        try:
            said = [int(driver.stdout.readline()) for _ in range(200)]
        finally:
            driver.send_signal(signal.SIGKILL)
        said += [int(line) for line in driver.stdout.read().split("\n")[:-1]]
    numbers = [line["number"] for line in Journal(tmp_path).of_kind("learnt")]
    assert numbers[: len(said)] == said
    assert len(numbers) <= len(said) + 1  # written, but killed before it said so
    assert all(json.loads(text) for text in (tmp_path / "0001.jsonl").read_text().splitlines()[:-1])
