"""A study's folder in a bucket: what is published when, what a reader sees, and what a kill costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lrstudy.errors import StorageError
from lrstudy.storage.bucket import Bucket
from lrstudy.storage.place import Storage
from lrstudy.study_folder import mirror as mirror_module
from lrstudy.study_folder.journal import Journal
from lrstudy.study_folder.mirror import Mirror
from s3_server import proxy

FROZEN = {"arms": {}, "deviates": False}
LOOK = {"seeds": 5, "decided": False}
TOLD = {"arm": "a", "method": "random", "index": 0, "cost": 0.5}


@pytest.fixture
def storage(s3) -> Storage:
    return Storage(f"{s3}/runs")


def drivers(storage: Storage) -> Mirror:
    mirror = Mirror(storage, "study", is_drivers=True)
    mirror.bring()
    return mirror


def begun(storage: Storage) -> tuple[Mirror, Journal]:
    mirror = drivers(storage)
    journal = Journal(mirror.folder / "journal", mirror.wrote)
    mirror.begin(journal.run + 1)
    journal.open_run(host="h")
    return mirror, journal


def objects(storage: Storage) -> list[str]:
    return sorted(item.path for item in Bucket(storage.study("study")).listing())


def brought(storage: Storage) -> Mirror:
    """What another node sees."""
    mirror = Mirror(storage, "study")
    mirror.bring()
    return mirror


def kinds(storage: Storage) -> list[str]:
    return [line["kind"] for line in Journal(brought(storage).folder / "journal").lines]


def test_a_folder_needs_no_copy(tmp_path):
    mirror = Mirror(Storage(str(tmp_path)), "study", is_drivers=True)
    assert mirror.folder == tmp_path / "study"
    assert mirror.location == str(tmp_path / "study")
    for call in (mirror.bring, lambda: mirror.begin(1), mirror.publish, mirror.end, mirror.check):
        call()
    assert mirror.bring_tables() == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_a_bucket_is_read_by_another_node_as_it_was_written(storage):
    mirror, journal = begun(storage)
    journal.write("learnt", cost=0.5)
    (mirror.folder / "trials.parquet").write_bytes(b"rows")
    (mirror.folder / "study.lock.json").write_text("{}")
    (mirror.folder / "report").mkdir()
    (mirror.folder / "report" / "index.html").write_text("page")
    mirror.end()
    assert objects(storage) == ["journal/0001.jsonl", "report/index.html", "study.lock.json", "trials.parquet"]
    assert kinds(storage) == ["run", "learnt"]
    assert (brought(storage).folder / "trials.parquet").read_bytes() == b"rows"


def test_a_line_that_others_rest_on_is_in_the_bucket_before_writing_it_returns(storage):
    mirror, journal = begun(storage)
    try:
        mirror._stopped.set()  # the thread has no part in it
        journal.write("learnt", cost=0.5)
        journal.write("frozen", **FROZEN)
        assert kinds(storage) == ["run", "learnt", "frozen"]
        journal.write("told", **TOLD)
        assert "told" not in kinds(storage)
    finally:
        mirror.stop()


def test_other_lines_follow_within_moments(storage):
    mirror, journal = begun(storage)
    try:
        journal.write("told", **TOLD)
        end = time.monotonic() + 60
        while "told" not in kinds(storage):
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        mirror.stop()


def test_parts_are_joined_and_a_reader_sees_every_line_once(storage, monkeypatch):
    monkeypatch.setattr(mirror_module, "PARTS_JOINED", 3)
    mirror, journal = begun(storage)
    mirror.stop()
    for number in range(7):
        journal.write("look", number=number, **LOOK)
    assert objects(storage) == [
        "journal/0001-000001-000003.jsonl", "journal/0001-000004-000006.jsonl", "journal/0001-000007.jsonl",
        "journal/0001-000008.jsonl",
    ]  # fmt: skip
    # A deletion that was cut off leaves parts that are in a joined one as well.
    lines = [line["number"] for line in Journal(brought(storage).folder / "journal").of_kind("look")]
    assert lines == list(range(7))
    Bucket(storage.study("study")).create(
        "journal/0001-000005.jsonl", b'{"kind": "look", "number": 99, "seeds": 5, "decided": false}\n'
    )
    lines = [line["number"] for line in Journal(brought(storage).folder / "journal").of_kind("look")]
    assert lines == list(range(7))
    mirror.end()
    assert objects(storage) == ["journal/0001.jsonl"]
    assert kinds(storage) == ["run"] + ["look"] * 7


WRITE = """
import sys
from lrstudy.storage.place import Storage
from lrstudy.study_folder.journal import Journal
from lrstudy.study_folder.mirror import Mirror
mirror = Mirror(Storage(sys.argv[1]), "study", is_drivers=True)
mirror.bring()
journal = Journal(mirror.folder / "journal", mirror.wrote)
mirror.begin(journal.run + 1)
journal.open_run(host="h")
for number in range(10**9):
    facts = {"seeds": 5, "decided": False, "number": number}
    journal.write("look" if number % 10 == 9 else "learnt", **facts)
    if number % 10 == 9:
        print(number, flush=True)  # all up to here is confirmed
"""


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_that_was_confirmed_and_the_next_goes_on_anywhere(storage, monkeypatch, tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITE, storage.location], stdout=subprocess.PIPE, text=True) as driver:
        try:
            said = [int(driver.stdout.readline()) for _ in range(12)]
        finally:
            driver.send_signal(signal.SIGKILL)
        said += [int(line) for line in driver.stdout.read().split("\n")[:-1]]
    monkeypatch.setenv("LRSTUDY_CACHE", str(tmp_path / "another-node"))
    numbers = [line["number"] for line in Journal(brought(storage).folder / "journal").lines if "number" in line]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > said[-1]
    mirror, journal = begun(storage)
    assert journal.run == 2
    assert objects(storage)[0] == "journal/0001.jsonl", "the killed run's parts are one object now"
    mirror.end()
    assert [line["run"] for line in Journal(brought(storage).folder / "journal").of_kind("run")] == [1, 2]


def test_what_was_never_confirmed_is_dropped_and_what_the_bucket_lost_too(storage):
    mirror, journal = begun(storage)
    mirror.stop()
    journal.write("told", **TOLD)  # and then the driver is killed
    (mirror.folder / "trials.parquet").write_bytes(b"never published")
    again = drivers(storage)
    assert [line["kind"] for line in Journal(again.folder / "journal").lines] == ["run"]
    assert not (again.folder / "trials.parquet").exists()


def test_looking_at_a_study_on_the_drivers_node_leaves_the_drivers_copy_alone(storage):
    mirror, journal = begun(storage)
    try:
        seen = brought(storage)
        assert seen.folder != mirror.folder
        journal.write("frozen", **FROZEN)
        brought(storage)
        journal.write("look", **LOOK)
        assert kinds(storage) == ["run", "frozen", "look"]
    finally:
        mirror.stop()


def test_what_has_not_changed_is_neither_put_nor_brought_again(storage, s3_server, monkeypatch):
    mirror, _ = begun(storage)
    for name in ("trials", "epochs"):
        (mirror.folder / f"{name}.parquet").write_bytes(b"rows")
    mirror.end()
    brought(storage)
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        mirror = drivers(storage)
        faults.seen.clear()
        drivers(storage)
        assert [method for method, _ in faults.seen] == ["GET"], "one listing"
        faults.seen.clear()
        (mirror.folder / "epochs.parquet").write_bytes(b"more rows")
        mirror.publish()
        assert [path.rsplit("/", 1)[1] for method, path in faults.seen if method == "PUT"] == ["epochs.parquet"]


def test_a_second_writer_of_one_run_is_noticed(storage):
    first, journal = begun(storage)
    first.stop()
    Bucket(storage.study("study")).create("journal/0001-000002.jsonl", b'{"kind": "another"}\n')
    with pytest.raises(StorageError, match="another driver writes the journal"):
        journal.write("frozen", **FROZEN)


def test_a_bucket_that_fails_stops_the_run_with_its_reason(storage, s3_server, monkeypatch):
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("LRSTUDY_BUCKET_PATIENCE_S", "0.1")
        mirror, journal = begun(storage)
        try:
            faults.of = lambda method, path: 403 if method == "PUT" else None
            journal.write("told", **TOLD)
            mirror._thread.join(timeout=60)
            with pytest.raises(StorageError, match="cannot write in the bucket"):
                mirror.check()
        finally:
            mirror.stop()


def test_tables_of_all_studies_are_brought_apart(storage):
    for name in ("one", "two"):
        for table in ("study.lock.json", "trials.parquet", "epochs.parquet", "settings.parquet"):
            Bucket(storage.study(name)).create(table, name.encode())
    Bucket(storage.memo).create("records/aa/b", b"1")
    mirror = Mirror(storage, "one", is_drivers=True)
    folder = mirror.bring_tables()
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        f"{name}/{table}" for name in ("one", "two") for table in ("epochs.parquet", "study.lock.json", "trials.parquet")
    ]  # fmt: skip
    Bucket(storage.study("two")).delete(
        [f"{table}" for table in ("study.lock.json", "trials.parquet", "epochs.parquet", "settings.parquet")]
    )
    assert [path.name for path in mirror.bring_tables().iterdir()] == ["one"]


def test_predictions_are_brought_for_the_trials_that_ended(storage):
    Bucket(storage.study("study")).put("predictions/a-confirm-1-1000.parquet", b"rows")
    mirror = drivers(storage)
    Bucket(storage.study("study")).put("predictions/b-confirm-1-1000.parquet", b"rows")
    mirror.bring_predictions(["a-confirm-1-1000", "b-confirm-1-1000", "gone-confirm-1-1000"])
    assert sorted(os.listdir(mirror.folder / "predictions")) == ["a-confirm-1-1000.parquet", "b-confirm-1-1000.parquet"]


# What somebody else may have put there

ODD = [
    "evil.py", "source/aa/mine.py", "source/aa/mine.pyc", ".mirror.json", "journal/../x.jsonl".replace("../", "sub/"),
    "report/index.html", "predictions/a/b.parquet", "trials.parquet.exe", "driver.lock", "a b.parquet", "journal/x.jsonl",
    "%2e%2e%2fevil.parquet", "memo/x.parquet", "journal/1-2-3-4.jsonl",
]  # fmt: skip


@pytest.mark.parametrize("path", ODD)
def test_only_files_that_a_study_has_are_brought_and_never_code(storage, s3, s3_server, path):
    s3_server.put(s3, f"runs/study/{path}".replace("%", "%25").replace(" ", "%20"), b"evil")
    Bucket(storage.study("study")).create("study.yaml", b"lrstudy: 1")
    mirror = brought(storage)
    assert sorted(file.name for file in mirror.folder.rglob("*") if file.is_file()) == [".mirror.json", "study.yaml"]
    assert json.loads((mirror.folder / ".mirror.json").read_text()).keys() == {"study.yaml"}


def test_a_copy_with_a_damaged_index_is_brought_anew(storage):
    Bucket(storage.study("study")).create("study.yaml", b"lrstudy: 1")
    mirror = brought(storage)
    for content in ("", "[]", '{"study.yaml": 5}'):
        (mirror.folder / ".mirror.json").write_text(content)
        (mirror.folder / "study.yaml").write_text("changed")
        mirror.bring()
        assert (mirror.folder / "study.yaml").read_text() == "lrstudy: 1"
