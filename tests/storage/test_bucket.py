"""A bucket on a real server: conditional puts, damage set aside, faults of the line and of the server."""

from __future__ import annotations

import pickle
import threading
import time

import pytest

from lrstudy.errors import StorageError
from lrstudy.storage.bucket import Bucket
from s3_server import S3Server, environment, proxy, server_or_skip


@pytest.fixture
def bucket(s3) -> Bucket:
    return Bucket(f"{s3}/runs")


def test_an_object_is_replaced_only_if_it_is_the_version_that_was_read(bucket):
    first = bucket.create_version("a", b"first")
    assert bucket.find("a").version == first
    second = bucket.replace("a", b"second", first)
    assert bucket.replace("a", b"third", first) is None
    assert bucket.get("a") == b"second"
    bucket.delete("a")
    assert bucket.replace("a", b"third", second) is None
    assert bucket.get("a") is None


def test_of_threads_that_replace_one_version_exactly_one_does(bucket):
    version = bucket.create_version("a", b"0")
    done: list[object] = []
    threads = [
        threading.Thread(target=lambda k=k: done.append(bucket.replace("a", b"%d" % k, version))) for k in range(1, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in done if one]) == 1


def test_a_damaged_object_frees_its_name_without_touching_a_faster_ones(bucket):
    bucket.create("a/b", b"torn")
    bucket.set_aside("a/b", b"torn")
    assert bucket.get("damaged/a/b") == b"torn"
    assert bucket.get("a/b") is None
    assert [listed.path for listed in bucket.listing()] == ["damaged/a/b"]
    assert bucket.create("a/b", b"whole")
    bucket.set_aside("a/b", b"torn")
    assert bucket.get("a/b") == b"whole"
    assert not bucket.create("a/b", b"other")


def test_of_those_who_take_a_freed_name_one_wins(bucket):
    bucket.create("a", b"torn")
    bucket.set_aside("a", b"torn")
    assert [bucket.create("a", b"one"), bucket.create("a", b"two")] == [True, False]
    assert bucket.get("a") == b"one"


def test_a_large_object_is_put_in_parts_and_downloaded_in_pieces(bucket, tmp_path):
    file = tmp_path / "large"
    file.write_bytes(bytes(range(256)) * 80_000)
    bucket.put("large", file)
    assert bucket.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    assert not bucket.download("nothing", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_folders_are_those_directly_below(bucket):
    for path in ("memo/records/a", "one/study.yaml", "two/journal/0001.jsonl", "file"):
        bucket.create(path, b"1")
    assert sorted(bucket.folders()) == ["memo", "one", "two"]
    assert sorted(listed.path for listed in bucket.listing("one")) == ["one/study.yaml"]


def test_it_travels_without_credentials(bucket, monkeypatch):
    bucket.create("a", b"1")
    data = pickle.dumps(bucket)
    assert b"never-to-be-seen" not in data
    assert pickle.loads(data).get("a") == b"1"


# Refusals: said at once, in one paragraph


def test_a_bucket_that_does_not_exist_is_named(s3):
    for call in (lambda b: b.create("a", b"1"), lambda b: b.listing("a"), lambda b: b.put("a", b"1")):
        with pytest.raises(
            StorageError, match=r"cannot (write|list) in the bucket at s3://not-there/x: NoSuchBucket"
        ) as raised:
            call(Bucket("s3://not-there/x"))
        assert "make the bucket not-there, or correct its name, then run the same command again." in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_refusal_is_said_at_once_and_without_credentials(s3, s3_server, monkeypatch):
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        faults.of = lambda method, path: 403 if method == "PUT" else None
        bucket, begin = Bucket(f"{s3}/runs", patience_s=60), time.monotonic()
        with pytest.raises(
            StorageError, match=r"cannot write .* Injected, as the test wants\. .*let your credentials read"
        ):
            bucket.create("a", b"1")
        assert time.monotonic() - begin < 30, "a refusal is not waited out"
        assert len(faults.seen) == 1


def test_no_credentials_are_said_to_be_missing(s3, monkeypatch):
    with proxy(1) as (endpoint, faults):  # stands for the metadata service of a machine without a role
        faults.of = lambda method, path: 404
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", endpoint)
        with pytest.raises(StorageError, match=r"no credentials were found .*give it credentials by the environment"):
            Bucket(f"{s3}/runs", patience_s=5).get("a")


# Faults that may pass


def test_a_server_that_fails_for_a_while_is_waited_for(s3, s3_server, monkeypatch):
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        faults.of = lambda method, path: 503 if len(faults.seen) < 6 else None
        bucket = Bucket(f"{s3}/runs", patience_s=60)
        assert bucket.create("a", b"1")
        assert bucket.get("a") == b"1"


def test_a_server_that_goes_on_failing_is_a_storage_error_after_a_bounded_time(s3, s3_server, monkeypatch):
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        faults.of = lambda method, path: 500
        with pytest.raises(
            StorageError, match=r"see that the bucket can be reached from here, then run the same command"
        ):
            Bucket(f"{s3}/runs", patience_s=1).get("a")


def test_a_server_that_never_answers_is_given_up(s3, s3_server, monkeypatch):
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        faults.of = lambda method, path: "hang"
        for call in (lambda b: b.get("a"), lambda b: b.create("a", b"1"), lambda b: b.listing()):
            with pytest.raises(StorageError, match=r"^storage\.path: cannot "):
                call(Bucket(f"{s3}/runs", patience_s=0, request_s=0.5))


def test_a_put_whose_answer_was_lost_is_found_done(s3, s3_server, monkeypatch):
    """The object is there; its creator is told that the name is taken, and finds its own bytes under it."""
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        faults.of = lambda method, path: "drop" if method == "PUT" and len(faults.seen) == 1 else None
        bucket = Bucket(f"{s3}/runs", patience_s=60)
        assert not bucket.create("a", b"mine")
        assert bucket.get("a") == b"mine"


@pytest.mark.slow
def test_a_server_that_dies_mid_write_shows_nothing_partial_and_is_waited_for(monkeypatch):
    server = server_or_skip()
    port, revived = server.port, None
    try:
        for name, value in environment(server.endpoint).items():
            monkeypatch.setenv(name, value)
        url = server.make_bucket()
        bucket = Bucket(f"{url}/runs", patience_s=120)
        sent: list[bool] = []
        writer = threading.Thread(target=lambda: sent.append(bucket.create("a", b"x" * 8_000_000)))
        writer.start()
        server.stop()
        writer_reader = Bucket(f"{url}/runs", patience_s=0, request_s=2)
        with pytest.raises(StorageError):
            writer_reader.get("a")
        revived = S3Server(port)
        revived.request("PUT", f"/{url.removeprefix('s3://')}")
        writer.join(timeout=120)
        whole = bucket.get("a")
        assert whole in (None, b"x" * 8_000_000), "nothing partial"
        assert sent in ([True], []) or whole is None
    finally:
        server.stop()
        if revived is not None:
            revived.stop()


@pytest.mark.parametrize("key", ["x/../../other", "x//y", "x/./y"])
def test_an_object_with_a_name_that_is_no_path_is_named_and_not_followed(s3, s3_server, bucket, key):
    bucket.create("ok", b"1")
    s3_server.put(s3, f"runs/{key}", b"evil")
    with pytest.raises(
        StorageError, match="remove that object, whose name no program of this project has given"
    ) as raised:
        bucket.listing()
    assert "\n" not in str(raised.value)
