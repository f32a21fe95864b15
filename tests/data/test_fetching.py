"""Decoded data in a bucket: put there by one node, fetched once by every other one, without the source."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lrstudy.data import fetching
from lrstudy.data.cache import DamagedError, opened, prepare
from lrstudy.data.spec import DataSpec, ImageSpec
from lrstudy.storage.bucket import Bucket


@pytest.fixture
def origin(s3) -> str:
    return f"{s3}/runs/memo/data"


@pytest.fixture
def decoded(origin, image_folder, tmp_path):
    """A data set as the driver's node decoded it, and its spec."""
    spec = DataSpec(f"folder:{image_folder}", image=ImageSpec(size=8))
    return prepare(spec, tmp_path / "driver", origin=origin), spec


def names(bucket: Bucket) -> set[str]:
    return {item.path for item in bucket.listing()}


def test_another_node_opens_the_data_by_its_key_without_the_source(decoded, origin, image_folder, tmp_path):
    data, _ = decoded
    shutil.rmtree(image_folder)
    there = opened(tmp_path / "worker", data.key, origin)
    assert there.digest == data.digest
    assert np.array_equal(there.images, data.images)
    assert isinstance(there.images, np.memmap)
    assert there.sources_of(np.arange(4)) == data.sources_of(np.arange(4))
    shutil.rmtree(tmp_path / "driver")
    assert opened(tmp_path / "worker", data.key).digest == data.digest, "the bucket is asked once"


def test_another_driver_fetches_what_is_decoded_already(decoded, origin, tmp_path):
    data, spec = decoded
    begun = []
    again = prepare(spec, tmp_path / "other", origin=origin, before_decoding=lambda: begun.append(1))
    assert (again.digest, again.key) == (data.digest, data.key)


OPEN = """
import sys
from pathlib import Path
from lrstudy.data import fetching
from lrstudy.data.cache import opened
fetch = fetching.fetch
fetching.fetch = lambda *arguments: print("fetched", flush=True) or fetch(*arguments)
print(opened(Path(sys.argv[1]), sys.argv[2], sys.argv[3]).digest)
"""


@pytest.mark.slow
def test_of_many_workers_on_a_node_one_fetches_and_the_others_wait(decoded, origin, tmp_path):
    data, _ = decoded
    arguments = [sys.executable, "-c", OPEN, str(tmp_path / "worker"), data.key, origin]
    workers = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        said = " ".join(worker.communicate(timeout=120)[0] for worker in workers).split()
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert said.count("fetched") == 1
    assert said.count(data.digest) == 4


def test_an_entry_without_its_meta_is_not_there(decoded, origin, tmp_path):
    """As after a driver that was killed while it put the files."""
    data, spec = decoded
    fetching.withdraw(origin, data.key)
    with pytest.raises(DamagedError, match="has no whole entry"):
        opened(tmp_path / "worker", data.key, origin)
    assert not (tmp_path / "worker" / data.key).exists()
    prepare(spec, tmp_path / "driver", origin=origin)
    assert opened(tmp_path / "worker", data.key, origin).digest == data.digest


def test_a_node_that_was_killed_while_it_fetched_begins_anew(decoded, origin, tmp_path):
    data, _ = decoded
    left = tmp_path / "worker" / ".building" / data.key
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"half")
    (left / "stranger").write_bytes(b"x")
    assert opened(tmp_path / "worker", data.key, origin).digest == data.digest
    assert not (tmp_path / "worker" / data.key / "stranger").exists()


def npy(array: np.ndarray, **options) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, **options)
    return sink.getvalue()


def pickled() -> bytes:
    """An array of objects: reading it as numpy does by default would run what is in it."""
    return npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)


HOSTILE = {
    "images pickled": ("images.npy", lambda data: pickled()),
    "labels pickled": ("labels.npy", lambda data: pickled()),
    "images flipped": ("images.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "images short": ("images.npy", lambda data: data[:200]),
    "header of a huge array": (
        "images.npy",
        lambda data: data.replace(b"(4, 1, 8, 8)", b"(9" + b"9" * 6 + b",8,8)"[:4]),
    ),
    "no numpy at all": ("part.npy", lambda data: b"x" * len(data)),
    "meta no JSON": ("meta.json", lambda data: b"\x80\x04"),
    "meta a list": ("meta.json", lambda data: b"[]"),
    "meta nested": ("meta.json", lambda data: b"[" * 100_000),
    "meta of odd types": ("meta.json", lambda data: json.dumps({"files": {"images": 5}}).encode()),
    "times beyond reach": (
        "meta.json",
        lambda data: data.replace(b'"modified_ns": 1', b'"modified_ns": 9' + b"9" * 30),
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_entry_that_is_not_what_its_digests_say_counts_as_not_there(decoded, origin, tmp_path, what, caplog):
    data, spec = decoded
    name, change = HOSTILE[what]
    bucket = Bucket(f"{origin}/{data.key}")
    bucket.put(name, change(bucket.get(name)))
    with pytest.raises(DamagedError, match="has no whole entry"):
        opened(tmp_path / "worker", data.key, origin)
    assert not (tmp_path / "worker" / data.key).exists()
    again = prepare(spec, tmp_path / "other", origin=origin)
    assert again.digest == data.digest, "decoded from the source, and put there anew"
    assert opened(tmp_path / "worker", data.key, origin).digest == data.digest


def test_digests_that_fit_labels_beyond_the_classes_are_not_enough(decoded, origin, tmp_path):
    data, _ = decoded
    entry = tmp_path / "driver" / data.key
    from lrstudy.data import cache

    np.save(entry / "labels.npy", np.array([0, 1, 0, 7], dtype="<i8"))
    meta = json.loads((entry / "meta.json").read_bytes())
    meta["files"]["labels"]["checksum"] = cache._checksum(np.load(entry / "labels.npy"))
    meta["digest"] = cache._digest(meta["classes"], [meta["files"][name]["checksum"] for name in cache._NAMED])
    bucket = Bucket(f"{origin}/{data.key}")
    bucket.put("labels.npy", (entry / "labels.npy").read_bytes())
    bucket.put("meta.json", json.dumps(meta).encode())
    with pytest.raises(DamagedError, match="has no whole entry"):
        opened(tmp_path / "worker", data.key, origin)


def test_objects_of_other_names_are_not_fetched(decoded, origin, tmp_path):
    data, _ = decoded
    Bucket(f"{origin}/{data.key}").put("sitecustomize.py", b"evil")
    opened(tmp_path / "worker", data.key, origin)
    assert not (tmp_path / "worker" / data.key / "sitecustomize.py").exists()
    assert names(Bucket(f"{origin}/{data.key}")) >= {"meta.json", "images.npy"}
