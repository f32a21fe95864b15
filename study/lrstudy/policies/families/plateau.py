"""Reacting to a metric that no longer improves: the rule, replayed over the history, and a rate that follows it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from lrstudy.annotations import Rule
from lrstudy.errors import Fault, InputError
from lrstudy.policies.base import Policy
from lrstudy.policies.parameters import BelowOne, Floor
from lrstudy.policies.run import History, Run
from lrstudy.settings import Settings

Natural = Annotated[int, Rule("a whole number of at least 0", lambda value: value >= 0)]
Margin = Annotated[float, Rule("a number of at least 0", lambda value: value >= 0)]


@dataclass(frozen=True, kw_only=True)
class PlateauPolicy(Policy):
    """A policy that acts when `metric` has not improved for more than `patience` epochs.

    Attributes:
        metric: A key of the history: ``val_loss``, ``train_loss`` or ``val_<metric>``.
        mode: Whether lower (``min``) or higher (``max``) values are better; ``auto`` minimises losses and maximises all
            other metrics.
        semantics: Which implementation the rule follows. ``torch`` (ReduceLROnPlateau, torch 2.14) acts when more than
            `patience` epochs in a row were bad; ``keras`` (its ReduceLROnPlateau) when `patience` were, one epoch
            earlier; ``keras_restart`` does the same as ``keras`` but forgets the best value, so that the next epoch
            always improves, as an EarlyStopping whose training is started again.
        patience: The number of bad epochs in a row that are tolerated.
        threshold: An epoch is an improvement if it is better than the best by more than this. An exact gain of the
            threshold does not count, nor does a metric that is missing or not finite.
        threshold_mode: Whether the threshold is a fraction of the best value (``rel``) or a difference (``abs``).
        cooldown: How many epochs are not counted after the rule has acted.
    """

    reactive = True

    metric: str = "val_loss"
    mode: Literal["auto", "min", "max"] = "auto"
    semantics: Literal["torch", "keras", "keras_restart"] = "torch"
    patience: Natural = 10
    threshold: Margin = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: Natural = 0

    def require_metrics(self, names: Iterable[str]) -> None:
        """Raise InputError unless the metric is among `names`; without this, epochs that lack it would count as bad."""
        known = list(names)
        if self.metric not in known:
            raise InputError(
                Fault(
                    "metric",
                    expected="a metric that is there",
                    got=f"{self.metric!r}",
                    valid=tuple(known),
                    name=self.metric,
                )
            )

    def num_triggers(self, epoch: int, history: History) -> int:
        """How often the rule has acted before `epoch`, given the metrics of the epochs before it."""
        return sum(self.triggers(history[:epoch]))

    def triggers(self, history: History) -> Iterator[bool]:
        """For each epoch of the history, whether the rule acts after it."""
        best: float | None = None
        bad, resting = 0, 0
        is_torch, patience = self.semantics == "torch", max(1, self.patience + (self.semantics == "torch"))
        for metrics in history:
            if resting and not is_torch:
                resting, bad = resting - 1, 0
            value = metrics.get(self.metric, math.nan)
            if self._is_better(value, best):
                best, bad = value, 0
            elif is_torch or not resting:
                bad += 1
            if resting and is_torch:
                resting, bad = resting - 1, 0
            acts = bad >= patience
            if acts:
                bad, resting = 0, self.cooldown
                best = None if self.semantics == "keras_restart" else best
            yield acts

    def _is_better(self, value: float, best: float | None) -> bool:
        if best is None or not math.isfinite(value):
            return math.isfinite(value)
        is_relative = self.threshold_mode == "rel"
        if self.mode == "min" or (self.mode == "auto" and self.metric.endswith("loss")):
            return value < (best * (1 - self.threshold) if is_relative else best - self.threshold)
        return value > (best * (1 + self.threshold) if is_relative else best + self.threshold)


@dataclass(frozen=True, kw_only=True)
class Plateau(PlateauPolicy):
    """A rate that is lowered whenever the rule acts (torch: ReduceLROnPlateau).

    Attributes:
        factor: What the rate is multiplied by, below 1 as torch and Keras ask; 0: it falls to the floor at once.
        min_ratio: The lowest rate as a fraction of lr.
    """

    name = "plateau"

    factor: BelowOne = 0.1
    min_ratio: Floor = 0.0

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch`, with the same rate for all its updates."""
        lr, floor = self.lr, self.min_ratio * self.lr
        for _ in range(self.num_triggers(epoch, history)):
            lowered = max(lr * self.factor, floor)
            lr = lowered if lr - lowered > 1e-8 else lr  # torch's eps: smaller changes are ignored
        return run.settings(np.full(self.initial_updates(run), lr), self.momentum, self.initial_batch(run))
