"""The memo: the first commit holds, for every process; damage is moved aside; storage that fails says so."""

from __future__ import annotations

import pickle

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from lrstudy.memo.objects import content_digest
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


def test_objects_lie_where_earlier_versions_put_them(tmp_path):
    """Storages outlive versions: under another path, what they hold would be trained and measured again."""
    memo, lineage = Memo(tmp_path), record(0).lineage
    digest = memo.put_state(b"weights")
    memo.commit(record(0, state=digest))
    memo.anchor(lineage, b"weights")
    memo.put_measurement("calibrations/a-b", {})
    assert {path.relative_to(tmp_path).as_posix() for path in files(tmp_path, "")} == {
        f"records/{lineage[:2]}/{lineage}", f"states/{digest}", f"anchors/{lineage}", "calibrations/a-b",
    }  # fmt: skip
    assert (tmp_path / "anchors" / lineage).read_bytes() == digest.encode()
    memo.compact(at_least=1)
    (segment,) = files(tmp_path, "segments")
    assert segment.name == f"{content_digest(segment.read_bytes())}.parquet"


def test_constructing_a_memo_touches_nothing(tmp_path):
    Memo(tmp_path / "memo")
    assert not (tmp_path / "memo").exists()
