"""One driver per study in a bucket: a lock object that changes hands only by conditional puts.

Whether a holder on another host is dead is judged by the bucket's own clock alone: how old its lock is beside an object
written just now. So no host's clock matters. A driver that could not renew its lock for `SURE_S` stops before another one
may take over, after `STALE_S`; and all renewing and taking over replaces exactly the version that was read, so of two
drivers one at most holds the lock.
"""

from __future__ import annotations

import logging
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from lrstudy.errors import Fault, InputError, StorageError
from lrstudy.storage.bucket import Bucket, Found, Version
from lrstudy.study_folder import driver_lock

HEARTBEAT_S = 5.0
STALE_S = 60.0
SURE_S = 45.0
"""A request that was sent before may arrive later, by the 10 s that it may take: still before `STALE_S`."""
_REQUEST_S = 10.0
_LOOK_AGAIN_S = 1.0
_PATH, _CLOCK = "driver.lock", "driver.clock"

log = logging.getLogger(__name__)


class BucketLock:
    """Holds ``driver.lock`` of a study from `acquire` to `release`. `previous` is what a dead holder left, if any.

    Two requests every ten seconds at most. Renewing takes place in a thread, as a bucket may be slow, but is asked for by
    `beat`: a driver that hangs is stale as well.
    """

    def __init__(self, url: str) -> None:
        self._bucket = Bucket(url, patience_s=0.0, request_s=_REQUEST_S)
        self._name = url.rsplit("/", 1)[-1]
        self._token, self._run = "", 0
        self._version: Version = {}
        self._held_at = self._beaten = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lrstudy-lock")
        self._renewing: Future[None] | None = None
        self._other: dict[str, Any] | None = None
        self.previous: dict[str, Any] | None = None

    def acquire(self, run: int) -> None:
        """Take the lock, waiting up to a minute for whether a silent holder is dead.

        Raises InputError if a living driver holds it, StorageError if the bucket fails.
        """
        self._run, self._token = run, uuid.uuid4().hex
        bucket, first = Bucket(self._bucket.url), None
        while True:
            asked = time.monotonic()
            version = bucket.create_version(_PATH, self._content())
            if version is not None:
                break
            found = bucket.find(_PATH)
            if found is None:
                continue
            holder = driver_lock.parsed(found.data)
            if holder.get("token") == self._token:  # ours: the answer to an earlier put was lost
                version = found.version
                break
            if _is_dead(bucket, found, holder):
                version = bucket.replace(_PATH, self._content(), found.version)
                if version is not None:
                    self.previous = holder or None
                    break
                continue
            if first is None:
                first = found
                log.info(
                    f"{self._name}: waiting for a sign of life of the driver that runs this study ({_shown(holder)})."
                )
            if first.version != found.version or (holder and driver_lock.is_near(holder)):
                raise _refused(self._name, holder)
            time.sleep(_LOOK_AGAIN_S)
        self._version, self._held_at, self._beaten = version, asked, asked

    def beat(self) -> None:
        """Renew the heartbeat if it is due; returns at once, as a thread does it.

        Raises StorageError if another driver has taken the study over, or may do so soon because the bucket cannot be
        reached.
        """
        now = time.monotonic()
        if self._renewing is not None and self._renewing.done():
            renewing, self._renewing = self._renewing, None
            with suppress(StorageError):  # it is tried again, until it is no longer sure who holds the lock
                renewing.result()
        if self._other is not None:
            raise StorageError(
                f"{self._name}: another driver ({_shown(self._other)}) has taken this study over, because this one was not "
                f"heard of for {STALE_S:.0f} s. This run stops; what was recorded is safe, and the other driver goes on."
            )
        if now - self._held_at > SURE_S:
            raise StorageError(
                f"storage.path: {self._bucket.url} could not be reached for {SURE_S:.0f} s to renew this driver's lock, so "
                "another driver may take the study over. This run stops; what was recorded before is safe; see that the "
                "bucket can be reached from here, then run the same command again."
            )
        if self._renewing is None and now - self._beaten >= HEARTBEAT_S:
            self._beaten = now
            self._renewing = self._pool.submit(self._renew)

    @property
    def is_taken_over(self) -> bool:
        """Whether another driver has taken the study over, or may have."""
        try:
            self._finish()
            found = self._bucket.find(_PATH)
        except StorageError:
            return time.monotonic() - self._held_at > SURE_S
        return found is not None and driver_lock.parsed(found.data).get("token") != self._token

    def release(self) -> None:
        """Release the lock, if this driver still holds it: exactly its own version makes way for an empty object."""
        with suppress(StorageError):
            self._finish()
            if self._version:
                self._bucket.replace(_PATH, b"", self._version)
        self._version = {}
        self._pool.shutdown()

    def _finish(self) -> None:
        """Wait for the renewal that is under way."""
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.result()

    def _renew(self) -> None:
        asked = time.monotonic()
        version = self._bucket.replace(_PATH, self._content(), self._version)
        if version is None:
            found = self._bucket.find(_PATH)
            if found is None:  # somebody deleted it
                version = self._bucket.create_version(_PATH, self._content())
            elif driver_lock.parsed(found.data).get("token") == self._token:  # the answer to an earlier put was lost
                version = self._bucket.replace(_PATH, self._content(), found.version)
            else:
                self._other = driver_lock.parsed(found.data)
                return
        if version is not None:
            self._version, self._held_at = version, asked

    def _content(self) -> bytes:
        return driver_lock.content(self._token, self._run)


def is_held(url: str) -> bool:
    """Whether a living driver runs the study at `url`, as far as its lock tells. Raises StorageError."""
    bucket = Bucket(url)
    found = bucket.find(_PATH)
    return found is not None and not _is_dead(bucket, found, driver_lock.parsed(found.data))


def _is_dead(bucket: Bucket, found: Found, holder: dict[str, Any]) -> bool:
    """Whether the holder of a lock is dead: its process is gone from this host, or its lock is old by the bucket's clock."""
    if holder and driver_lock.is_near(holder):
        return not driver_lock.is_process_alive(holder)
    bucket.put(_CLOCK, b"now")
    now = bucket.find(_CLOCK)
    return now is not None and (now.modified_at - found.modified_at).total_seconds() >= STALE_S


def _refused(name: str, holder: dict[str, Any]) -> InputError:
    return InputError(
        Fault(
            name,
            f"another driver is running this study ({_shown(holder)})",
            advice="Expected one driver per study: wait for it, stop it, or give this run a name of its own with --as NAME.",
        )
    )


def _shown(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if holder else "its lock names nobody"
