"""Memory of a device: each trial keeps to its share of a GPU, and one that does not fit learns how much it needed."""

from __future__ import annotations

import re

import torch

_CONTEXT_BYTES = 800 * 2**20
"""Left for what CUDA itself takes for every process, some hundreds of megabytes: no measurement, a margin."""
_ASKED = (
    (re.compile(r"Tried to allocate ([\d.]+) (KiB|MiB|GiB)"), {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}),
    (re.compile(r"you tried to allocate (\d+) (bytes)"), {"bytes": 1}),
)


def allowed_bytes(total_bytes: int, share: float) -> int:
    """How much of a GPU's memory torch may take in a trial's process."""
    return max(0, int(total_bytes * share) - _CONTEXT_BYTES)


def device_of(kind: str) -> torch.device:
    """The device of a trial's process, of which Ray lets it see one; with its number, without which CUDA sets no limit."""
    return torch.device("cuda", 0) if kind == "cuda" else torch.device(kind)


def keep_to_share(device: torch.device, share: float) -> None:
    """Let this process take its share of a GPU and no more: who needs more fails itself, and not its neighbour."""
    if device.type == "cuda" and share < 1:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(allowed_bytes(total, share) / total, device)


def explained(error: Exception, device: torch.device, share: float) -> str | None:
    """What to say of an error if it is a lack of memory; lets go of what torch has cached. None for other errors.

    To be called where the error is caught: what the failing code held is then still there to be counted.
    """
    if not is_shortage(error):
        return None
    if device.type != "cuda":
        return shortage(str(error), None, None, share)
    held, total = torch.cuda.memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    return shortage(str(error), held, allowed_bytes(total, share) if share < 1 else total, share)


def is_shortage(error: Exception) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in the host."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def shortage(message: str, held: int | None, allowed: int | None, share: float) -> str:
    """One paragraph: how much was needed at least, how much a share is, and what to change.

    `held` is what torch held when it failed, `allowed` what it might; both in bytes, None on a CPU.
    """
    asked = next((float(m[1]) * units[m[2]] for rule, units in _ASKED if (m := rule.search(message))), 0.0)
    ways = "a smaller batch_size or image.size, micro_batch (the same update in pieces)"
    if held is None or allowed is None:
        wanted = f" asking for {_gib(asked)} more" if asked else ""
        return f"out of memory{wanted}: expected the trial to fit the machine's memory. Ways out: {ways}, or fewer trials at a time (resources.cpu)."
    needed = held + asked
    return (
        f"out of memory: it needed at least {_gib(needed)} ({_gib(held)} held, {_gib(asked)} more asked for), and "
        f"{'a whole GPU has' if share >= 1 else f'resources.gpu: {share:g} of this GPU gives a trial'} {_gib(allowed)}. "
        f"Ways out: {'' if share >= 1 else 'a larger resources.gpu, '}{ways}, or numerics.precision: bf16."
    )


def _gib(number: float) -> str:
    return f"{number / 2**30:.2f} GiB"
