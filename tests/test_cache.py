"""The decoded cache: right pixels, one entry however many build it, rebuilt when damaged, quick when warm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lrstudy.data import cache
from lrstudy.data.cache import DamagedError, load, prepare
from lrstudy.data.decoding import decode
from lrstudy.data.spec import DataSpec, ImageSpec
from lrstudy.faults import InputError

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def folder(tmp_path):
    """Two classes, four grey images of 8 x 8, all different."""
    for k in range(4):
        image(tmp_path / "data" / "ab"[k % 2] / f"{k}.png", np.full((8, 8), 10 * k, np.uint8))
    return tmp_path / "data"


def image(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return path


def entry_of(store):
    (entry,) = (path for path in store.iterdir() if not path.name.startswith("."))
    return entry


def fault(folder, store, **spec):
    with pytest.raises(InputError) as caught:
        prepare(DataSpec(f"folder:{folder}", image=ImageSpec(**spec)), store)
    assert not list(store.iterdir()), "a failed build leaves nothing behind"
    return str(caught.value)


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


def test_the_digest_names_the_content_not_the_place(folder, tmp_path):
    data = prepare(DataSpec(f"folder:{folder}"), tmp_path / "one")
    os.utime(folder / "a" / "0.png", (1, 1))
    again = prepare(DataSpec(f"folder:{folder}"), tmp_path / "one")
    assert again.digest == data.digest
    assert len(list((tmp_path / "one").iterdir())) == 2, "another modification time is another entry"
    image(folder / "a" / "0.png", np.full((8, 8), 99, np.uint8))
    assert prepare(DataSpec(f"folder:{folder}"), tmp_path / "one").digest != data.digest
    (folder / "a").rename(folder / "A")
    assert prepare(DataSpec(f"folder:{folder}"), tmp_path / "one").digest != data.digest


def test_normalisation_is_not_part_of_the_entry_but_size_and_channels_are(folder, tmp_path):
    store = tmp_path / "store"
    for spec in (
        ImageSpec(normalize="none"),
        ImageSpec(normalize="imagenet"),
        ImageSpec(size=8),
        ImageSpec(channels="rgb"),
    ):
        prepare(DataSpec(f"folder:{folder}", image=spec), store)
    assert len(list(store.iterdir())) == 3


def test_isic_is_decoded_as_pillow_does_with_given_parts(tmp_path):
    if not (SHARED / "isic_uda1").exists():
        pytest.skip("the data set isic_uda1 is not on this machine")
    spec = DataSpec(f"folder:{SHARED / 'isic_uda1'}", image=ImageSpec(size=48))
    data = prepare(spec, tmp_path)
    assert data.images.shape == (555, 3, 48, 48)
    assert np.bincount(data.part).tolist() == [416, 0, 139]
    first = min((SHARED / "isic_uda1" / "train" / "benign").iterdir())
    expected = Image.open(first).convert("RGB").resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.images[0], np.asarray(expected).transpose(2, 0, 1))
    meta = json.loads((entry_of(tmp_path) / "meta.json").read_text())
    assert meta["counts"] == {"pool": [298, 118], "validation": [0, 0], "test": [99, 40]}
    assert meta["provenance"]["source"] == spec.source


def test_a_warm_start_is_quick_and_imports_no_decoder(tmp_path):
    prepare(DataSpec("digits"), tmp_path)
    script = f"""
import sys, time
from pathlib import Path
from lrstudy.data.cache import prepare
from lrstudy.data.spec import DataSpec
start = time.perf_counter()
prepare(DataSpec("digits"), Path({str(tmp_path)!r}))
print(time.perf_counter() - start, [m for m in ("sklearn", "PIL", "pyarrow", "torch") if m in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.check_output([sys.executable, "-c", script], text=True, env=environment)
    seconds, modules = output.split(maxsplit=1)
    assert modules.strip() == "[]"
    # 0.03 s on an idle core, mostly the import of importlib.metadata; a cold build takes over 1 s
    assert float(seconds) < 0.5


@pytest.mark.parametrize(
    ("picture", "channels", "expected"),
    [
        (Image.new("RGB", (2, 2), (255, 0, 0)), 1, [76]),  # ITU-R 601: 0.299 * 255
        (Image.new("L", (2, 2), 7), 3, [7, 7, 7]),
        (Image.new("RGBA", (2, 2), (1, 2, 3, 0)), 3, [1, 2, 3]),
        (Image.new("LA", (2, 2), (9, 0)), 1, [9]),
        (Image.new("1", (2, 2), 1), 1, [255]),
        (Image.new("P", (2, 2), 0), 3, [0, 0, 0]),
        (Image.fromarray(np.full((2, 2), 65535, np.uint16)), 1, [255]),
        (Image.fromarray(np.full((2, 2), 257 * 100, np.uint16)), 3, [100, 100, 100]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_pixel_modes_become_eight_bits(tmp_path, picture, channels, expected):
    path = image(tmp_path / "x.png", picture)
    assert decode(path, channels, None, "squash")[:, 0, 0].tolist() == expected


def test_cmyk_becomes_rgb(tmp_path):
    path = image(tmp_path / "x.tif", Image.new("CMYK", (2, 2), (0, 255, 255, 0)))
    assert decode(path, 3, None, "squash")[:, 0, 0].tolist() == [255, 0, 0]


def test_images_are_turned_upright(tmp_path):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after turning 90 degrees clockwise: the top row becomes the right column
    path = image(tmp_path / "x.png", pixels, exif=exif)
    upright = decode(path, 1, None, "squash")[0]
    assert upright.shape == (8, 4)
    assert upright[:, 3].tolist() == [255] * 8
    assert not upright[:, :3].any()


@pytest.mark.parametrize(
    ("resize", "columns"),
    [("squash", [0, 0, 255, 255]), ("crop", [0, 0, 255, 255]), ("pad", [0, 0, 255, 255])],
)
def test_every_way_to_resize_gives_the_size(tmp_path, resize, columns):
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 8:] = 255
    result = decode(image(tmp_path / "x.png", pixels), 1, 4, resize)[0]
    assert result.shape == (4, 4)
    row = result[1].tolist()
    # antialiasing mixes the two columns beside the edge, symmetrically
    assert row[1] + row[2] == pytest.approx(255, abs=1)
    assert [round(row[0] / 255) * 255, round(row[3] / 255) * 255] == [columns[0], columns[3]]
    assert (result[0] == 0).all() == (resize == "pad"), "only padding adds black above"


def test_stored_channels_are_those_of_the_first_image(folder, tmp_path):
    image(folder / "b" / "colour.png", np.full((8, 8, 3), (255, 0, 0), np.uint8))
    data = prepare(DataSpec(f"folder:{folder}"), tmp_path / "store")
    assert data.images.shape == (5, 1, 8, 8)
    assert data.images[4, 0, 0, 0] == 76


def test_larger_images_go_through_threads_in_order(tmp_path):
    for k in range(70):
        image(tmp_path / "data" / "ab"[k % 2] / f"{k:02}.png", np.full((100, 100), k, np.uint8))
    data = prepare(DataSpec(f"folder:{tmp_path / 'data'}"), tmp_path / "store")
    assert data.images[:, 0, 50, 50].tolist() == [*range(0, 70, 2), *range(1, 70, 2)]
    assert data.labels.tolist() == [0] * 35 + [1] * 35


def test_images_that_do_not_decode_are_counted_and_five_are_named(folder, tmp_path):
    for k in range(7):
        (folder / "a" / f"bad{k}.png").write_bytes(b"" if k == 0 else b"no picture")
    message = fault(folder, tmp_path / "store")
    assert "data: 7 of 11 images cannot be decoded: a/bad0.png (not an image), a/bad1.png" in message
    assert message.endswith("a/bad4.png (not an image) and 2 more.")


def test_a_truncated_image_is_not_filled_up_quietly(folder, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    whole = image(folder / "a" / "cut.png", noise).read_bytes()
    (folder / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "1 of 5 images cannot be decoded: a/cut.png (" in fault(folder, tmp_path / "store")


def test_a_file_that_may_not_be_read_is_named(folder, tmp_path, monkeypatch):
    real = Image.open

    def guarded(file, *rest):
        if str(file).endswith("2.png"):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *rest)

    monkeypatch.setattr("lrstudy.data.decoding.Image.open", guarded)
    assert "1 of 4 images cannot be decoded: a/2.png (Permission denied)." in fault(folder, tmp_path / "s")


def test_images_of_several_sizes_need_a_size(folder, tmp_path):
    image(folder / "a" / "wide.png", np.zeros((8, 9), np.uint8))
    message = fault(folder, tmp_path / "store")
    assert message == (
        "data: images are stored in 2 sizes (8 x 8 (4), 9 x 8 (1)); set image.size to give all the same."
    )
    assert prepare(DataSpec(f"folder:{folder}", image=ImageSpec(size=6)), tmp_path / "store").size == 6


def test_images_that_are_not_square_need_a_size(tmp_path):
    for name in ("a/1.png", "b/1.png"):
        image(tmp_path / "data" / name, np.zeros((6, 8), np.uint8))
    assert "images are not square but 8 x 6 (2); set image.size" in fault(tmp_path / "data", tmp_path / "s")


def test_one_class_is_not_enough(tmp_path):
    image(tmp_path / "data" / "only" / "1.png", np.zeros((8, 8), np.uint8))
    message = fault(tmp_path / "data", tmp_path / "store")
    assert message == "data: the source has the single class 'only'; expected at least two classes."


def test_a_cache_that_cannot_be_written_says_so(folder, tmp_path):
    (tmp_path / "store").write_text("a file in the way")
    with pytest.raises(InputError, match=r"the cache folder .*store cannot be written"):
        prepare(DataSpec(f"folder:{folder}"), tmp_path / "store")


def test_builders_at_once_leave_one_entry_and_agree(folder, tmp_path, monkeypatch):
    spec, real = DataSpec(f"folder:{folder}"), cache._write_meta

    def slow(*arguments):
        time.sleep(0.1)  # so that all are building before the first is done
        real(*arguments)

    monkeypatch.setattr(cache, "_write_meta", slow)
    with ThreadPoolExecutor(4) as pool:
        sets = list(pool.map(lambda _: prepare(spec, tmp_path / "store"), range(4)))
    assert len({data.digest for data in sets}) == 1
    assert [path.name for path in (tmp_path / "store").iterdir()] == [entry_of(tmp_path / "store").name]


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "part.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_an_incomplete_entry_is_rebuilt(folder, tmp_path, name, damage):
    spec, store = DataSpec(f"folder:{folder}"), tmp_path / "store"
    digest = prepare(spec, store).digest
    file = entry_of(store) / name
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamagedError):
        load(entry_of(store))
    data = prepare(spec, store)
    assert data.digest == digest
    assert data.images[:, 0, 0, 0].tolist() == [0, 20, 10, 30]
    assert len(list(store.iterdir())) == 1


@pytest.mark.parametrize(("name", "verify"), [("labels.npy", False), ("part.npy", False), ("images.npy", True)])
def test_a_flipped_byte_is_found(folder, tmp_path, name, verify):
    spec, store = DataSpec(f"folder:{folder}"), tmp_path / "store"
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


def test_a_changed_class_name_in_meta_is_found(folder, tmp_path):
    prepare(DataSpec(f"folder:{folder}"), tmp_path / "store")
    meta = entry_of(tmp_path / "store") / "meta.json"
    meta.write_text(meta.read_text().replace('"a"', '"c"'))
    with pytest.raises(DamagedError, match="recorded digest"):
        load(meta.parent)


def test_what_a_killed_build_left_is_removed_a_day_later(folder, tmp_path):
    store = tmp_path / "store"
    prepare(DataSpec(f"folder:{folder}"), store)
    entry = entry_of(store)
    old, new = store / f".{entry.name}.old", store / f".{entry.name}.new"
    for left in (old, new):
        left.mkdir()
    os.utime(old, (0, 0))
    (entry / "meta.json").unlink()
    prepare(DataSpec(f"folder:{folder}"), store)
    assert not old.exists()
    assert new.exists()
