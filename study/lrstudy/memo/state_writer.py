"""When a walk's states are stored, and how: small ones at once, large ones while the next epoch trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from lrstudy.memo.memo import Memo

SMALL_STATE_BYTES = 16 * 2**20
"""States below this size are stored after every epoch: that takes a millisecond or two."""
STATE_EVERY = 20.0
"""A larger state is stored once the training since the last stored one has taken this many times as long as storing."""


class StateWriter:
    """Stores the states of one walk.

    Whatever stores or waits raises StorageError; if the background thread failed, the next such call raises.
    """

    def __init__(self, memo: Memo) -> None:
        self._memo = memo
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._write_s: float | None = None
        self._state_bytes = 0
        self._unstored_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether to store the next state. The first always is: it shows their size and what storing them takes."""
        if self._write_s is None or self._state_bytes < SMALL_STATE_BYTES:
            return True
        return self._unstored_s > STATE_EVERY * self._write_s

    @property
    def writes_behind(self) -> bool:
        """Whether states are known to be so large that they should be stored in the background."""
        return self._write_s is not None and self._state_bytes >= SMALL_STATE_BYTES

    def trained(self, train_s: float) -> None:
        """Note that an epoch was trained, whose state is not stored yet."""
        self._unstored_s += train_s

    def begin_from_stored(self) -> None:
        """Note that training goes on from a stored state, or from the start."""
        self._unstored_s = 0.0

    def put(self, state: bytes) -> str:
        """Store a state before returning; returns its digest."""
        self.finish()
        begin = time.monotonic()
        digest = self._memo.put_state(state)
        self._write_s, self._state_bytes, self._unstored_s = time.monotonic() - begin, len(state), 0.0
        return digest

    def anchor(self, lineage: str, state: bytes) -> None:
        """Store the state of an epoch that is committed already, before returning."""
        self.finish()
        self._memo.anchor(lineage, state)
        self._unstored_s = 0.0

    def anchor_behind(self, lineage: str, snapshot: Callable[[], bytes]) -> None:
        """Store the state of an epoch that is committed already while the next one trains.

        `snapshot` returns the state's bytes; the background thread calls it.
        """
        self.finish()
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="lrstudy-state")
        self._pending = self._pool.submit(self._write, lineage, snapshot)
        self._unstored_s = 0.0

    def finish(self) -> None:
        """Wait for the state that is being stored in the background, if any."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """`finish`, and end the background thread."""
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
        self._write_s, self._state_bytes = time.monotonic() - begin, len(state)
