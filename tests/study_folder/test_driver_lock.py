from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil
import pytest

from lrstudy.errors import InputError, StorageError
from lrstudy.study_folder import driver_lock
from lrstudy.study_folder.driver_lock import HEARTBEAT_S, STALE_S, TORN_S, DriverLock

HOLD = (
    "import sys; from pathlib import Path; from lrstudy.study_folder.driver_lock import DriverLock\n"
    "DriverLock(Path(sys.argv[1])).acquire(run=0); print('held', flush=True); sys.stdin.read()\n"
)


@contextmanager
def living_driver(folder):
    """Another process that holds the lock until it is killed."""
    arguments = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout.readline() == "held\n"
            yield driver
        finally:
            driver.kill()


def facts(folder):
    return json.loads((folder / "driver.lock").read_text())


def held_by(folder, **changes):
    """A lock file whose holder differs from this process in `changes`."""
    lock = DriverLock(folder)
    lock.acquire(run=0)
    left = facts(folder) | {"token": "another"} | changes
    (folder / "driver.lock").write_text(json.dumps(left))
    return left


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_lock_says_who_holds_it_and_goes_with_its_release(tmp_path):
    lock = DriverLock(tmp_path / "study")
    lock.acquire(run=3)
    holder = facts(tmp_path / "study")
    assert (holder["run"], holder["host"], holder["pid"]) == (3, platform.node(), os.getpid())
    assert holder["heartbeat"] == pytest.approx(time.monotonic(), abs=5)
    assert lock.previous is None
    lock.release()
    assert names(tmp_path / "study") == []
    DriverLock(tmp_path / "study").acquire(run=4)


def test_a_second_driver_is_refused_while_the_first_lives_and_not_after(tmp_path):
    with living_driver(tmp_path) as driver:
        before = facts(tmp_path)
        with pytest.raises(InputError) as refused:
            DriverLock(tmp_path).acquire(run=0)
        assert f"another driver is running this study (process {driver.pid} on {platform.node()}" in str(refused.value)
        assert "--as NAME" in str(refused.value)
        assert facts(tmp_path) == before
        driver.kill()
        driver.wait()
        lock = DriverLock(tmp_path)
        lock.acquire(run=0)
    assert lock.previous == before
    assert facts(tmp_path)["pid"] == os.getpid()
    assert names(tmp_path) == ["driver.lock"]


def test_a_driver_that_was_killed_and_not_yet_waited_for_is_dead(tmp_path):
    with living_driver(tmp_path) as driver:
        driver.kill()
        while psutil.Process(driver.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        DriverLock(tmp_path).acquire(run=0)


def test_a_process_number_that_was_given_again_is_not_the_old_driver(tmp_path):
    left = held_by(tmp_path, process_started_at=psutil.Process().create_time() - 3600)
    lock = DriverLock(tmp_path)
    lock.acquire(run=0)
    assert lock.previous == left


def test_the_same_process_number_and_start_after_another_boot_is_not_the_old_driver(tmp_path):
    held_by(tmp_path, boot_id="of the boot before")
    DriverLock(tmp_path).acquire(run=0)


def test_a_clock_that_is_set_while_a_driver_runs_does_not_make_it_dead(tmp_path):
    started, boot = psutil.Process().create_time(), psutil.boot_time()
    held_by(tmp_path, process_started_at=started - 500, boot=boot - 500, heartbeat_at=time.time() - 500)
    with pytest.raises(InputError, match="another driver is running"):
        DriverLock(tmp_path).acquire(run=0)


def test_a_driver_on_another_host_lives_as_long_as_its_heartbeat_is_fresh(tmp_path):
    held_by(tmp_path, host="elsewhere", heartbeat_at=time.time() - STALE_S + 30)
    with pytest.raises(InputError, match=r"on elsewhere, last heard of 3\d s ago"):
        DriverLock(tmp_path).acquire(run=0)
    held = facts(tmp_path) | {"heartbeat_at": time.time() - STALE_S - 1}
    (tmp_path / "driver.lock").write_text(json.dumps(held))
    lock = DriverLock(tmp_path)
    lock.acquire(run=0)
    assert lock.previous == held


@pytest.mark.parametrize("content", ["", '{"host": "x", "pi', "[]", "null", "{}", '{"host": "h"}'])
def test_a_torn_lock_is_taken_over(tmp_path, monkeypatch, content):
    monkeypatch.setattr(driver_lock, "TORN_S", 0.05)
    (tmp_path / "driver.lock").write_text(content)
    DriverLock(tmp_path).acquire(run=0)
    assert facts(tmp_path)["pid"] == os.getpid()


def test_a_lock_that_is_being_written_is_waited_for(tmp_path):
    """An empty file was once taken for a torn one, so that of two drivers starting together both went on."""
    living = held_by(tmp_path)
    (tmp_path / "driver.lock").write_text("")
    writes = threading.Timer(TORN_S / 5, lambda: (tmp_path / "driver.lock").write_text(json.dumps(living)))
    writes.start()
    with pytest.raises(InputError, match="another driver is running"):
        DriverLock(tmp_path).acquire(run=0)
    writes.join()


def test_a_lock_that_was_taken_between_reading_and_moving_it_is_given_back(tmp_path, monkeypatch):
    """Of two drivers that found the same dead holder, the slower one once moved the faster one's lock away."""
    held_by(tmp_path, process_started_at=1.0)
    faster, slower = DriverLock(tmp_path), DriverLock(tmp_path)
    is_alive = driver_lock._is_alive

    def overtaken(holder):
        if holder["process_started_at"] != 1.0:
            return is_alive(holder)
        monkeypatch.setattr(driver_lock, "_is_alive", is_alive)
        faster.acquire(run=0)
        return False

    monkeypatch.setattr(driver_lock, "_is_alive", overtaken)
    with pytest.raises(InputError, match="another driver is running"):
        slower.acquire(run=0)
    assert facts(tmp_path)["token"] == faster._token
    assert names(tmp_path) == ["driver.lock"]


def test_of_drivers_that_start_together_exactly_one_wins(tmp_path):
    held_by(tmp_path, process_started_at=1.0)  # a dead holder makes it harder
    code = (
        "import sys, time; from pathlib import Path; from lrstudy.study_folder.driver_lock import DriverLock\n"
        "from lrstudy.errors import InputError\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    DriverLock(Path(sys.argv[1])).acquire(run=0); print('won', flush=True)\n"
        "except InputError:\n    print('refused', flush=True)\n"
        "sys.stdin.read()\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    takers = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        assert all(taker.stdout.readline() == "ready\n" for taker in takers)
        for taker in takers:
            taker.stdin.write("\n")
            taker.stdin.flush()
        said = [taker.stdout.readline() for taker in takers]
        assert sorted(said) == ["refused\n"] * 3 + ["won\n"]
        assert facts(tmp_path)["pid"] == takers[said.index("won\n")].pid
        assert names(tmp_path) == ["driver.lock"]
    finally:
        for taker in takers:
            taker.kill()
            taker.communicate()


# Heartbeats


def overdue(lock):
    lock._beaten -= HEARTBEAT_S
    return lock


def test_a_beat_refreshes_the_heartbeat_but_not_more_often_than_needed(tmp_path):
    lock = DriverLock(tmp_path)
    lock.acquire(run=0)
    first = facts(tmp_path)
    lock.beat()
    assert facts(tmp_path) == first
    overdue(lock).beat()
    assert facts(tmp_path)["heartbeat"] > first["heartbeat"]
    assert names(tmp_path) == ["driver.lock"]


def test_a_driver_that_was_taken_over_stops_and_leaves_the_other_ones_lock_alone(tmp_path):
    lock = DriverLock(tmp_path)
    lock.acquire(run=0)
    held_by_other = facts(tmp_path) | {"token": "another", "host": "elsewhere"}
    (tmp_path / "driver.lock").write_text(json.dumps(held_by_other))
    with pytest.raises(StorageError, match=r"on elsewhere\) has taken this study over"):
        overdue(lock).beat()
    lock.release()
    assert facts(tmp_path) == held_by_other


def test_a_lock_that_somebody_deleted_comes_back_with_the_next_beat(tmp_path):
    lock = DriverLock(tmp_path)
    lock.acquire(run=0)
    (tmp_path / "driver.lock").unlink()
    overdue(lock).beat()
    assert facts(tmp_path)["token"] == lock._token


def test_a_full_disk_stops_no_beat_but_leaves_no_torn_lock_at_the_start(tmp_path, monkeypatch):
    lock = DriverLock(tmp_path)
    lock.acquire(run=0)
    lock.release()

    def full(descriptor, data):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(driver_lock.os, "write", full)
    overdue(lock).beat()
    with pytest.raises(StorageError, match=r"storage\.path: cannot write .*driver\.lock: No space left on device"):
        DriverLock(tmp_path).acquire(run=0)
    assert names(tmp_path) == []
