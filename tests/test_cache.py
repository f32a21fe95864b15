"""The decoded cache: right pixels, one entry however many build it, rebuilt when damaged, quick when warm."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lrstudy.data import building, cache, decoding, image_file
from lrstudy.data.cache import DamagedError, load, prepare
from lrstudy.data.decoding import decode
from lrstudy.data.image_file import ImageFile
from lrstudy.data.spec import DataSpec, ImageSpec
from lrstudy.faults import InputError, StorageError

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


def entries(store):
    """What a store holds, unfinished builds included, locks aside."""
    return [path for path in (*store.glob("[!.]*"), *store.glob(".building/*")) if path.suffix != ".lock"]


def entry_of(store):
    (entry,) = entries(store)
    return entry


def fault(folder, store, **spec):
    with pytest.raises(InputError) as caught:
        prepare(DataSpec(f"folder:{folder}", image=ImageSpec(**spec)), store)
    assert not entries(store), "a failed build leaves nothing behind"
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
    assert len(entries(tmp_path / "one")) == 2, "another modification time is another entry"
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
    assert len(entries(store)) == 3


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


def test_of_builders_at_once_one_builds_and_all_agree(folder, tmp_path, monkeypatch):
    spec, real, built = DataSpec(f"folder:{folder}"), building.build, []

    def slow(*arguments):
        time.sleep(0.1)  # so that all want to build before the first is done
        built.append(arguments)
        real(*arguments)

    monkeypatch.setattr(building, "build", slow)
    with ThreadPoolExecutor(4) as pool:
        sets = list(pool.map(lambda _: prepare(spec, tmp_path / "store"), range(4)))
    assert len({data.digest for data in sets}) == 1
    assert len(built) == 1, "one builds, the others wait for it"
    assert entry_of(tmp_path / "store")


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
    assert len(entries(store)) == 1


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


def test_what_a_killed_build_left_is_removed_a_week_later(folder, tmp_path):
    left = tmp_path / "store" / ".building"
    for name in ("old", "new"):
        (left / name).mkdir(parents=True)
    os.utime(left / "old", (0, 0))
    prepare(DataSpec(f"folder:{folder}"), tmp_path / "store")
    assert not (left / "old").exists()
    assert (left / "new").exists()


@pytest.mark.parametrize("left", ["whole", "torn block", "torn line", "other block"])
def test_a_killed_build_goes_on_where_its_last_block_ended(tmp_path, monkeypatch, left):
    """With one image to a block, the third image kills; then the file's end or the log's may be torn too."""
    for k in range(6):
        image(tmp_path / "data" / "ab"[k % 2] / f"{k}.png", np.full((8, 8, 3), 10 * k, np.uint8))
    spec, store = DataSpec(f"folder:{tmp_path / 'data'}"), tmp_path / "store"
    expected = prepare(spec, tmp_path / "undisturbed").digest
    monkeypatch.setattr(image_file, "BLOCK_BYTES", 8 * 8 * 3)
    monkeypatch.setattr(decoding, "_TASK", 1)
    real, asked = decoding.decode, []

    def kills(encoded, *rest):
        asked.append(encoded.name)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return real(encoded, *rest)

    monkeypatch.setattr(decoding, "decode", kills)
    with pytest.raises(KeyboardInterrupt):
        prepare(spec, store)
    (building,) = entries(store)
    pixels, progress = building / "images.npy", building / "progress.jsonl"
    content = pixels.read_bytes()
    if left == "torn block":
        pixels.write_bytes(content[:-1])
    elif left == "torn line":
        progress.write_bytes(progress.read_bytes()[:-3])
    elif left == "other block":
        pixels.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert len(progress.read_text().splitlines()) == 3
    done = 3 if left == "whole" else 2
    before = list(asked)
    assert prepare(spec, store).digest == expected
    assert len(asked) - len(before) == 6 - done, "what had reached the disk is not decoded again"
    assert sorted(path.name for path in entry_of(store).iterdir()) == sorted(
        ["images.npy", "labels.npy", "part.npy", "group.npy", "meta.json"]
    )


def test_a_build_is_taken_up_only_if_the_source_still_gives_as_many_images(tmp_path):
    file = ImageFile(tmp_path, 3)
    file.append(np.ones((1, 2, 2), np.uint8))
    file.close()
    again = ImageFile(tmp_path, 3)
    assert (again.written, again.shape) == (1, (1, 2, 2))
    again.close()
    assert ImageFile(tmp_path, 4).written == 0


def test_a_set_that_will_not_fit_the_disk_is_refused_before_it_is_decoded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(image_file.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(StorageError) as caught:
        prepare(DataSpec(f"folder:{folder}"), tmp_path / "store")
    assert str(caught.value).startswith(
        f"storage.path: cannot keep the decoded data in {tmp_path / 'store'}: it takes 2.56e-07 GB"
    )
    assert "(4 images of 1 x 8 x 8 bytes), and 1e-07 GB are free" in str(caught.value)


def test_a_disk_that_fills_up_is_one_paragraph_and_the_next_run_goes_on(folder, tmp_path, monkeypatch):
    real = ImageFile.append

    def full(self, pixels):
        if self.written == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, pixels)

    monkeypatch.setattr(ImageFile, "append", full)
    with pytest.raises(StorageError, match=r"decoded data in .*store: No space left on device\. What is decoded stays"):
        prepare(DataSpec(f"folder:{folder}"), tmp_path / "store")
    monkeypatch.undo()
    assert prepare(DataSpec(f"folder:{folder}"), tmp_path / "store").images[:, 0, 0, 0].tolist() == [0, 20, 10, 30]


def test_pixels_are_read_again_only_after_the_file_was_touched(folder, tmp_path, monkeypatch):
    spec, store = DataSpec(f"folder:{folder}"), tmp_path / "store"
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


def test_a_read_only_cache_serves_what_it_has_and_says_what_it_cannot_do(folder, tmp_path, read_only):
    spec, store = DataSpec(f"folder:{folder}"), tmp_path / "store"
    digest = prepare(spec, store).digest
    labels = entry_of(store) / "labels.npy"
    read_only(store)
    assert prepare(spec, store, verify=True).digest == digest
    with pytest.raises(InputError) as caught:
        prepare(DataSpec(f"folder:{folder}", image=ImageSpec(size=4)), store)
    assert str(caught.value) == (
        f"data: it is to be decoded, but the cache folder {store} cannot be written (Read-only file system)."
    )
    subprocess.run(["mount", "-o", "remount,rw,bind", store], check=True)
    labels.write_bytes(labels.read_bytes()[:-1])
    subprocess.run(["mount", "-o", "remount,ro,bind", store], check=True)
    with pytest.raises(InputError, match=r"is damaged \(.*labels.npy has .* bytes, not .*Read-only file system"):
        prepare(spec, store)


@pytest.mark.slow
def test_who_waits_for_a_build_takes_it_up_when_the_builder_is_killed(tmp_path):
    for k in range(12):
        image(tmp_path / "data" / "ab"[k % 2] / f"{k:02}.png", np.full((8, 8, 3), 10 * k, np.uint8))
    store, spec = tmp_path / "store", DataSpec(f"folder:{tmp_path / 'data'}")
    script = f"""
import logging, sys, time
from pathlib import Path
from lrstudy.data import decoding, image_file
from lrstudy.data.cache import prepare
from lrstudy.data.spec import DataSpec
logging.basicConfig(level=logging.INFO)
image_file.BLOCK_BYTES, decoding._TASK, real, decoded = 1, 1, decoding.decode, []
def slow(encoded, *rest):
    decoded.append(encoded)
    while sys.argv[1] == "first" and len(decoded) > 5:
        time.sleep(1)
    return real(encoded, *rest)
decoding.decode = slow
print(prepare(DataSpec({spec.source!r}), Path({str(store)!r})).digest, len(decoded))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(name):
        return subprocess.Popen(
            [sys.executable, "-c", script, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    first = second = None
    try:
        first = start("first")
        progress = store / ".building"
        until(lambda: any(len(p.read_text().splitlines()) == 5 for p in progress.glob("*/progress.jsonl")))
        second = start("second")
        assert "Another process is decoding this data; waiting for it." in second.stderr.readline()
        first.kill()
        said, rest = second.communicate(timeout=60)
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.communicate()
    digest, decoded = said.split()
    assert "Decoding goes on at image 5 of 12." in rest
    assert int(decoded) == 7
    assert digest == prepare(spec, tmp_path / "undisturbed").digest


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
