"""Records of trained epochs, and the schemas of the tables that are views of them.

A record is what one trained epoch left: metrics, costs, digests. It lies in the memo under its lineage
and belongs to no study. Tables (trials, epochs, settings, ledger, predictions) belong to one study.
Columns may be added; their meaning never changes. All times are in seconds, all clocks monotonic
except `*_at` and `created_at`, which are Unix time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from hashlib import blake2b
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trained epoch. `state` is the digest of the stored state's bytes, or None if none was stored.

    `epoch` counts from 0: this epoch leads from state `parent` (name(epoch)) to state `lineage`
    (name(epoch + 1)). `metrics` holds finite numbers: those of a diverged epoch that are not are absent.
    `device_s` is the allocated device time: `device_share` x (train + evaluate + state).
    `origin` says which study, run and trial trained it.
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
        """JSON with a digest of itself, so that damage is noticed."""
        text = json.dumps(asdict(self), sort_keys=True, allow_nan=False)
        return json.dumps({"record": text, "digest": _digest(text)}).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Record | None:
        """The record, or None if the bytes are torn, damaged or not a record."""
        try:
            envelope = json.loads(data)
            text = envelope["record"]
            if envelope["digest"] != _digest(text):
                return None
            body = json.loads(text)
            known = {f.name for f in fields(Record)}
            return Record(**{key: value for key, value in body.items() if key in known})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


_TRIAL_COLUMNS = [
    ("trial_id", pa.string()),  # arm-searcher-index-seed; confirm trials: arm-confirm-rank-seed
    ("arm", pa.string()),
    ("workload", pa.string()),
    ("policy", pa.string()),
    ("searcher", pa.string()),
    ("phase", pa.string()),  # tune | cohort | confirm
    ("index", pa.int32()),
    ("configuration", pa.string()),  # JSON; each parameter also stands alone as p_<name>
    ("seed", pa.int64()),
    ("status", pa.string()),  # running | completed | diverged | failed | interrupted
    ("error", pa.string()),
    ("epochs", pa.int32()),
    ("lineage", pa.string()),  # of the last epoch
    ("final_val_loss", pa.float64()),
    ("final_val_metric", pa.float64()),
    ("best_val_metric", pa.float64()),
    ("best_epoch", pa.int32()),
    ("test_loss", pa.float64()),  # confirm trials only
    ("test_metric", pa.float64()),
    ("updates", pa.int64()),
    ("examples", pa.int64()),
    ("standalone_device_s", pa.float64()),  # what this training costs whoever adopts it
    ("spent_device_s", pa.float64()),  # what this study paid for it (recalled epochs: nothing)
    ("recalled_epochs", pa.int32()),
    ("started_at", pa.float64()),
    ("ended_at", pa.float64()),
]

_EPOCH_COLUMNS = [
    ("trial_id", pa.string()),
    ("arm", pa.string()),
    ("epoch", pa.int32()),
    ("lineage", pa.string()),
    ("parent", pa.string()),
    ("recalled", pa.bool_()),
    ("kind", pa.string()),
    ("batch_size", pa.int32()),
    ("updates", pa.int32()),
    ("examples", pa.int64()),
    ("lr_first", pa.float64()),  # of the head section
    ("lr_min", pa.float64()),
    ("lr_max", pa.float64()),
    ("lr_last", pa.float64()),
    ("momentum", pa.float64()),  # mean over the epoch's updates
    ("train_loss", pa.float64()),
    ("val_loss", pa.float64()),
    ("val_metric", pa.float64()),  # the study's metric; every metric also stands alone as val_<metric>
    ("train_s", pa.float64()),
    ("eval_s", pa.float64()),
    ("state_s", pa.float64()),
    ("device_kind", pa.string()),
    ("device_share", pa.float64()),
    ("device_s", pa.float64()),  # stand-alone cost of this epoch
    ("cumulative_device_s", pa.float64()),  # ... of this and all epochs before it
    ("host", pa.string()),
    ("settings", pa.string()),  # digest; settings.parquet holds the arrays
]

TRIALS = pa.schema(_TRIAL_COLUMNS)
EPOCHS = pa.schema(_EPOCH_COLUMNS)
SETTINGS = pa.schema(
    [
        ("settings", pa.string()),
        ("batch_size", pa.int32()),
        ("updates", pa.int32()),
        ("sections", pa.int32()),
        ("lr", pa.list_(pa.float64())),  # updates x sections, row-major, as applied
        ("momentum", pa.list_(pa.float64())),
        ("recipe", pa.string()),  # JSON
        ("update_kind", pa.string()),  # what its updates cost: a row of calibration.parquet, once that is measured
    ]
)
CALIBRATION = pa.schema(
    [
        ("update_kind", pa.string()),
        ("batch_size", pa.int32()),
        ("recipe", pa.string()),  # JSON, without what changes values only
        ("device_kind", pa.string()),
        ("device_s_per_update", pa.float64()),  # alone on the device
        ("device_s_per_epoch", pa.float64()),  # beyond its updates
        ("device_s_per_evaluation", pa.float64()),
    ]
)
LEDGER = pa.schema(
    [
        ("run", pa.int32()),
        ("host", pa.string()),
        ("device", pa.string()),  # one slot of a run: <kind>:<number>
        ("share", pa.float64()),  # devices per slot
        ("start", pa.float64()),  # seconds since the run began
        ("duration_s", pa.float64()),
        ("category", pa.string()),
        ("trial_id", pa.string()),
    ]
)
PREDICTIONS = pa.schema(
    [
        ("trial_id", pa.string()),
        ("arm", pa.string()),
        ("example", pa.int64()),  # position in the data set
        ("group", pa.string()),
        ("label", pa.int32()),  # null where an example has several
        ("labels", pa.list_(pa.int8())),  # then 0 or 1 for each class; else null
        ("scores", pa.list_(pa.float32())),  # logits, one per class
    ]
)
