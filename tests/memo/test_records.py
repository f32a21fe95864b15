from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import blake2b

import pyarrow as pa
import pytest

from lrstudy.memo.records import Record
from lrstudy.study_folder.schemas import EPOCHS, LEDGER, PREDICTIONS, SETTINGS, TRIALS


def record(number: int = 0, **changes: object) -> Record:
    """A record with a lineage of its own for every `number`."""
    name = blake2b(str(number).encode(), digest_size=16).hexdigest()
    facts: dict[str, object] = {
        "lineage": name, "parent": "0" * 32, "root": "1" * 32, "epoch": 3, "settings": "2" * 32, "state": None,
        "diverged": False, "metrics": {"train_loss": 0.5, "val_accuracy": 1 / 3}, "batch_size": 32, "updates": 4,
        "examples": 120, "train_s": 1.5, "eval_s": 0.25, "state_s": 0.125, "device_kind": "cpu: x", "device_share": 2.0,
        "device_s": 3.75, "host": "h", "created_at": 1.0 + number, "origin": {"study": "s", "run": 1, "trial": "t"},
    }  # fmt: skip
    return Record(**(facts | changes))  # type: ignore[arg-type]


def enveloped(body: object) -> bytes:
    """Bytes of a body under a digest that is right."""
    text = body if isinstance(body, str) else json.dumps(body, sort_keys=True)
    return json.dumps({"record": text, "digest": blake2b(text.encode(), digest_size=8).hexdigest()}).encode()


@pytest.mark.parametrize(
    "changes",
    [{}, {"state": "f" * 32}, {"diverged": True, "metrics": {}}, {"origin": {}}, {"kind": "features"}],
    ids=["plain", "with a state", "diverged", "without origin", "another kind"],
)
def test_a_record_comes_back_as_it_was_written(changes):
    written = record(**changes)
    assert Record.from_bytes(written.to_bytes()) == written


def test_numbers_come_back_to_the_last_bit():
    written = record(metrics={"val_loss": 0.1 + 0.2, "tiny": 5e-324, "large": 1.7976931348623157e308})
    assert Record.from_bytes(written.to_bytes()).metrics == written.metrics


def test_any_single_flipped_bit_is_noticed():
    data = record().to_bytes()
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            assert Record.from_bytes(bytes(damaged)) is None, (place, bit)


def test_a_record_torn_anywhere_is_noticed():
    data = record().to_bytes()
    assert all(Record.from_bytes(data[:length]) is None for length in range(len(data)))
    assert Record.from_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 64,
        b"null",
        b"[]",
        b"5",
        b'"record"',
        b'{"record": null, "digest": ""}',
        b'{"record": 5, "digest": ""}',
        b'{"record": [], "digest": ""}',
        b"[" * 100_000,
        enveloped("[]"),
        enveloped("null"),
        enveloped("not JSON"),
        enveloped({"lineage": "0" * 32}),
    ],
    ids=lambda data: ascii(data[:32]).strip("b'"),
)
def test_what_is_no_record_reads_as_none(data):
    assert Record.from_bytes(data) is None


def test_fields_of_a_later_version_are_ignored():
    later = asdict(record()) | {"invented_later": {"a": 1}}
    assert Record.from_bytes(enveloped(later)) == record()


def test_a_field_that_is_missing_is_not_invented():
    earlier = asdict(record())
    del earlier["device_share"]
    assert Record.from_bytes(enveloped(earlier)) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        record(metrics={"val_loss": value}).to_bytes()


def test_every_column_that_a_record_holds_has_the_name_of_its_field():
    of_a_record = {
        "lineage", "parent", "epoch", "kind", "batch_size", "updates", "examples", "train_s", "eval_s", "state_s",
        "device_kind", "device_share", "device_s", "host", "settings",
    }  # fmt: skip
    assert of_a_record <= asdict(record()).keys()
    assert of_a_record <= set(EPOCHS.names)


@pytest.mark.parametrize("schema", [TRIALS, EPOCHS, SETTINGS, LEDGER, PREDICTIONS])
def test_column_names_are_unique_and_times_are_float64(schema):
    assert len(set(schema.names)) == len(schema.names)
    assert all(field.type == pa.float64() for field in schema if field.name.endswith(("_s", "_at")))
