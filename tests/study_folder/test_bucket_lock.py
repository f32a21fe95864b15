"""The lock of a study in a bucket: who holds it, who may take it over, and by whose clock."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest

from lrstudy.errors import InputError, StorageError
from lrstudy.storage.bucket import Bucket
from lrstudy.study_folder import bucket_lock, driver_lock
from lrstudy.study_folder.bucket_lock import HEARTBEAT_S, SURE_S, BucketLock, is_held
from s3_server import proxy


@pytest.fixture
def url(s3) -> str:
    return f"{s3}/runs/study"


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(bucket_lock, "_LOOK_AGAIN_S", 0.05)


def facts(url: str) -> dict:
    return json.loads(Bucket(url).get("driver.lock"))


def left_by(url: str, **changes) -> dict:
    """What a driver left in the lock, with `changes`."""
    left = json.loads(driver_lock.content("another", 0)) | changes
    Bucket(url).put("driver.lock", json.dumps(left).encode())
    return left


def aged(monkeypatch, seconds: float) -> None:
    """Let the bucket's clock go on by `seconds` between a lock and what is written now."""
    find = Bucket.find

    def later(self, path):
        found = find(self, path)
        if path != "driver.clock" or found is None:
            return found
        return found._replace(modified_at=found.modified_at + timedelta(seconds=seconds))

    monkeypatch.setattr(Bucket, "find", later)


HOLD = (
    "import sys; from lrstudy.study_folder.bucket_lock import BucketLock\n"
    "BucketLock(sys.argv[1]).acquire(run=0); print('held', flush=True); sys.stdin.read()\n"
)


@contextmanager
def living_driver(url):
    arguments = [sys.executable, "-c", HOLD, url]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout.readline() == "held\n"
            yield driver
        finally:
            driver.kill()


def test_the_lock_says_who_holds_it_and_goes_with_its_release(url):
    lock = BucketLock(url)
    lock.acquire(run=3)
    assert (facts(url)["run"], facts(url)["host"], facts(url)["pid"]) == (3, platform.node(), os.getpid())
    assert lock.previous is None
    assert not lock.is_taken_over
    assert is_held(url)
    lock.release()
    assert Bucket(url).get("driver.lock") is None
    assert not is_held(url)
    BucketLock(url).acquire(run=4)


def test_the_lock_holds_nothing_secret(url):
    BucketLock(url).acquire(run=0)
    assert b"never-to-be-seen" not in Bucket(url).get("driver.lock")


@pytest.mark.slow
def test_a_second_driver_is_refused_while_the_first_lives_and_not_after(url):
    with living_driver(url) as driver:
        before = facts(url)
        with pytest.raises(InputError, match=rf"another driver is running this study \(process {driver.pid} on"):
            BucketLock(url).acquire(run=0)
        assert facts(url) == before
        driver.kill()
        driver.wait()
        lock = BucketLock(url)
        lock.acquire(run=0)
    assert lock.previous == before
    assert facts(url)["pid"] == os.getpid()


@pytest.mark.slow
def test_of_drivers_that_start_together_exactly_one_wins(url):
    left_by(url, process_started_at=1.0)  # a dead holder makes it harder
    code = (
        "import sys; from lrstudy.study_folder.bucket_lock import BucketLock; from lrstudy.errors import InputError\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    BucketLock(sys.argv[1]).acquire(run=0); print('won', flush=True)\n"
        "except InputError:\n    print('refused', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    takers = [subprocess.Popen([sys.executable, "-c", code, url], **pipes) for _ in range(3)]
    try:
        assert all(taker.stdout.readline() == "ready\n" for taker in takers)
        for taker in takers:
            taker.stdin.write("\n")
            taker.stdin.flush()
        said = [taker.stdout.readline() for taker in takers]
        assert sorted(said) == ["refused\n"] * 2 + ["won\n"]
        assert facts(url)["pid"] == takers[said.index("won\n")].pid
    finally:
        for taker in takers:
            taker.kill()
            taker.communicate()


@pytest.mark.parametrize("elsewhere", [{"host": "elsewhere"}, {"boot_id": "another"}, {"pid_namespace": "pid:[1]"}])
def test_a_silent_driver_elsewhere_is_dead_by_the_buckets_clock(url, monkeypatch, elsewhere):
    """Neither its clock nor ours matters: its own time here is a year ahead."""
    left = left_by(url, heartbeat_at=time.time() + 3e7, **elsewhere)
    aged(monkeypatch, 61)
    lock = BucketLock(url)
    lock.acquire(run=0)
    assert lock.previous == left
    lock.release()


def test_a_driver_elsewhere_that_beats_is_alive_whatever_its_clock_says(url, monkeypatch):
    left_by(url, host="elsewhere", heartbeat_at=1.0)
    aged(monkeypatch, 30)
    monkeypatch.setattr(bucket_lock.time, "sleep", lambda s: left_by(url, host="elsewhere", heartbeat=time.monotonic()))
    with pytest.raises(InputError, match=r"another driver is running this study \(process \d+ on elsewhere\)"):
        BucketLock(url).acquire(run=0)


@pytest.mark.parametrize(
    "content",
    [b"\x80\x04garbage", b"{}", b"[]", b"null", b'{"token": ["a"]}', b'{"pid": 1e999}', b"[" * 100_000,
     json.dumps(json.loads(driver_lock.content("t", 0)) | {"pid": "1; rm -rf /"}).encode(),
     json.dumps(json.loads(driver_lock.content("t", 0)) | {"pid": 10**40}).encode(),
     json.dumps(json.loads(driver_lock.content("t", 0)) | {"heartbeat": float("nan")}).encode(),
     json.dumps(json.loads(driver_lock.content("t", 0)) | {"host": "a\x1b[2Jb"}).encode()],
    ids=range(11),
)  # fmt: skip
def test_a_lock_with_odd_content_names_nobody_and_gives_way_once_it_is_old(url, monkeypatch, content):
    Bucket(url).put("driver.lock", content)
    assert is_held(url), "somebody may be writing it"
    aged(monkeypatch, 61)
    assert not is_held(url)
    lock = BucketLock(url)
    lock.acquire(run=0)
    assert lock.previous is None
    lock.release()


# Heartbeats


def beaten(lock: BucketLock) -> None:
    """Let the lock beat, and wait for its thread."""
    lock._beaten -= HEARTBEAT_S
    lock.beat()
    lock._renewing.exception(timeout=60)
    lock.beat()


def test_a_beat_renews_the_lock(url):
    lock = BucketLock(url)
    lock.acquire(run=0)
    first = facts(url)
    lock.beat()
    assert facts(url) == first, "not more often than needed"
    beaten(lock)
    assert facts(url)["heartbeat"] > first["heartbeat"]
    beaten(lock)
    lock.release()
    assert Bucket(url).get("driver.lock") is None


def test_a_driver_that_was_taken_over_stops_and_leaves_the_other_ones_lock_alone(url):
    lock = BucketLock(url)
    lock.acquire(run=0)
    other = left_by(url, host="elsewhere")
    with pytest.raises(StorageError, match=r"on elsewhere\) has taken this study over"):
        beaten(lock)
    assert lock.is_taken_over
    lock.release()
    assert facts(url) == other


def test_a_lock_that_somebody_deleted_comes_back_with_the_next_beat(url):
    lock = BucketLock(url)
    lock.acquire(run=0)
    Bucket(url).delete("driver.lock")
    beaten(lock)
    assert facts(url)["token"] == lock._token


def test_a_driver_that_cannot_renew_its_lock_stops_before_another_may_take_over(url, s3_server, monkeypatch):
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        lock = BucketLock(url)
        lock.acquire(run=0)
        faults.of = lambda method, path: 503
        beaten(lock)
        lock._held_at -= SURE_S
        with pytest.raises(StorageError, match="could not be reached for 45 s to renew this driver's lock"):
            lock.beat()
        assert lock.is_taken_over
        lock.release()
    assert SURE_S + bucket_lock._REQUEST_S < bucket_lock.STALE_S


def test_a_renewal_whose_answer_was_lost_is_still_ours(url, s3_server, monkeypatch):
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        lock = BucketLock(url)
        lock.acquire(run=0)
        puts = len(faults.seen)
        faults.of = lambda method, path: "drop" if method == "PUT" and len(faults.seen) == puts + 1 else None
        beaten(lock)
        beaten(lock)
        assert not lock.is_taken_over
        lock.release()
        assert Bucket(url).get("driver.lock") is None
