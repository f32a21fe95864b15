"""Segments by themselves: every record in them is found, in the files of an earlier version too."""

from __future__ import annotations

from hashlib import blake2b

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lrstudy.memo import segments as segments_module
from lrstudy.memo.objects import ObjectStore
from lrstudy.memo.segments import Row, Segments
from memo_records import emptied, files, flip, record, torn


def rows(*numbers: int, by: str = "") -> list[Row]:
    epochs = [record(number, by) for number in numbers]
    return [Row(epoch.created_at, epoch.lineage, epoch.to_bytes()) for epoch in epochs]


def opened(folder) -> Segments:
    segments = Segments(ObjectStore(folder))
    segments.refresh()
    return segments


@pytest.mark.parametrize("count", [1, 3, 4, 10])
def test_every_record_is_found_whatever_row_group_it_is_in(tmp_path, monkeypatch, count):
    monkeypatch.setattr(segments_module, "_GROUP_ROWS", 3)
    Segments(ObjectStore(tmp_path)).publish(rows(*range(count)))
    segments = opened(tmp_path)
    assert [segments.get(record(number).lineage) for number in range(count)] == [record(n) for n in range(count)]
    assert segments.get(record(count).lineage) is segments.get("") is segments.get("f" * 33) is None


def test_rows_lie_oldest_first_so_that_the_same_records_make_the_same_file(tmp_path):
    for folder, numbers in (("a", (2, 0, 1)), ("b", (1, 2, 0))):
        Segments(ObjectStore(tmp_path / folder)).publish(rows(*numbers))
    (a,), (b,) = files(tmp_path / "a", "segments"), files(tmp_path / "b", "segments")
    assert a.name == b.name
    assert pq.read_table(a)["lineage"].to_pylist() == [record(number).lineage for number in range(3)]


def test_a_segment_that_is_published_later_is_seen_after_the_next_refresh(tmp_path):
    segments = opened(tmp_path)
    Segments(ObjectStore(tmp_path)).publish(rows(0))
    assert segments.get(record(0).lineage) is None
    segments.refresh()
    assert segments.get(record(0).lineage) == record(0)


@pytest.mark.parametrize("damage", [torn, emptied, flip])
def test_a_damaged_segment_is_set_aside_and_the_others_are_read(tmp_path, damage):
    Segments(ObjectStore(tmp_path)).publish(rows(0))
    damage(files(tmp_path, "segments")[0])
    Segments(ObjectStore(tmp_path)).publish(rows(1))
    segments = opened(tmp_path)
    assert segments.get(record(0).lineage) is None
    assert segments.get(record(1).lineage) == record(1)
    assert len(files(tmp_path, "damaged")) == len(files(tmp_path, "segments")) == 1


def test_a_segment_of_an_earlier_version_is_read(tmp_path):
    table = pa.table({"lineage": [record(0).lineage], "record": [record(0, "earlier").to_bytes()]})
    pq.write_table(table, tmp_path / "segment", compression="zstd")
    digest = blake2b((tmp_path / "segment").read_bytes(), digest_size=16).hexdigest()
    (tmp_path / "segments").mkdir()
    (tmp_path / "segment").rename(tmp_path / "segments" / f"{digest}.parquet")
    assert opened(tmp_path).get(record(0).lineage) == record(0, "earlier")
