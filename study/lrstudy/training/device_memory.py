"""Device memory: a trial is limited to its share of a GPU, and one that does not fit is told how much memory it needed."""

from __future__ import annotations

import re

import torch

from lrstudy.training.sharing import CONTEXT_BYTES, allowed_bytes

_REQUESTED = (
    (re.compile(r"Tried to allocate ([\d.]+) (KiB|MiB|GiB)"), {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}),
    (re.compile(r"you tried to allocate (\d+) (bytes)"), {"bytes": 1}),
)
"""How torch says, on a GPU and on a CPU, what it failed to allocate, with the units in bytes."""


def device_of(kind: str) -> torch.device:
    """The device that a trial's process computes on; `kind` is ``cuda`` or ``cpu``.

    Ray shows a process a single GPU. It is named with its index, because CUDA sets no memory limit without one.
    """
    return torch.device("cuda", 0) if kind == "cuda" else torch.device(kind)


def limit_to_share(device: torch.device, device_share: float) -> None:
    """Limit this process to its share of a GPU's memory, so that a trial which needs more fails, and not its neighbour."""
    if device.type == "cuda" and device_share < 1:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(allowed_bytes(total, device_share) / total, device)


def require_room(device: torch.device, device_share: float) -> None:
    """Raise RuntimeError if so much of the GPU's memory is taken that a trial cannot have its share.

    Trials of ours keep within their shares, so it is a program of somebody else's, or one that was left behind.
    """
    if device.type != "cuda" or device_share >= 1:
        return
    free, total = torch.cuda.mem_get_info(device)
    allowed = allowed_bytes(total, device_share)
    if free + torch.cuda.memory_reserved(device) < allowed:
        raise RuntimeError(
            f"the GPU has {_gib(free)} of memory free, and resources.gpu: {device_share:g} of it is to give a trial "
            f"{_gib(allowed)}: another program has the rest (nvidia-smi names it). Ways out: end that program, or a smaller "
            "resources.gpu"
        )


def explain(error: Exception, device: torch.device, device_share: float) -> str | None:
    """The explanation of an error if memory ran out, after emptying torch's cache; None for any other error.

    Call it where the error is caught: what the failed code had allocated is then still there to be counted.
    """
    if not is_shortage(error):
        return None
    if device.type != "cuda":
        return shortage(str(error), None, None, device_share)
    held, total = torch.cuda.memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    limit = allowed_bytes(total, device_share) if device_share < 1 else total
    return shortage(str(error), held, limit, device_share)


def is_shortage(error: Exception) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in the host."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def shortage(message: str, held_bytes: int | None, limit_bytes: int | None, device_share: float) -> str:
    """One paragraph: how much memory was needed at least, how much the trial may use, and what to change.

    Args:
        message: The text of torch's error, which says how much it tried to allocate.
        held_bytes: What torch had allocated when it failed; None on a CPU.
        limit_bytes: What it was allowed to allocate; None on a CPU.
        device_share: The number of devices that the trial occupies; below 1 for a part of a GPU.

    Returns:
        The explanation, with sizes in GiB.
    """
    requested = next((float(m[1]) * units[m[2]] for rule, units in _REQUESTED if (m := rule.search(message))), 0.0)
    ways = "a smaller batch_size or image.size, micro_batch (the same update in pieces)"
    if held_bytes is None or limit_bytes is None:
        wanted = f" asking for {_gib(requested)} more" if requested else ""
        return f"out of memory{wanted}: expected the trial to fit the machine's memory. Ways out: {ways}, or fewer trials at a time (resources.cpu)."
    is_whole = device_share >= 1
    limit = "a whole GPU has" if is_whole else f"resources.gpu: {device_share:g} of this GPU gives a trial"
    return (
        f"out of memory: it needed at least {_gib(held_bytes + requested)} ({_gib(held_bytes)} held, "
        f"{_gib(requested)} more asked for), and {limit} {_gib(limit_bytes)}. "
        f"Ways out: {'' if is_whole else 'a larger resources.gpu, '}{ways}, or numerics.precision: bf16."
    )


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def has_neighbours(device: torch.device) -> bool:
    """Whether another program has memory of this GPU; False on a CPU."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return bool(total - free - torch.cuda.memory_reserved(device) > CONTEXT_BYTES)
