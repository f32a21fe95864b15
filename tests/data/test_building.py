"""Building a cache entry: one builder however many want it, taken up after a kill, full disks said."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from image_files import entries, entry_of, fault, image
from lrstudy.data import building, decoding, image_file
from lrstudy.data.cache import prepare
from lrstudy.data.image_file import ImageFile
from lrstudy.data.spec import DataSpec
from lrstudy.errors import InputError, StorageError


def test_one_class_is_not_enough(tmp_path):
    image(tmp_path / "data" / "only" / "1.png", np.zeros((8, 8), np.uint8))
    message = fault(tmp_path / "data", tmp_path / "store")
    assert message == "data: the source has the single class 'only'; expected at least two classes."


def test_a_cache_that_cannot_be_written_says_so(image_folder, tmp_path):
    (tmp_path / "store").write_text("a file in the way")
    with pytest.raises(InputError, match=r"the cache folder .*store cannot be written"):
        prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "store")


def test_of_builders_at_once_one_builds_and_all_agree(image_folder, tmp_path, monkeypatch):
    spec, real, built = DataSpec(f"folder:{image_folder}"), building.build, []

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


def test_what_a_killed_build_left_is_removed_a_week_later(image_folder, tmp_path):
    left = tmp_path / "store" / ".building"
    for name in ("old", "new"):
        (left / name).mkdir(parents=True)
    os.utime(left / "old", (0, 0))
    prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "store")
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
    monkeypatch.setattr(decoding, "_IMAGES_PER_TASK", 1)
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
        ["images.npy", "labels.npy", "part.npy", "group.npy", "meta.json", "sources.json"]
    )


def test_a_build_is_taken_up_only_if_the_source_still_gives_as_many_images(tmp_path):
    file = ImageFile(tmp_path, 3)
    file.append(np.ones((1, 2, 2), np.uint8))
    file.close()
    again = ImageFile(tmp_path, 3)
    assert (again.written, again.shape) == (1, (1, 2, 2))
    again.close()
    assert ImageFile(tmp_path, 4).written == 0


def test_a_set_that_will_not_fit_the_disk_is_refused_before_it_is_decoded(image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(image_file.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(StorageError) as caught:
        prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "store")
    assert str(caught.value).startswith(
        f"storage.path: cannot keep the decoded data in {tmp_path / 'store'}: it takes 2.56e-07 GB"
    )
    assert "(4 images of 1 x 8 x 8 bytes), and 1e-07 GB are free" in str(caught.value)


def test_a_disk_that_fills_up_is_one_paragraph_and_the_next_run_goes_on(image_folder, tmp_path, monkeypatch):
    real = ImageFile.append

    def full(self, pixels):
        if self.written == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, pixels)

    monkeypatch.setattr(ImageFile, "append", full)
    with pytest.raises(StorageError, match=r"decoded data in .*store: No space left on device\. What is decoded stays"):
        prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "store")
    monkeypatch.undo()
    assert prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "store").images[:, 0, 0, 0].tolist() == [
        0,
        20,
        10,
        30,
    ]


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
image_file.BLOCK_BYTES, decoding._IMAGES_PER_TASK, real, decoded = 1, 1, decoding.decode, []
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


def test_what_pyarrow_cannot_read_is_the_data_s_fault_and_a_failing_machine_is_not(image_folder, tmp_path, monkeypatch):
    """pyarrow raises OSError without a number for damaged pages; the system's own have one."""
    spec = DataSpec(f"folder:{image_folder}")

    def failing(error):
        def append(self, pixels):
            raise error

        return append

    monkeypatch.setattr(ImageFile, "append", failing(OSError("Corrupt snappy compressed data.")))
    with pytest.raises(InputError) as caught:
        prepare(spec, tmp_path / "store")
    assert str(caught.value) == (
        f"data: folder:{image_folder} cannot be read (OSError: Corrupt snappy compressed data.)."
    )
    monkeypatch.setattr(ImageFile, "append", failing(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"):
        prepare(spec, tmp_path / "store")


@pytest.mark.parametrize("moment", ["_sum.update", "_file.write"])
def test_an_interrupt_in_the_middle_of_an_image_costs_its_block_and_nothing_else(tmp_path, moment):
    """Counted too late, the image was written a second time: all later ones stood one place off their labels."""
    images = [np.full((1, 2, 2), k, np.uint8) for k in range(5)]

    class Interrupting:
        def __init__(self, real):
            self.real, self.left = real, 3  # the header and one image go through

        def __getattr__(self, name):
            if name != moment.partition(".")[2]:
                return getattr(self.real, name)

            def interrupted(content):
                done = getattr(self.real, name)(content)
                self.left -= 1
                if not self.left:
                    raise KeyboardInterrupt
                return done

            return interrupted

    file = ImageFile(tmp_path, 5)
    attribute = moment.partition(".")[0]
    setattr(file, attribute, Interrupting(getattr(file, attribute)))

    def write(into, some):
        for pixels in some:
            into.append(pixels)

    with pytest.raises(KeyboardInterrupt):
        write(file, images)
    file.close()
    again = ImageFile(tmp_path, 5)
    write(again, images[again.written :])
    again.close()
    assert np.load(tmp_path / "images.npy")[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_block_that_does_not_hold_as_many_images_as_it_says_is_not_believed(tmp_path):
    file = ImageFile(tmp_path, 5)
    for k in range(3):
        file.append(np.full((1, 2, 2), k, np.uint8))
    file.close()
    progress = tmp_path / "progress.jsonl"
    progress.write_text(progress.read_text().replace('"images": 3', '"images": 2'))
    assert ImageFile(tmp_path, 5).written == 0
