"""The decoded cache: one entry for the same content, rebuilt when damaged, quick when warm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from image_files import entries, entry_of, image
from lrstudy.data import cache
from lrstudy.data.cache import DamagedError, load, prepare
from lrstudy.data.spec import DataSpec, ImageSpec
from lrstudy.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_digits_are_prepared_as_scikit_learn_stores_them(tmp_path):
    from sklearn.datasets import load_digits

    data = prepare(DataSpec("digits"), tmp_path)
    digits = load_digits()
    assert data.images.shape == (1797, 1, 8, 8)
    assert (data.channels, data.size, data.classes) == (1, 8, tuple("0123456789"))
    np.testing.assert_array_equal(data.labels, digits.target)
    np.testing.assert_array_equal(data.images[:, 0], np.rint(digits.images * 255 / 16))
    assert data.labels.dtype == np.int64
    assert data.part.dtype == np.uint8
    assert not data.part.any()
    assert isinstance(data.images, np.memmap)
    assert not data.images.flags.writeable
    assert not data.labels.flags.writeable


def test_the_digest_names_the_content_not_the_place(image_folder, tmp_path):
    data = prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "one")
    os.utime(image_folder / "a" / "0.png", (1, 1))
    again = prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "one")
    assert again.digest == data.digest
    assert len(entries(tmp_path / "one")) == 2, "another modification time is another entry"
    image(image_folder / "a" / "0.png", np.full((8, 8), 99, np.uint8))
    assert prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "one").digest != data.digest
    (image_folder / "a").rename(image_folder / "A")
    assert prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "one").digest != data.digest


def test_normalisation_is_not_part_of_the_entry_but_size_and_channels_are(image_folder, tmp_path):
    store = tmp_path / "store"
    for spec in (
        ImageSpec(normalize="none"),
        ImageSpec(normalize="imagenet"),
        ImageSpec(size=8),
        ImageSpec(channels="rgb"),
    ):
        prepare(DataSpec(f"folder:{image_folder}", image=spec), store)
    assert len(entries(store)) == 3


def test_what_is_to_happen_before_decoding_happens_when_there_is_something_to_decode(image_folder, tmp_path):
    called = []
    for _ in range(2):
        prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "store", before_decoding=lambda: called.append(1))
    assert called == [1]


def test_a_warm_start_imports_no_decoder(tmp_path):
    prepare(DataSpec("digits"), tmp_path)
    script = f"""
import sys
from pathlib import Path
from lrstudy.data.cache import prepare
from lrstudy.data.spec import DataSpec
prepare(DataSpec("digits"), Path({str(tmp_path)!r}))
print([m for m in ("sklearn", "PIL", "pyarrow", "torch") if m in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.check_output([sys.executable, "-c", script], text=True, env=environment)
    assert output.strip() == "[]"


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "part.npy", "meta.json", "sources.json"])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_an_incomplete_entry_is_rebuilt(image_folder, tmp_path, name, damage):
    spec, store = DataSpec(f"folder:{image_folder}"), tmp_path / "store"
    digest = prepare(spec, store).digest
    file = entry_of(store) / name
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamagedError):
        load(entry_of(store))
    data = prepare(spec, store)
    assert data.digest == digest
    assert data.images[:, 0, 0, 0].tolist() == [0, 20, 10, 30]
    assert len(entries(store)) == 1


@pytest.mark.parametrize(("name", "verify"), [("labels.npy", False), ("part.npy", False), ("images.npy", True)])
def test_a_flipped_byte_is_found(image_folder, tmp_path, name, verify):
    spec, store = DataSpec(f"folder:{image_folder}"), tmp_path / "store"
    digest = prepare(spec, store).digest
    file = entry_of(store) / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedError, match="does not have the recorded digest"):
        load(entry_of(store), verify=verify)
    data = prepare(spec, store, verify=verify)
    assert data.digest == digest
    assert load(entry_of(store), verify=True).digest == digest


def test_a_changed_class_name_in_meta_is_found(image_folder, tmp_path):
    prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "store")
    meta = entry_of(tmp_path / "store") / "meta.json"
    meta.write_text(meta.read_text().replace('"a"', '"c"'))
    with pytest.raises(DamagedError, match="recorded digest"):
        load(meta.parent)


def test_pixels_are_read_again_only_after_the_file_was_touched(image_folder, tmp_path, monkeypatch):
    spec, store = DataSpec(f"folder:{image_folder}"), tmp_path / "store"
    prepare(spec, store)
    file, real, read = entry_of(store) / "images.npy", cache._checksum, []

    def noted(array):
        read.append(array.ndim)
        return real(array)

    monkeypatch.setattr(cache, "_checksum", noted)
    prepare(spec, store)
    assert 4 not in read, "untouched"
    os.utime(file)
    prepare(spec, store)
    assert 4 in read, "touched: read"
    read.clear()
    prepare(spec, store)
    assert 4 not in read, "and found whole: not again"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert prepare(spec, store).images[:, 0, 0, 0].tolist() == [0, 20, 10, 30], "touched and damaged: decoded anew"


@pytest.fixture
def read_only(tmp_path):
    """A function that makes a store read-only, by a mount: permissions do not hold for root."""
    mounted = []

    def mount(store):
        for options in (["--bind", store, store], ["-o", "remount,ro,bind", store]):
            if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
                pytest.skip("mounting a file system is not permitted here")
            mounted.append(store)

    yield mount
    for store in set(mounted):
        subprocess.run(["umount", "--lazy", store], check=True)


def test_a_read_only_cache_serves_what_it_has_and_says_what_it_cannot_do(image_folder, tmp_path, read_only):
    spec, store = DataSpec(f"folder:{image_folder}"), tmp_path / "store"
    digest = prepare(spec, store).digest
    labels = entry_of(store) / "labels.npy"
    read_only(store)
    assert prepare(spec, store, verify=True).digest == digest
    with pytest.raises(InputError) as caught:
        prepare(DataSpec(f"folder:{image_folder}", image=ImageSpec(size=4)), store)
    assert str(caught.value) == (
        f"data: it is to be decoded, but the cache folder {store} cannot be written (Read-only file system)."
    )
    subprocess.run(["mount", "-o", "remount,rw,bind", store], check=True)
    labels.write_bytes(labels.read_bytes()[:-1])
    subprocess.run(["mount", "-o", "remount,ro,bind", store], check=True)
    with pytest.raises(InputError, match=r"is damaged \(.*labels.npy has .* bytes, not .*Read-only file system"):
        prepare(spec, store)


def without_names(entry: Path) -> None:
    """Make an entry one of the version before, which did not keep the files of examples."""
    meta = json.loads((entry / "meta.json").read_bytes())
    del meta["files"]["sources.json"]
    (entry / "meta.json").write_text(json.dumps(meta))
    (entry / "sources.json").unlink()


def test_an_entry_knows_the_file_of_each_example_and_one_of_an_earlier_version_need_not(image_folder, tmp_path):
    spec, store = DataSpec(f"folder:{image_folder}"), tmp_path / "store"
    data = prepare(spec, store)
    assert data.sources_of(np.array([3, 0])) == ["b/3.png", "a/0.png"]
    (entry,) = entries(store)
    without_names(entry)
    before = (entry / "images.npy").stat().st_mtime_ns
    again = prepare(spec, store)
    assert again.sources_of(np.array([3, 0])) is None
    assert again.digest == data.digest
    assert (entry / "images.npy").stat().st_mtime_ns == before, "it was not decoded anew"
