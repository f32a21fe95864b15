"""Randomness: every use draws from a generator of its own, seeded with (seed, purpose, epoch), whatever was drawn before."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import torch

Purpose = Literal["init", "order", "augment", "dropout", "statistics"]


def seed_for(seed: int, purpose: Purpose, epoch: int = 0) -> int:
    """A 63-bit seed for one use."""
    text = f"{seed}/{purpose}/{epoch}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: Purpose, epoch: int = 0) -> torch.Generator:
    """A CPU generator for one use. Numbers are drawn on the CPU and then moved, so that all devices get the same ones."""
    return torch.Generator().manual_seed(seed_for(seed, purpose, epoch))
