"""Compaction: small records become segments; nothing is lost, whatever interrupts it."""

from __future__ import annotations

import os

import obstore
import pytest

from lrstudy.memo import memo as memo_module
from lrstudy.memo import segments as segments_module
from lrstudy.memo.memo import Memo
from memo_records import emptied, files, flip, loose, misplaced, record, torn


@pytest.fixture
def compacted(tmp_path):
    """A memo of 20 records, all compacted; and one that was open before."""
    memo, before = Memo(tmp_path), Memo(tmp_path)
    for number in range(20):
        memo.commit(record(number, "first"))
    assert before.find(record(99).lineage) is None
    assert Memo(tmp_path).compact(at_least=20) == 20
    assert not files(tmp_path, "records")
    assert len(files(tmp_path, "segments")) == 1
    return tmp_path, before


def test_compacted_records_are_found(compacted):
    folder, _ = compacted
    reader = Memo(folder)
    assert [reader.find(record(number).lineage) for number in range(20)] == [record(n, "first") for n in range(20)]
    assert reader.find(record(20).lineage) is None


def test_compacted_records_are_found_by_a_memo_that_was_open_before(compacted):
    _, before = compacted
    assert [before.find(record(number).lineage) for number in range(20)] == [record(n, "first") for n in range(20)]


def test_a_finder_finds_what_was_there_when_it_was_made_loose_or_compacted(compacted):
    folder, _ = compacted
    Memo(folder).commit(record(20))
    find = Memo(folder).finder()
    Memo(folder).commit(record(21))
    assert [find(record(number).lineage) is not None for number in (0, 19, 20, 21, 99)] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_compacted_name_stays_taken(compacted):
    folder, stale = compacted
    assert stale.commit(record(3, "second")) == record(3, "first")
    assert stale.known(record(3).lineage) == record(3, "first")
    assert not files(folder, "records")


def test_a_loose_record_beside_the_compacted_one_is_never_believed_and_goes_with_the_next_compaction(compacted):
    """A late writer's record lies loose until it has noticed; nobody may adopt or compact it meanwhile."""
    folder, _ = compacted
    late = loose(folder, record(3))
    late.parent.mkdir(exist_ok=True)
    late.write_bytes(record(3, "second").to_bytes())
    assert Memo(folder).find(record(3).lineage) == record(3, "first")
    assert Memo(folder).commit(record(3, "third")) == record(3, "first")
    Memo(folder).compact(at_least=1)
    assert not files(folder, "records")
    assert len(files(folder, "segments")) == 1
    assert Memo(folder).find(record(3).lineage) == record(3, "first")


def test_few_loose_records_are_left_alone(tmp_path):
    memo = Memo(tmp_path)
    for number in range(5):
        memo.commit(record(number))
    assert memo.compact(at_least=6) == 0
    assert Memo(tmp_path / "empty").compact(at_least=0) == 0
    assert len(files(tmp_path, "records")) == 5
    assert not files(tmp_path, "segments")


def test_large_compactions_are_cut_into_several_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(memo_module, "SEGMENT_ROWS", 8)
    monkeypatch.setattr(segments_module, "_GROUP_ROWS", 3)
    memo = Memo(tmp_path)
    committed = [memo.commit(record(number)) for number in range(20)]
    assert memo.compact(at_least=1) == 20
    assert len(files(tmp_path, "segments")) == 3
    reader = Memo(tmp_path)
    assert [reader.find(r.lineage) for r in committed] == committed


def test_damaged_records_are_not_compacted(tmp_path):
    memo = Memo(tmp_path)
    for number in range(4):
        memo.commit(record(number))
    torn(loose(tmp_path, record(0)))
    misplaced(loose(tmp_path, record(1)))
    assert Memo(tmp_path).compact(at_least=1) == 2
    reader = Memo(tmp_path)
    assert [reader.find(record(number).lineage) for number in range(4)] == [None, None, record(2), record(3)]


def test_a_compaction_of_nothing_but_damage_writes_no_segment(tmp_path):
    Memo(tmp_path).commit(record(0))
    torn(loose(tmp_path, record(0)))
    assert Memo(tmp_path).compact(at_least=1) == 0
    assert not files(tmp_path, "segments")


def test_an_interrupted_compaction_is_finished_by_the_next(tmp_path, monkeypatch):
    memo = Memo(tmp_path)
    committed = [memo.commit(record(number)) for number in range(10)]
    delete, deleted = obstore.delete, []

    def killed(store, path):
        deleted.append(path)
        if len(deleted) > 4:
            raise KeyboardInterrupt
        delete(store, path)

    monkeypatch.setattr(obstore, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        Memo(tmp_path).compact(at_least=1)
    monkeypatch.setattr(obstore, "delete", delete)
    assert [Memo(tmp_path).find(r.lineage) for r in committed] == committed
    assert Memo(tmp_path).compact(at_least=1) == 6
    assert len(files(tmp_path, "segments")) == 1
    assert not files(tmp_path, "records")
    assert [Memo(tmp_path).find(r.lineage) for r in committed] == committed


@pytest.mark.parametrize("damage", [torn, emptied, flip])
def test_a_damaged_segment_is_moved_aside_and_its_names_are_free_again(compacted, damage):
    folder, _ = compacted
    damage(files(folder, "segments")[0])
    memo = Memo(folder)
    assert memo.find(record(0).lineage) is None
    assert len(files(folder, "damaged")) == 1
    assert memo.commit(record(0, "again")) == record(0, "again")
    assert Memo(folder).find(record(0).lineage) == record(0, "again")


def test_records_are_deleted_only_when_the_segment_is_on_the_disk(tmp_path, monkeypatch):
    Memo(tmp_path).commit(record(0))
    happened = []
    fsync, delete = os.fsync, obstore.delete
    monkeypatch.setattr(os, "fsync", lambda file: (happened.append("sync"), fsync(file)))
    monkeypatch.setattr(obstore, "delete", lambda *where: (happened.append("delete"), delete(*where)))
    Memo(tmp_path).compact(at_least=1)
    assert happened == ["sync", "sync", "delete"]  # the file, its folder
