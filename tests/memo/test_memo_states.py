"""States of the memo: stored under their digests, anchored, evicted oldest first."""

from __future__ import annotations

import os
import threading
from hashlib import blake2b
from pathlib import Path

import pytest

from lrstudy.memo.memo import Memo
from lrstudy.memo.objects import content_digest
from memo_records import emptied, files, flip, record


def test_a_state_is_stored_under_its_digest_and_found_by_its_record(tmp_path):
    digest = Memo(tmp_path).put_state(b"weights")
    assert digest == content_digest(b"weights") == blake2b(b"weights", digest_size=16).hexdigest()
    assert Memo(tmp_path).put_state(b"weights") == digest
    assert [path.name for path in files(tmp_path, "states")] == [digest]
    assert Memo(tmp_path).state_of(record(0, state=digest)) == b"weights"
    assert Memo(tmp_path).state_of(record(0)) is None
    assert Memo(tmp_path).state_of(record(0, state="0" * 32)) is None


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"wei"), emptied, lambda path: flip(path, 3)])
def test_a_damaged_state_is_noticed_moved_aside_and_can_be_published_again(tmp_path, damage):
    digest = Memo(tmp_path).put_state(b"weights")
    damage(tmp_path / "states" / digest)
    memo = Memo(tmp_path)
    assert memo.state_of(record(0, state=digest)) is None
    assert [path.name for path in files(tmp_path, "damaged")] == [digest]
    assert not files(tmp_path, "states")
    memo.put_state(b"weights")
    assert memo.state_of(record(0, state=digest)) == b"weights"


def test_a_state_is_published_over_a_torn_one_that_nobody_has_read(tmp_path):
    """After a power failure the name is taken by a torn file; a record must not refer to that."""
    digest = Memo(tmp_path).put_state(b"weights")
    emptied(tmp_path / "states" / digest)
    Memo(tmp_path).put_state(b"weights")
    assert Memo(tmp_path).state_of(record(0, state=digest)) == b"weights"


def test_an_anchor_gives_a_record_without_a_state_one(tmp_path):
    memo = Memo(tmp_path)
    memo.commit(record(0))
    memo.anchor(record(0).lineage, b"weights")
    memo.anchor(record(0).lineage, b"weights")
    assert Memo(tmp_path).state_of(record(0)) == b"weights"
    assert Memo(tmp_path).state_of(record(1)) is None


def test_an_anchor_stands_in_for_a_state_that_was_evicted(tmp_path):
    memo = Memo(tmp_path)
    epoch = record(0, state=memo.put_state(b"evicted"))
    memo.evict((), limit_bytes=0)
    assert memo.state_of(epoch) is None
    memo.anchor(epoch.lineage, b"retrained")
    assert memo.state_of(epoch) == b"retrained"


def test_the_first_anchor_holds_while_its_state_is_there_and_gives_way_when_it_is_gone(tmp_path):
    """A GPU retrains to other bytes; an anchor to an evicted state once shut the new one out for ever."""
    memo = Memo(tmp_path)
    memo.anchor(record(0).lineage, b"first")
    memo.anchor(record(0).lineage, b"second")
    assert memo.state_of(record(0)) == b"first"
    memo.evict((), limit_bytes=0)
    memo.anchor(record(0).lineage, b"third")
    assert memo.state_of(record(0)) == b"third"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../etc/passwd", b"0" * 31, b"0" * 32 + b"\n"])
def test_a_damaged_anchor_counts_as_none_and_is_replaced(tmp_path, content):
    memo = Memo(tmp_path)
    memo.anchor(record(0).lineage, b"weights")
    (tmp_path / "anchors" / record(0).lineage).write_bytes(content)
    assert memo.state_of(record(0)) is None
    memo.anchor(record(0).lineage, b"weights")
    assert memo.state_of(record(0)) == b"weights"


def test_one_thread_may_anchor_states_while_another_commits_records(tmp_path):
    """As a walk does whose large states are written while the next epoch is trained."""
    memo, epochs = Memo(tmp_path), [record(number) for number in range(100)]
    writer = threading.Thread(target=lambda: [memo.anchor(epoch.lineage, epoch.lineage.encode()) for epoch in epochs])
    writer.start()
    assert [memo.commit(epoch) for epoch in epochs] == epochs
    writer.join()
    assert [memo.state_of(epoch) for epoch in epochs] == [epoch.lineage.encode() for epoch in epochs]


def aged(memo: Memo, folder: Path, number: int) -> str:
    """A state of 1,000 bytes; the higher its number, the younger."""
    digest = memo.put_state(bytes([number]) * 1000)
    os.utime(folder / "states" / digest, (1e9 + number, 1e9 + number))
    return digest


def test_eviction_deletes_the_oldest_states_first_and_never_those_to_keep(tmp_path):
    memo = Memo(tmp_path)
    digests = {number: aged(memo, tmp_path, number) for number in (3, 1, 4, 0, 2)}
    assert memo.evict(keep=[], limit_bytes=5000) == 0
    assert memo.evict(keep=[digests[0], digests[2]], limit_bytes=3500) == 2000
    assert {path.name for path in files(tmp_path, "states")} == {digests[0], digests[2], digests[4]}
    assert memo.evict(keep=digests.values(), limit_bytes=0) == 0
    assert memo.evict(keep=[], limit_bytes=2000) == 1000
    assert {path.name for path in files(tmp_path, "states")} == {digests[2], digests[4]}


def test_eviction_never_touches_records(tmp_path):
    memo = Memo(tmp_path)
    memo.commit(record(0, state=memo.put_state(b"weights")))
    assert memo.evict(keep=[], limit_bytes=0) == 7
    assert Memo(tmp_path).find(record(0).lineage) is not None
