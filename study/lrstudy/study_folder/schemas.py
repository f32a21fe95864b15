"""The columns of a study's tables: trials, epochs, settings, calibration, ledger, predictions.

Columns may be added; their meaning never changes. Times are in seconds: columns named `*_at` are Unix
time, all others are measured on monotonic clocks.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

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
