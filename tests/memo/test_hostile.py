"""A memo that somebody else may write to: what is not ours is set aside, never believed, never run, never a traceback."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lrstudy.memo import records
from lrstudy.memo.memo import Memo
from lrstudy.memo.objects import ObjectStore, content_digest
from lrstudy.memo.records import Record
from memo_records import record


class Planted:
    """A pickle that betrays whoever loads it."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle from the storage was loaded",))


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path) -> ObjectStore:
    if request.param == "folder":
        return ObjectStore(tmp_path / "memo")
    return ObjectStore(f"{request.getfixturevalue('s3')}/runs/memo")


def enveloped(body: object) -> bytes:
    """A record's bytes with a digest that is right, whatever is in it."""
    text = json.dumps(body)
    return json.dumps({"record": text, "digest": records._digest(text)}).encode()


OURS = asdict(record(1))
CHANGES = [
    {"metrics": {"val_loss": float("nan")}}, {"metrics": {"val_loss": "0.5"}}, {"metrics": [0.5]}, {"metrics": None},
    {"epoch": -1}, {"epoch": 1.5}, {"epoch": "0"}, {"epoch": True}, {"epoch": 10**30}, {"train_s": float("inf")},
    {"train_s": -1.0}, {"device_s": None}, {"created_at": "now"}, {"state": 5}, {"diverged": "yes"}, {"origin": "x"},
    {"host": "h" * 10_000}, {"lineage": "../../etc/passwd"}, {"settings": {"a": 1}}, {"parent": None},
]  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES, ids=range(len(CHANGES)))
def test_a_record_of_odd_types_is_none_though_its_digest_is_right(changes):
    data = enveloped(OURS | changes)
    assert records.parse(OURS["lineage"], data) is None
    assert records.parse(OURS["lineage"], enveloped(OURS)) == record(1)


@pytest.mark.parametrize("data", [pickle.dumps(Planted()), b"", b"[" * 100_000, b"null", b'{"record": 5, "digest": 5}',
                                  enveloped([]), enveloped({"lineage": "x"}), enveloped(OURS | {"epoch": "0"})],
                         ids=range(8))  # fmt: skip
def test_what_lies_under_a_records_name_and_is_none_makes_way_for_one(store, data):
    ours = record(1)
    path = f"records/{ours.lineage[:2]}/{ours.lineage}"
    if data:
        store.create(path, data)
    memo = Memo(store.location)
    assert memo.find(ours.lineage) is None
    assert memo.commit(ours) == ours
    assert Memo(store.location).find(ours.lineage) == ours


@pytest.mark.parametrize("name", ["../../../etc/passwd", "a/b", "", "\n", "%2e%2e", "A" * 32, "0" * 31, "\x00" * 32])
def test_a_name_that_is_no_lineage_is_not_looked_for(store, name):
    assert Memo(store.location).find(name) is None


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


ROW = record(1).to_bytes()
SEGMENTS = {
    "no Parquet": b"PAR1" + b"x" * 100 + b"PAR1",
    "a pickle": pickle.dumps(Planted()),
    "other columns": parquet(pa.table({"a": [1]})),
    "numbers for names": parquet(pa.table({"lineage": [1, 2], "record": [ROW, ROW]})),
    "numbers for records": parquet(pa.table({"lineage": [record(1).lineage], "record": [5]})),
    "nothing for records": parquet(pa.table({"lineage": [record(1).lineage], "record": pa.array([None], pa.binary())})),
    "no records": parquet(pa.table({"lineage": [record(1).lineage], "record": [b"x"]})),
    "names beyond ASCII": parquet(pa.table({"lineage": ["ä" * 32], "record": [ROW]})),
    "another's name": parquet(pa.table({"lineage": [record(2).lineage], "record": [ROW]})),
    "torn within": (lambda data: data[:40] + bytes(60) + data[100:])(
        parquet(pa.table({"lineage": [record(n).lineage for n in range(50)], "record": [record(n).to_bytes() for n in range(50)]}))
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SEGMENTS)
def test_a_segment_that_is_none_hides_no_record(store, what):
    store.create(f"segments/{content_digest(SEGMENTS[what])}.parquet", SEGMENTS[what])
    memo = Memo(store.location)
    assert memo.find(record(1).lineage) is None
    assert memo.commit(record(2)) == record(2)
    assert memo.commit(record(1)) == record(1)
    assert memo.compact(at_least=1) == 2
    assert Memo(store.location).find(record(2).lineage) == record(2)


@pytest.mark.parametrize(
    "anchor", [b"../../secret", b"", b"\x80\x04", b"a" * 31, b"z" * 32, b"a" * 10_000_000], ids=range(6)
)
def test_an_anchor_that_is_no_digest_leads_nowhere(store, anchor):
    ours = record(1)
    if anchor:
        store.create(f"anchors/{ours.lineage}", anchor)
    store.create("secret", b"secret")
    memo = Memo(store.location)
    assert memo.state_of(ours) is None
    memo.anchor(ours.lineage, b"state")
    assert memo.state_of(ours) == b"state"


VALUES = [{"copies": "many"}, {"copies": float("nan")}, {"copies": -1}, {"copies": None}, {}, [], "text", 5]


@pytest.mark.parametrize("values", VALUES, ids=range(len(VALUES)))
def test_a_measurement_of_odd_types_counts_as_none_though_its_digest_is_right(store, values):
    from lrstudy.memo.memo import _values_digest

    store.create("copies/x", json.dumps({"fact": values, "digest": _values_digest(values)}).encode())
    memo = Memo(store.location)
    assert memo.measurement("copies/x", "copies") is None
    memo.put_measurement("copies/x", {"copies": 3})
    assert memo.measurement("copies/x", "copies") == {"copies": 3}


def test_a_state_is_refused_by_name_and_trained_anew(store):
    data = pickle.dumps(Planted())
    memo = Memo(store.location)
    ours = memo.commit(record(1, state=memo.put_state(data)))
    assert memo.state_of(ours) == data
    memo.refuse_state(ours)
    assert memo.state_of(ours) is None
    memo.anchor(ours.lineage, b"state")
    assert memo.state_of(ours) == b"state"


def test_a_record_that_was_written_reads_as_it_was(store):
    ours = record(1, metrics={"val_loss": -1.5, "val_accuracy": np.float64(0.5).item()})
    assert Record.from_bytes(ours.to_bytes()) == ours
