"""The memo: the first commit holds, for every process; damage is moved aside; storage that fails says so."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from memo_records import emptied, files, flip, loose, misplaced, record, torn


def test_a_committed_record_is_found_by_every_process(tmp_path):
    assert Memo(tmp_path).find(record(0).lineage) is None
    assert Memo(tmp_path).commit(record(0)) == record(0)
    assert Memo(tmp_path).find(record(0).lineage) == record(0)
    assert Memo(tmp_path).find(record(1).lineage) is None


def test_a_record_that_appears_later_is_found_by_a_memo_that_has_looked_before(tmp_path):
    reader = Memo(tmp_path)
    assert reader.find(record(0).lineage) is None
    Memo(tmp_path).commit(record(0))
    assert reader.known(record(0).lineage) is None
    assert reader.find(record(0).lineage) == reader.known(record(0).lineage) == record(0)


def test_the_first_commit_holds_and_the_loser_adopts_it(tmp_path):
    first, second = record(0, "first", state="a" * 32), record(0, "second", state="b" * 32)
    memo = Memo(tmp_path)
    memo.commit(first)
    loser = Memo(tmp_path)
    assert loser.commit(second) == first
    assert loser.known(first.lineage) == first
    assert Memo(tmp_path).find(first.lineage) == first
    assert memo.commit(second) == first


def test_what_another_process_committed_can_be_learnt_without_looking(tmp_path):
    memo = Memo(tmp_path)
    assert memo.learn(record(0)) == record(0)
    assert memo.known(record(0).lineage) == memo.find(record(0).lineage) == record(0)
    assert not files(tmp_path, "records")


def test_a_record_that_is_not_finite_is_not_published(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        Memo(tmp_path).commit(record(0, metrics={"val_loss": float("nan")}))
    assert not files(tmp_path, "records")


@pytest.mark.parametrize("damage", [torn, emptied, flip, misplaced])
def test_a_damaged_record_is_moved_aside_and_its_name_is_free_again(tmp_path, damage):
    Memo(tmp_path).commit(record(0, "lost"))
    damage(loose(tmp_path, record(0)))
    memo = Memo(tmp_path)
    assert memo.find(record(0).lineage) is None
    assert not files(tmp_path, "records")
    assert [path.name for path in files(tmp_path, "damaged")] == [record(0).lineage]
    assert memo.commit(record(0, "again")) == record(0, "again")
    assert Memo(tmp_path).find(record(0).lineage) == record(0, "again")


def test_a_commit_over_a_damaged_record_holds(tmp_path):
    Memo(tmp_path).commit(record(0, "lost"))
    torn(loose(tmp_path, record(0)))
    assert Memo(tmp_path).commit(record(0, "again")) == record(0, "again")
    assert Memo(tmp_path).find(record(0).lineage) == record(0, "again")


def test_what_another_process_put_in_the_place_of_a_damaged_record_is_not_moved_aside(tmp_path, monkeypatch):
    """Two processes find the same damage; the slower one must not move away what the faster one has published."""
    Memo(tmp_path).commit(record(0, "lost"))
    torn(loose(tmp_path, record(0)))
    rename = obstore.rename

    def overtaken(store, path, aside):
        monkeypatch.setattr(obstore, "rename", rename)
        Memo(tmp_path).commit(record(0, "faster"))
        rename(store, path, aside)

    monkeypatch.setattr(obstore, "rename", overtaken)
    assert Memo(tmp_path).commit(record(0, "slower")) == record(0, "faster")
    assert Memo(tmp_path).find(record(0).lineage) == record(0, "faster")


def test_a_memo_travels_to_other_processes_and_other_working_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memo = Memo("memo")
    memo.commit(record(0))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(pickle.dumps(memo)).find(record(0).lineage) == record(0)


PARAGRAPH = r"^storage\.path: cannot {what} in the memo at {where}: .*the same command again\.$"


def test_a_location_that_cannot_exist_is_one_clear_paragraph(tmp_path):
    (tmp_path / "file").write_text("")
    memo = Memo(tmp_path / "file" / "memo")
    for operation in (
        lambda: memo.commit(record(0)),
        lambda: memo.find(record(0).lineage),
        lambda: memo.put_state(b"weights"),
        lambda: memo.compact(),
        lambda: memo.evict((), 0),
    ):
        with pytest.raises(StorageError, match=PARAGRAPH.format(what="create", where=memo.location)):
            operation()
    assert memo.known(record(0).lineage) is None


def test_a_url_that_names_no_storage_is_one_clear_paragraph():
    with pytest.raises(StorageError, match="cannot open in the memo at nowhere://bucket"):
        Memo("nowhere://bucket").find(record(0).lineage)


@pytest.mark.parametrize("error", [PermissionDeniedError, GenericError, OSError, FileNotFoundError])
def test_storage_that_refuses_to_be_written_publishes_nothing(tmp_path, monkeypatch, error):
    memo = Memo(tmp_path)
    memo.commit(record(0))

    def refuse(*arguments, **options):
        raise error("Read-only file system (os error 30)\n\nDebug source:\nGeneric {...}")

    with monkeypatch.context() as patched:
        patched.setattr(obstore, "put", refuse)
        for operation in (lambda: memo.commit(record(1)), lambda: memo.put_state(b"weights"), lambda: memo.compact(1)):
            with pytest.raises(StorageError, match=PARAGRAPH.format(what="write", where=tmp_path)) as raised:
                operation()
            assert "Read-only file system (os error 30). What was recorded" in str(raised.value)
    assert memo.known(record(1).lineage) is None
    assert [path.name for path in files(tmp_path, "")] == [record(0).lineage]
    assert Memo(tmp_path).find(record(0).lineage) == record(0)


def test_a_listing_that_breaks_off_is_a_storage_error(tmp_path, monkeypatch):
    def listing(*arguments, **options):
        yield []
        raise GenericError("connection reset")

    monkeypatch.setattr(obstore, "list", listing)
    with pytest.raises(StorageError, match=r"cannot list in the memo .*: connection reset"):
        Memo(tmp_path).find(record(0).lineage)


FILL = """
import os, sys
from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
memo, stored = Memo(sys.argv[1]), []
try:
    for number in range(1000):
        stored.append(memo.put_state(os.urandom(3000)))
except StorageError as error:
    visible = [name for name in os.listdir(sys.argv[1] + "/states")]
    assert sorted(visible) == sorted(stored), (visible, stored)
    print(len(stored), error)
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_one_clear_paragraph_and_shows_nothing_torn(tmp_path):
    script = f'mount -t tmpfs -o size=64k none "{tmp_path}" && exec "{sys.executable}" -c "$0" "{tmp_path}"'
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting in a namespace of one's own is not permitted here")
    found = subprocess.run(["unshare", "-m", "bash", "-c", script, FILL], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    count, _, message = found.stdout.strip().partition(" ")
    assert 1 <= int(count) <= 16
    assert message.startswith(f"storage.path: cannot write in the memo at {tmp_path}: ")
    assert "No space left on device" in message
    assert message.endswith("free space or fix permissions, then run the same command again.")


def test_constructing_a_memo_touches_nothing(tmp_path):
    Memo(tmp_path / "memo")
    assert not (tmp_path / "memo").exists()
