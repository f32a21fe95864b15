"""When a walk's states are stored, and how: small ones at once, large ones behind the training of the next epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from lrstudy.memo.memo import Memo

SMALL_STATE_BYTES = 16 * 2**20
"""States below this size are stored after every epoch, which takes a millisecond or two."""
STATE_EVERY = 20.0
"""Larger ones when the training since the last one exceeds this many times the time that storing one takes."""


class StateWriter:
    """Stores the states of one walk. Raises StorageError; that of a state written behind training at the next call."""

    def __init__(self, memo: Memo) -> None:
        self._memo = memo
        self._pool: ThreadPoolExecutor | None = None
        self._running: Future[None] | None = None
        self._write_s: float | None = None
        self._num_bytes = 0
        self._unstored_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time to store a state: the first one shows size and cost."""
        if self._write_s is None or self._num_bytes < SMALL_STATE_BYTES:
            return True
        return self._unstored_s > STATE_EVERY * self._write_s

    @property
    def writes_behind(self) -> bool:
        """Whether states are known to be large enough for that."""
        return self._write_s is not None and self._num_bytes >= SMALL_STATE_BYTES

    def trained(self, seconds: float) -> None:
        """So much training has been added to what is not stored."""
        self._unstored_s += seconds

    def begin_from_stored(self) -> None:
        """Training goes on from a state that is stored, or from the start."""
        self._unstored_s = 0.0

    def put(self, state: bytes) -> str:
        """Store a state now; returns its digest."""
        self.finish()
        begin = time.monotonic()
        digest = self._memo.put_state(state)
        self._write_s, self._num_bytes, self._unstored_s = time.monotonic() - begin, len(state), 0.0
        return digest

    def anchor(self, lineage: str, state: bytes) -> None:
        """Store, now, the state of an epoch whose record is there already."""
        self.finish()
        self._memo.anchor(lineage, state)
        self._unstored_s = 0.0

    def anchor_behind(self, lineage: str, snapshot: Callable[[], bytes]) -> None:
        """Store the state of an epoch whose record is there already, while the next one is trained."""
        self.finish()
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="lrstudy-state")
        self._running = self._pool.submit(self._write, lineage, snapshot)
        self._unstored_s = 0.0

    def finish(self) -> None:
        """Wait for the state that is being written."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """`finish`, and let the thread go."""
        try:
            self.finish()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None

    def _write(self, lineage: str, snapshot: Callable[[], bytes]) -> None:
        begin = time.monotonic()
        state = snapshot()
        self._memo.anchor(lineage, state)
        self._write_s, self._num_bytes = time.monotonic() - begin, len(state)
