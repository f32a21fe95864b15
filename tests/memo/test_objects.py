"""The object store by itself: create-only, content-addressed, damage set aside, failures as one clear paragraph."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from lrstudy.errors import StorageError
from lrstudy.memo.objects import ObjectStore, content_digest
from memo_records import emptied, files, flip


@pytest.fixture
def store(tmp_path) -> ObjectStore:
    return ObjectStore(tmp_path)


def test_an_object_is_created_once_and_never_rewritten(store, tmp_path):
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert not ObjectStore(tmp_path).create("a", b"third")
    assert store.get("a") == b"first"
    assert [path.name for path in files(tmp_path, "")] == ["a"]


# Named by their content


def test_an_object_that_is_named_by_its_content_is_stored_once(store, tmp_path):
    digest = blake2b(b"content", digest_size=16).hexdigest()
    assert content_digest(b"content") == digest
    assert store.create_addressed("states", b"content") == f"states/{digest}"
    assert store.create_addressed("states", b"content") == f"states/{digest}"
    assert store.create_addressed("segments", b"content", ".parquet") == f"segments/{digest}.parquet"
    assert [path.relative_to(tmp_path).as_posix() for path in files(tmp_path, "")] == [
        f"segments/{digest}.parquet", f"states/{digest}",
    ]  # fmt: skip
    assert store.get_addressed(f"states/{digest}") == store.get_addressed(f"segments/{digest}.parquet") == b"content"


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"con"), emptied, lambda path: flip(path, 3)])
def test_content_that_does_not_match_its_name_reads_as_none_and_is_set_aside(store, tmp_path, damage):
    path = store.create_addressed("states", b"content")
    damage(tmp_path / path)
    damaged = store.get(path)
    assert store.get_addressed(path) is None
    assert store.get(path) is None
    assert store.get(f"damaged/{path}") == damaged


def test_content_is_created_over_a_damaged_object_of_its_name(store, tmp_path):
    """After a power failure the name was taken by an empty file, and what was to be stored there was not."""
    path = store.create_addressed("states", b"content")
    emptied(tmp_path / path)
    assert store.create_addressed("states", b"content") == path
    assert store.get_addressed(path) == b"content"
    assert store.get(f"damaged/{path}") == b""


# Set aside


def test_what_a_faster_process_has_put_in_the_place_of_the_damaged_object_is_put_back(store):
    store.create("a", b"good")
    store.set_aside("a", b"torn")
    assert store.get("a") == b"good"


def test_what_takes_the_name_before_an_object_is_put_back_keeps_it(store, monkeypatch):
    store.create("a", b"good")
    rename = obstore.rename

    def overtaken(opened, path, aside):
        rename(opened, path, aside)
        store.create(path, b"better")

    monkeypatch.setattr(obstore, "rename", overtaken)
    store.set_aside("a", b"torn")
    assert store.get("a") == b"better"


# Listing, deletion, the disk


def test_a_listing_shows_complete_objects_below_a_folder_with_size_and_time(store, tmp_path):
    assert store.listing("a") == []
    store.create("a/one", b"1")
    store.create("a/b/two", b"22")
    store.create("ab/other", b"")
    (tmp_path / "a" / "one#1").write_bytes(b"left by a writer that was killed")
    shown = sorted(store.listing("a"))
    assert [(listed.path, listed.name, listed.size_bytes) for listed in shown] == [
        ("a/b/two", "two", 2), ("a/one", "one", 1),
    ]  # fmt: skip
    assert all(abs(datetime.now(UTC) - listed.modified_at) < timedelta(minutes=1) for listed in shown)


def test_a_sync_flushes_the_object_and_its_folder(store, tmp_path, monkeypatch):
    store.create("a/b", b"1")
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    store.sync("a/b")
    assert flushed == [(tmp_path / "a" / "b").stat().st_ino, (tmp_path / "a").stat().st_ino]


def test_a_store_travels_to_other_processes_and_other_working_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = ObjectStore("here")
    assert not (tmp_path / "here").exists(), "constructing it touches nothing"
    store.create("a", b"1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"


# Failures

OPERATIONS = {
    "get": ("read", lambda store: store.get("a")),
    "put": ("write", lambda store: store.create("a", b"1")),
    "list": ("list", lambda store: store.listing("a")),
    "delete": ("delete", lambda store: store.delete("a")),
    "rename": ("move", lambda store: store.set_aside("a", b"1")),
}


@pytest.mark.parametrize("error", [PermissionDeniedError, GenericError, OSError])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_storage_that_fails_is_one_clear_paragraph(store, tmp_path, monkeypatch, operation, error):
    action, call = OPERATIONS[operation]

    def fail(*arguments, **options):
        raise error("No such luck (os error 30)\n\nDebug source:\nGeneric {...}")

    monkeypatch.setattr(obstore, operation, fail)
    with pytest.raises(StorageError) as raised:
        call(store)
    assert str(raised.value) == (
        f"storage.path: cannot {action} in the memo at {tmp_path}: No such luck (os error 30). What was recorded before "
        "is safe; free space or fix permissions, then run the same command again."
    )


def test_a_listing_that_breaks_off_is_a_storage_error(store, monkeypatch):
    def breaks_off(*arguments, **options):
        yield []
        raise GenericError("connection reset")

    monkeypatch.setattr(obstore, "list", breaks_off)
    with pytest.raises(StorageError, match=r"cannot list in the memo .*: connection reset"):
        store.listing("a")


@pytest.mark.parametrize("call", [call for _, call in OPERATIONS.values()], ids=list(OPERATIONS))
@pytest.mark.parametrize("location", ["file", "file/below"])
def test_a_location_that_cannot_be_made_is_a_storage_error(tmp_path, location, call):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=rf"^storage\.path: cannot create in the memo at {tmp_path / location}: "):
        call(ObjectStore(tmp_path / location))


def test_a_url_that_names_no_storage_is_a_storage_error():
    with pytest.raises(StorageError, match=r"^storage\.path: cannot read in the bucket at nowhere://bucket: "):
        ObjectStore("nowhere://bucket").get("a")


FILL = """
import os, sys
from lrstudy.errors import StorageError
from lrstudy.memo.objects import ObjectStore
store, stored = ObjectStore(sys.argv[1]), []
try:
    for number in range(1000):
        stored.append(store.create_addressed("states", os.urandom(3000)))
except StorageError as error:
    visible = [f"states/{name}" for name in os.listdir(sys.argv[1] + "/states")]
    assert sorted(visible) == sorted(stored), (visible, stored)
    print(len(stored), error)
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_one_clear_paragraph_and_shows_nothing_torn(tmp_path):
    script = f'mount -t tmpfs -o size=64k none "{tmp_path}" && exec "{sys.executable}" -c "$0" "{tmp_path}"'
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting in a namespace of one's own is not permitted here")
    filled = subprocess.run(["unshare", "-m", "bash", "-c", script, FILL], capture_output=True, text=True, check=False)
    assert filled.returncode == 0, filled.stderr
    num_stored, _, message = filled.stdout.strip().partition(" ")
    assert 1 <= int(num_stored) <= 16
    assert message.startswith(f"storage.path: cannot write in the memo at {tmp_path}: ")
    assert "No space left on device" in message
    assert message.endswith("free space or fix permissions, then run the same command again.")


def linked(store: ObjectStore, tmp_path, path: str):
    """A store with an object in ``objects``, and below its location a link to a folder or file outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis").write_bytes(b"years of work")
    place = tmp_path / "memo"
    store = ObjectStore(place)
    assert store.create("objects/a", b"ours")
    (place / path).symlink_to(outside if path.endswith("folder") else outside / "thesis")
    return store, outside / "thesis"


@pytest.mark.parametrize(
    ("link", "path"), [("objects/folder", "objects/folder/thesis"), ("objects/file", "objects/file")]
)
def test_links_are_not_followed(store, tmp_path, link, path):
    """Eviction once deleted files outside of the storage, to which a link below the states led."""
    store, thesis = linked(store, tmp_path, link)
    assert [listed.path for listed in store.listing("objects")] == ["objects/a"]
    for act in (
        lambda: store.get(path),
        lambda: store.create(path, b"other"),
        lambda: store.create(f"{path}/below", b"other"),
        lambda: store.delete(path),
        lambda: store.set_aside(path, b"years of work"),
    ):
        with pytest.raises(
            StorageError, match=r"objects/(folder|file) is a link, and links in the memo are not followed"
        ):
            act()
    assert thesis.read_bytes() == b"years of work"
    assert [file.name for file in thesis.parent.iterdir()] == ["thesis"]


def test_the_location_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "memo").symlink_to(tmp_path / "disk")
    store = ObjectStore(tmp_path / "memo")
    assert store.create("objects/a", b"ours")
    assert [listed.path for listed in store.listing("objects")] == ["objects/a"]
    assert (tmp_path / "disk/objects/a").read_bytes() == b"ours"


def test_a_listing_leaves_out_what_is_still_being_written(store, tmp_path):
    store.create("objects/a", b"ours")
    (tmp_path / "objects/b#1").write_bytes(b"hal")
    assert [listed.name for listed in store.listing("objects")] == ["a"]
