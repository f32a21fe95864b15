"""What a policy knows about the run it decides for, and how its rates become settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from lrstudy.policies.parameters import require
from lrstudy.settings import FloatArray, Recipe, Settings, Tail

History = Sequence[Mapping[str, float]]
"""Metrics of the finished epochs, oldest first: ``train_loss``, ``val_loss``, ``val_<metric>``.

``train_accuracy`` is there as well, but not in the records of earlier versions and not with a train step of the user's.
"""


@lru_cache(maxsize=1024)
def count_updates(num_examples: int, batch_size: int, tail: Tail = "keep") -> int:
    """Updates per epoch: floor(N / B) if the tail is dropped, else ceil(N / B).

    If it is kept, a tail of one example joins the batch before it and makes no update of its own. Raises InputError if
    dropping the tail leaves nothing.
    """
    assert num_examples >= 1, "an epoch has at least one example"
    full, left = divmod(num_examples, batch_size)
    if tail == "drop":
        fits = f"at most the {num_examples} training examples where the tail is dropped"
        require(full > 0, "batch_size", fits, batch_size)
        return full
    return full + (1 if left > 1 or full == 0 else 0)


@dataclass(frozen=True)
class Run:
    """What a policy knows about the run it decides for.

    Attributes:
        num_examples: N, the size of the training set.
        num_epochs: E, the budget.
        num_sections: How many parameter groups the model has, ordered from input to head.
        recipe: The part of the settings that most policies leave unchanged.
        has_features: Whether the model's head can be trained alone, on what enters it.
    """

    num_examples: int
    num_epochs: int
    num_sections: int = 1
    recipe: Recipe = field(default_factory=Recipe)
    has_features: bool = True

    def num_updates(self, batch_size: int) -> int:
        """Number of updates in an epoch with this batch size."""
        return count_updates(self.num_examples, batch_size, self.recipe.tail)

    def settings(self, lr: ArrayLike, momentum: ArrayLike, batch_size: int) -> Settings:
        """Settings of one epoch.

        `lr` and `momentum` are scalars or arrays of shape (updates,) or (updates, sections), and are broadcast over
        updates and sections. A `norm_batch` or `micro_batch` that is no smaller than the batch has no effect, so it
        becomes None in the settings.
        """
        shape = (self.num_updates(batch_size), self.num_sections)
        rates, momenta = np.asarray(lr, dtype=np.float64), np.asarray(momentum, dtype=np.float64)
        return _settings(
            rates.tobytes(), rates.shape, momenta.tobytes(), momenta.shape, shape, batch_size, self.recipe
        )  # fmt: skip


@lru_cache(maxsize=64)
def _settings(
    lr: bytes, lr_shape: tuple[int, ...], momentum: bytes, momentum_shape: tuple[int, ...], shape: tuple[int, int],
    batch_size: int, recipe: Recipe,
) -> Settings:  # fmt: skip
    """Build the settings. Cached, as most epochs are alike: planning takes a third of the time."""
    if recipe.norm_batch is not None and recipe.norm_batch >= batch_size:
        recipe = replace(recipe, norm_batch=None)
    if recipe.micro_batch is not None and recipe.micro_batch >= batch_size:
        recipe = replace(recipe, micro_batch=None)
    rates = np.frombuffer(lr).reshape(lr_shape)
    momenta = np.frombuffer(momentum).reshape(momentum_shape)
    return Settings(_over_sections(rates, shape), momenta, batch_size, recipe)


def _over_sections(rates: FloatArray, shape: tuple[int, int]) -> FloatArray:
    rates = rates.reshape(-1, 1) if rates.ndim == 1 else rates
    if rates.shape == shape:
        return rates
    try:
        return np.broadcast_to(rates, shape)
    except ValueError:
        raise ValueError(
            f"expected one rate, or one for each of the {shape[0]} updates, or of shape {shape} (updates, sections); got rates of "
            f"shape {rates.shape}"
        ) from None
