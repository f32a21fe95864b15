"""Images from memory, from a mapped file and read ahead are the same; a set larger than memory is trained on in flat memory."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lrstudy.data import reading
from lrstudy.data.reading import Mapped, Resident, place

CPU = torch.device("cpu")
N = 50


@pytest.fixture
def mapped(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (N, 3, 5, 5), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


@pytest.mark.parametrize("order", [None, torch.randperm(40, generator=torch.Generator().manual_seed(1))])
@pytest.mark.parametrize("batch", [1, 7, 40])
def test_batches_are_the_same_wherever_they_are_read(mapped, order, batch):
    rows = np.random.default_rng(1).permutation(N)[:40]
    bounds = [(start, min(start + batch, 40)) for start in range(0, 40, batch)]
    expected = np.array(mapped[rows] if order is None else mapped[rows][order.numpy()])
    for images in (
        Resident(torch.from_numpy(np.array(mapped[rows]))),
        Mapped(mapped, torch.from_numpy(rows), CPU, reads_ahead=False),
        Mapped(mapped, torch.from_numpy(rows), CPU, reads_ahead=True),
    ):
        assert images.shape == (40, 3, 5, 5)
        got = list(images.batches(order, bounds))
        assert [len(piece) for piece in got] == [stop - start for start, stop in bounds]
        np.testing.assert_array_equal(torch.cat(got).numpy(), expected)


def test_a_file_is_mapped_an_array_is_copied_and_a_large_file_is_read_ahead(mapped, monkeypatch):
    index = np.arange(10)
    assert isinstance(place(np.array(mapped), index, CPU), Resident)
    small = place(mapped, index, CPU)
    assert isinstance(small, Mapped)
    assert not small.reads_ahead
    monkeypatch.setattr(reading, "memory_bytes", lambda: 2 * mapped.nbytes - 1)
    large = place(mapped, index, CPU)
    assert isinstance(large, Mapped)
    assert large.reads_ahead


def test_a_gpu_keeps_the_images_that_leave_room_for_the_model(mapped, monkeypatch):
    properties = SimpleNamespace(total_memory=1000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    gpu = torch.device("cuda")
    assert reading.fits(400, gpu, 1.0)
    assert not reading.fits(401, gpu, 1.0)
    assert not reading.fits(201, gpu, 0.5), "half of a GPU"
    assert reading.fits(10**9, CPU, 1.0), "a CPU maps them"
    streamed = place(mapped, np.arange(10), gpu, is_resident=False)
    assert isinstance(streamed, Mapped)
    assert streamed.reads_ahead


def test_reading_ahead_stops_with_whoever_reads(mapped):
    before = threading.active_count()
    batches = Mapped(mapped, torch.arange(N), CPU, reads_ahead=True).batches(None, [(k, k + 1) for k in range(N)])
    next(batches)
    assert threading.active_count() > before
    del batches
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.slow
def test_an_epoch_on_a_set_larger_than_the_memory_allowed_stays_flat(tmp_path):
    """The process may allocate 0.25 GB beyond what it has once torch is loaded, by the system's word; the set has 1 GB."""
    script = f"""
    import faulthandler, resource, numpy as np, torch
    from lrstudy.models.build import Model, sections
    from lrstudy.data import reading
    from lrstudy.data.batches import part_of
    from lrstudy.workload.numerics import NumericsSpec
    from lrstudy.settings import Recipe, Settings
    from lrstudy.training.epoch import evaluate, train_epoch
    from lrstudy.training.state import State

    def allocated(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) * 1024

    torch.set_num_threads(1)
    count, side = 1300, 512
    path = {str(tmp_path / "images.npy")!r}
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 3, side, side))  # sparse: zeros take no disk
    images[::97] = 7
    del images
    images = np.load(path, mmap_mode="r")
    assert images.nbytes > 1e9
    labels = np.arange(count) % 2
    reading.memory_bytes = lambda: 10**9
    cpu = torch.device("cpu")
    model = torch.nn.Sequential(torch.nn.AvgPool2d(64), torch.nn.Flatten(), torch.nn.Linear(192, 2))
    state = State.of(Model(model, sections(model), {{}}), cpu, NumericsSpec(eval_batch=8))
    settings = lambda n: Settings(np.full((-(-n // 8), 3), 0.1), np.array(0.9), 8, Recipe())
    def epoch(n):
        part = part_of(images, labels, np.arange(n), cpu, ((0.5,) * 3, (0.5,) * 3))
        assert part.images.reads_ahead
        train_epoch(state, settings(n), part, 0, 0)
        evaluate(state, part, "binary")
    epoch(80)
    faulthandler.dump_traceback_later(60, exit=True)
    limit = allocated() + 250_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    epoch(count)
    try:
        np.array(images)
    except MemoryError:
        print("too large for memory, trained all the same")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout.strip() == "too large for memory, trained all the same", done.stderr
