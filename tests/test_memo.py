from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from hashlib import blake2b
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from lrstudy import memo as memo_module
from lrstudy.faults import StorageError
from lrstudy.memo import Memo, state_digest
from lrstudy.records import Record


def record(number: int, by: str = "", **changes: object) -> Record:
    """The record of epoch `number` as process `by` trained it."""
    name = blake2b(str(number).encode(), digest_size=16).hexdigest()
    facts: dict[str, object] = {
        "lineage": name, "parent": "0" * 32, "root": "1" * 32, "epoch": number, "settings": "2" * 32, "state": None,
        "diverged": False, "metrics": {"val_loss": 0.5}, "batch_size": 32, "updates": 4, "examples": 120, "train_s": 1.5,
        "eval_s": 0.25, "state_s": 0.125, "device_kind": "cpu: x", "device_share": 2.0, "device_s": 3.75, "host": "h",
        "created_at": 1.0 + number, "origin": {"trial": by},
    }  # fmt: skip
    return Record(**(facts | changes))  # type: ignore[arg-type]


def files(folder: Path, kind: str) -> list[Path]:
    return sorted(path for path in (folder / kind).rglob("*") if path.is_file())


def loose(folder: Path, epoch: Record) -> Path:
    return folder / "records" / epoch.lineage[:2] / epoch.lineage


def flip(path: Path, place: int = 100) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


# Records


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


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def misplaced(path: Path) -> None:
    path.write_bytes(record(7).to_bytes())


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


# Several processes

PUBLISH = """
import json, sys
from lrstudy.memo import Memo
from lrstudy.records import Record
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
        found = reader.find(record(number).lineage)
        assert found is not None
        assert found.origin["trial"] == reported[0][found.lineage]
        assert reader.state_of(found) == f"{found.origin['trial']} {number}".encode()


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
        found = reader.find(path.name)
        assert found is not None
        assert reader.state_of(found) == f"{found.origin['trial']} {found.epoch}".encode()
    assert not files(tmp_path, "damaged")
    assert reader.compact(at_least=1) == len(visible)


# Compaction


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
    monkeypatch.setattr(memo_module, "_GROUP_ROWS", 3)
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
    monkeypatch.setattr(memo_module.os, "fsync", lambda file: (happened.append("sync"), fsync(file)))
    monkeypatch.setattr(obstore, "delete", lambda *where: (happened.append("delete"), delete(*where)))
    Memo(tmp_path).compact(at_least=1)
    assert happened == ["sync", "sync", "delete"]  # the file, its folder


# States


def test_a_state_is_stored_under_its_digest_and_found_by_its_record(tmp_path):
    digest = Memo(tmp_path).put_state(b"weights")
    assert digest == state_digest(b"weights") == blake2b(b"weights", digest_size=16).hexdigest()
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


# Storage that fails

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
from lrstudy.faults import StorageError
from lrstudy.memo import Memo
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
