"""A trial that does not fit learns how much it needed; the texts of torch are real ones."""

from __future__ import annotations

import pytest
import torch

from lrstudy.training import device_memory
from lrstudy.training.device_memory import is_shortage, require_room, shortage
from lrstudy.training.sharing import allowed_bytes, trials_per_gpu

GIB = 2**30
OF_CUDA = (
    "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1.12 GiB is free. "
    "Including non-PyTorch memory, this process has 14.65 GiB memory in use."
)


def test_a_share_that_does_not_fit_says_how_much_was_needed_and_given():
    assert shortage(OF_CUDA, 3 * GIB, 3.2 * GIB, 0.25) == (
        "out of memory: it needed at least 4.50 GiB (3.00 GiB held, 1.50 GiB more asked for), and resources.gpu: 0.25 of this "
        "GPU gives a trial 3.20 GiB. Ways out: a larger resources.gpu, a smaller batch_size or image.size, micro_batch (the "
        "same update in pieces), or numerics.precision: bf16."
    )
    assert "a whole GPU has 15.77 GiB. Ways out: a smaller batch_size" in shortage(OF_CUDA, 3 * GIB, 15.77 * GIB, 1)
    assert "20.00 MiB" not in shortage("Tried to allocate 20.00 MiB.", GIB, GIB, 1)
    assert "1.02 GiB (1.00 GiB held, 0.02 GiB more" in shortage("Tried to allocate 20.00 MiB.", GIB, GIB, 1)


def test_the_shares_of_a_gpu_and_what_cuda_takes_for_each_fit_it():
    total = 16 * GIB
    for number in (1, 2, 4):
        assert number * (allowed_bytes(total, 1 / number) + 700 * 2**20) <= total
    assert allowed_bytes(GIB, 0.1) == 0


def test_running_out_of_host_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_shortage(caught.value)
    text = device_memory.explain(caught.value, torch.device("cpu"), 1.0)
    assert text is not None
    assert text.startswith(
        "out of memory asking for 4294967296.00 GiB more: expected the trial to fit the machine's memory."
    )
    assert is_shortage(MemoryError())
    assert is_shortage(torch.OutOfMemoryError(OF_CUDA))
    assert device_memory.explain(ValueError("no"), torch.device("cpu"), 1.0) is None


def test_a_device_has_the_number_without_which_cuda_sets_no_limit():
    """`torch.device("cuda")` was refused, so every trial with a share of a GPU failed as it began."""
    from torch.cuda._utils import _get_device_index

    assert _get_device_index(device_memory.device_of("cuda")) == 0
    with pytest.raises(ValueError, match="specified index"):
        _get_device_index(torch.device("cuda"))
    assert device_memory.device_of("cpu") == torch.device("cpu")


def test_a_gpu_with_memory_in_other_hands_has_neighbours(monkeypatch):
    gb = 1 << 30
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 10 * gb)
    for free_gb, expected in [(69.5, False), (65, True)]:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free_gb: (int(free * gb), 80 * gb))
        assert device_memory.has_neighbours(torch.device("cuda")) == expected
        assert not device_memory.has_neighbours(torch.device("cpu"))


def test_a_share_is_given_out_only_if_its_memory_is_free(monkeypatch):
    """A trial began beside a forgotten notebook, and ran out of memory an hour later."""
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(11.5 * GIB), 24 * GIB))
    require_room(device, 0.5)  # 12 GiB less what CUDA itself takes
    require_room(torch.device("cpu"), 0.5)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 * GIB, 24 * GIB))
    require_room(device, 0.25)
    require_room(device, 1.0)
    with pytest.raises(RuntimeError) as caught:
        require_room(device, 0.5)
    assert str(caught.value).startswith(
        "the GPU has 9.00 GiB of memory free, and resources.gpu: 0.5 of it is to give a trial 11.22 GiB: another program"
    )


def test_as_many_trials_share_a_gpu_as_fit_with_a_context_each():
    assert [trials_per_gpu(24 * GIB, tensors, 16, 1) for tensors in (0, 2 * GIB, 5 * GIB, 11 * GIB, 23 * GIB)] == [
        8,
        8,
        3,
        1,
        1,
    ]
    for tensors in (GIB, 3 * GIB, 7 * GIB):
        number = trials_per_gpu(24 * GIB, tensors, 16, 1)
        assert number * (tensors + 700 * 2**20) <= 24 * GIB
    assert trials_per_gpu(24 * GIB, GIB, 16, 4) == 4, "cores limit it as well"
    assert trials_per_gpu(24 * GIB, GIB, 2, 4) == 1
