"""What a walk needs of a trainer and of what it returns. The trainer itself is training/trainer.py, which imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from lrstudy.settings import Settings


class EvaluationLike(Protocol):
    """Mean loss and metrics over a part of the data."""

    @property
    def loss(self) -> float:
        """Mean loss per example."""

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name."""


class TrainedLike(Protocol):
    """What training one epoch gave."""

    @property
    def train_loss(self) -> float:
        """Mean training loss per example."""

    @property
    def train_metrics(self) -> Mapping[str, float]:
        """Metrics that training itself counted, by name; those that it did not count are absent."""

    @property
    def validation(self) -> EvaluationLike:
        """The evaluation on validation data after the epoch."""

    @property
    def train_s(self) -> float:
        """Seconds of training."""

    @property
    def eval_s(self) -> float:
        """Seconds of evaluation."""


class TrainerLike(Protocol):
    """Holds one state, and trains it epoch by epoch."""

    def start(self, seed: int) -> None:
        """Hold the state before the first epoch, drawn from `seed`."""

    def restore(self, data: bytes) -> None:
        """Hold a stored state."""

    def make_ready(self, settings: Settings) -> None:
        """Do what such an epoch needs once per process, such as compiling; none of it counts as the cost of an epoch."""

    def has_features(self, name: str) -> bool:
        """Whether it has the features of this name in memory."""

    def take_features(self, name: str, data: bytes) -> None:
        """Have the features that `compute_features` returned. Raises ValueError for bytes that are none."""

    def compute_features(self, name: str) -> tuple[bytes, int]:
        """Compute what the backbone of the state held makes of training and validation data, and have it.

        Returns it as bytes, and the number of examples.
        """

    def train(self, settings: Settings, seed: int, epoch: int) -> TrainedLike:
        """Train epoch `epoch` (from 0) from the state held, and evaluate it on validation data."""

    def capture(self) -> bytes:
        """The state held, as bytes."""

    def snapshot(self) -> Callable[[], bytes]:
        """Copy the state held; the function returned makes its bytes, and may be called in another thread."""
