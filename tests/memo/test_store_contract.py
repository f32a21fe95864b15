"""What the memo relies on, whether it lies in a folder or in a bucket: one suite for both."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from lrstudy.memo.memo import Memo
from lrstudy.memo.objects import ObjectStore, content_digest
from memo_records import record


@pytest.fixture(params=["folder", "bucket"])
def location(request, tmp_path) -> str:
    if request.param == "folder":
        return str(tmp_path / "runs" / "memo")
    return f"{request.getfixturevalue('s3')}/runs/memo"


@pytest.fixture
def store(location) -> ObjectStore:
    return ObjectStore(location)


def test_an_object_reads_as_it_was_created_and_one_that_is_not_there_as_none(store, location):
    assert store.create("a/b/c", b"content")
    assert ObjectStore(location).get("a/b/c") == b"content"
    assert store.get("a/b") is store.get("a/b/d") is store.get("elsewhere") is None


def test_an_object_is_created_once_and_never_rewritten(store, location):
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert not ObjectStore(location).create("a", b"third")
    assert store.get("a") == b"first"


CREATE = """
import sys
from lrstudy.memo.objects import ObjectStore
store, me = ObjectStore(sys.argv[1]), sys.argv[2].encode()
store.get("nothing")  # opens it
print("ready", flush=True)
sys.stdin.readline()
print(*(int(store.create(f"objects/{number}", me * 1000)) for number in range(100)))
"""


@pytest.mark.slow
def test_of_two_writers_of_one_name_exactly_one_creates_it(store, location):
    arguments = [sys.executable, "-c", CREATE, location]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*arguments, me], **pipes) for me in "ab"]
    try:
        assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
        for writer in writers:
            writer.stdin.write("\n")
            writer.stdin.flush()
        said = [writer.communicate(timeout=60)[0].split() for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    for number, by_a, by_b in zip(range(100), *said, strict=True):
        assert sorted((by_a, by_b)) == ["0", "1"]
        assert store.get(f"objects/{number}") == (b"a" if by_a == "1" else b"b") * 1000


def test_threads_that_share_a_store_create_each_object_once(store):
    created: list[tuple[int, bytes]] = []

    def create(me: bytes) -> None:
        created.extend((number, me) for number in range(20) if store.create(f"objects/{number}", me))

    threads = [threading.Thread(target=create, args=(me,)) for me in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in created) == list(range(20))
    assert all(store.get(f"objects/{number}") == me for number, me in created)


@pytest.mark.parametrize("size", [7, 17 * 2**20])
def test_content_is_found_under_its_digest_and_damage_is_replaced(store, size):
    content = b"c" * size
    path = f"states/{content_digest(content)}"
    store.create(path, b"torn")
    assert store.get_addressed(path) is None
    assert store.get(path) is None
    assert store.get(f"damaged/{path}") == b"torn"
    assert store.create_addressed("states", content) == path
    assert store.create_addressed("states", content) == path
    assert store.get_addressed(path) == content


def test_an_object_that_is_set_aside_frees_its_name_once(store):
    store.create("a/b", b"torn")
    store.set_aside("a/b", b"torn")
    assert store.get("damaged/a/b") == b"torn"
    assert store.get("a/b") is None
    assert [store.create("a/b", b"whole"), store.create("a/b", b"other")] == [True, False]
    store.set_aside("a/b", b"torn")  # by somebody who had read the damaged one
    assert store.get("a/b") == b"whole"
    store.set_aside("a/c", b"never there")
    assert store.get("damaged/a/c") is None


def test_a_listing_shows_objects_below_a_folder_with_size_and_time(store):
    assert store.listing("a") == []
    store.create("a/one", b"1")
    store.create("a/b/two", b"22")
    store.create("ab/other", b"3")
    store.create("a/freed", b"4")
    store.set_aside("a/freed", b"4")
    shown = sorted(store.listing("a"))
    assert [(listed.path, listed.name, listed.size_bytes) for listed in shown] == [
        ("a/b/two", "two", 2), ("a/one", "one", 1),
    ]  # fmt: skip
    assert all(abs(datetime.now(UTC) - listed.modified_at) < timedelta(minutes=1) for listed in shown)


def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_fault(store):
    store.create("a", b"1")
    store.delete("a")
    store.delete("a")
    assert store.get("a") is None


def test_a_store_travels_to_other_processes(store):
    store.create("a", b"1")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"


def test_a_memo_keeps_its_promises(location):
    """Commit, lose a race, anchor a state, compact, evict: the whole life of a record."""
    memo, other = Memo(location), Memo(location)
    first = record(1, state=memo.put_state(b"state"))
    assert memo.commit(first) == first
    assert other.commit(record(1, by="slower")) == first
    second = memo.commit(record(2))
    memo.anchor(second.lineage, b"later")
    assert (other.state_of(first), other.state_of(second)) == (b"state", b"later")
    assert memo.compact(at_least=1) == 2
    assert Memo(location).find(first.lineage) == first
    assert Memo(location).commit(record(2, by="slower")) == second
    memo.put_measurement("calibrations/x", {"update_s": 1.5})
    assert other.measurement("calibrations/x") == {"update_s": 1.5}
    assert memo.evict([first.state], 0) == len(b"later")
    assert (other.state_of(first), other.state_of(second)) == (b"state", None)
