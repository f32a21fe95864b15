"""Records of trained epochs: their metrics, what they cost, and the digests of settings and state.

The memo holds a record under its lineage; it belongs to no study. Times are in seconds, and `created_at` is Unix time.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from hashlib import blake2b
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trained epoch.

    `epoch` counts from 0: it led from the state `parent`, name(epoch), to the state `lineage`, name(epoch + 1). `root`
    is name(0). `settings` and `state` are digests; `state` is None if the state was not stored before the record.
    `metrics` holds finite numbers only: of a diverged epoch, the others are left out. `device_s` is the allocated
    device time, `device_share` x (`train_s` + `eval_s` + `state_s`). `origin` says which study, run and trial trained
    it.
    """

    lineage: str
    parent: str
    root: str
    epoch: int
    settings: str
    state: str | None
    diverged: bool
    metrics: dict[str, float]
    batch_size: int
    updates: int
    examples: int
    train_s: float
    eval_s: float
    state_s: float
    device_kind: str
    device_share: float
    device_s: float
    host: str
    created_at: float
    origin: dict[str, Any] = field(default_factory=dict)
    kind: str = "train"

    def to_bytes(self) -> bytes:
        """JSON together with its digest. Raises ValueError if a metric is not finite."""
        text = json.dumps(asdict(self), sort_keys=True, allow_nan=False)
        return json.dumps({"record": text, "digest": _digest(text)}).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Record | None:
        """The record, or None if the bytes are torn, damaged or not a record, or if a field holds what none may hold."""
        try:
            envelope = json.loads(data)
            text = envelope["record"]
            if envelope["digest"] != _digest(text):
                return None
            body = json.loads(text)
            known = {f.name for f in fields(Record)}
            record = Record(**{key: value for key, value in body.items() if key in known})
            return record if _is_sound(record) else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def parse(lineage: str, data: bytes) -> Record | None:
    """The record of this epoch, or None if the bytes are torn, damaged or another epoch's."""
    record = Record.from_bytes(data)
    return record if record is not None and record.lineage == lineage else None


_TEXTS = ("lineage", "parent", "root", "settings", "device_kind", "host", "kind")
_COUNTS = ("epoch", "batch_size", "updates", "examples")
_NUMBERS = ("train_s", "eval_s", "state_s", "device_share", "device_s", "created_at")
_MOST, _LONGEST = 1e15, 1000


def _is_sound(record: Record) -> bool:
    """Whether every field has its type, and numbers are finite: a storage that others write to may hold anything."""
    return (
        all(_is_text(getattr(record, name)) for name in _TEXTS)
        and (record.state is None or _is_text(record.state))
        and isinstance(record.diverged, bool)
        and all(_is_number(getattr(record, name)) for name in (*_COUNTS, *_NUMBERS))
        and all(isinstance(getattr(record, name), int) for name in _COUNTS)
        and isinstance(record.metrics, dict)
        and all(_is_number(value, negative=True) for value in record.metrics.values())
        and isinstance(record.origin, dict)
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _is_number(value: object, negative: bool = False) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return negative or 0 <= value < _MOST


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
