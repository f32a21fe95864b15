"""Policies outside a study: a schedule that sets an optimizer's rates and momentum in any PyTorch loop.

It is used like a scheduler of torch that is stepped after every update. An optimizer is any object with `param_groups`,
a list of dictionaries; the groups, in their order, are the policy's sections. This module does not import torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Protocol

from lrstudy.errors import Fault, InputError
from lrstudy.policies.parameters import require
from lrstudy.policies.run import History, Run
from lrstudy.settings import Recipe, Settings, Tail


class OptimizerLike(Protocol):
    """What a schedule needs of an optimizer."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters, each with `lr`, and with `momentum` or `betas` if the optimizer has either."""


class PolicyLike(Protocol):
    """What a schedule needs of a policy, which is a dataclass; policies/base.py documents the members."""

    name: ClassVar[str]
    reactive: ClassVar[bool]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of an epoch."""

    def require_metrics(self, names: Iterable[str]) -> None:
        """Raise InputError if it reacts to a metric that is not among `names`."""


def attach(
    policy: PolicyLike,
    optimizer: OptimizerLike,
    *,
    num_examples: int,
    epochs: int,
    tail: Tail = "keep",
) -> Schedule:
    """Let `policy` decide the rates and momentum of `optimizer` from the first update on.

    Args:
        policy: The policy.
        optimizer: The optimizer. `lr` and `momentum` (or the first of `betas`) of all its groups are set at once, and
            again at every step of the schedule.
        num_examples: The size of the training set, at least 1.
        epochs: The budget in epochs, at least 1.
        tail: Whether the loader keeps the last, smaller batch of an epoch or drops it (DataLoader's `drop_last`).

    Returns:
        The schedule, to be stepped after each update.

    Raises:
        InputError: The numbers are out of range, or the policy does not fit the run or the number of groups.
    """
    faults = [
        Fault(name, expected="a whole number of at least 1", got=f"{value!r}")
        for name, value in (("num_examples", num_examples), ("epochs", epochs))
        if type(value) is not int or value < 1
    ]
    if faults:
        raise InputError(faults)
    run = _LoopRun(num_examples, epochs, len(optimizer.param_groups), Recipe(tail=tail))
    return Schedule(policy, optimizer, run)


class _LoopRun(Run):
    """A run in a user's loop. A last batch of one example is an update there; a study merges it into the one before."""

    def num_updates(self, batch_size: int) -> int:
        """Updates per epoch: as many as a DataLoader yields batches."""
        full, left = divmod(self.num_examples, batch_size)
        if self.recipe.tail == "drop":
            require(full > 0, "batch_size", f"at most the {self.num_examples} training examples", batch_size)
            return full
        return full + (left > 0)


class Schedule:
    """Keeps track of a run and sets the optimizer's rates and momentum; made by `attach`.

    Call `step()` after each `optimizer.step()`, and `epoch_end(metrics)` after each epoch. A reactive policy needs the
    metrics before its next epoch; for other policies the call only checks that the epoch had the expected updates.
    """

    def __init__(self, policy: PolicyLike, optimizer: OptimizerLike, run: Run) -> None:
        self._policy, self._optimizer, self._run = policy, optimizer, run
        self._history: list[dict[str, float]] = []
        self._epoch, self._update = 0, 0
        self._settings = self._of_epoch(0)
        self._apply()

    @property
    def epoch(self) -> int:
        """The epoch of the next update, from 0; the number of epochs when all are done."""
        return self._epoch

    @property
    def update(self) -> int:
        """The next update's number in its epoch, from 0."""
        return self._update

    @property
    def is_finished(self) -> bool:
        """Whether all updates of the budget have been made."""
        return self._epoch == self._run.num_epochs

    @property
    def batch_size(self) -> int:
        """The batch size of the current epoch. Where it changes, the loop needs a new loader."""
        self._require_known()
        return self._settings.batch_size

    @property
    def num_updates(self) -> int:
        """The number of updates of the current epoch."""
        self._require_known()
        return self._settings.num_updates

    def step(self) -> None:
        """Move on to the next update. Call it after `optimizer.step()`. Raises RuntimeError beyond the budget."""
        if self.is_finished:
            raise RuntimeError(
                f"the budget of {self._run.num_epochs} epochs is over: there is no further update to set."
            )
        self._require_known()
        self._update += 1
        if self._update < self._settings.num_updates:
            self._apply()
        elif not self._policy.reactive:
            self._enter_next_epoch()

    def epoch_end(self, metrics: Mapping[str, float] | None = None) -> None:
        """End an epoch; `metrics` are its ``train_loss``, ``val_loss`` and ``val_<metric>``.

        Raises RuntimeError if the epoch did not have the expected number of updates or has been ended before, and
        InputError if a metric is no number or a reactive policy gets none.
        """
        is_waiting = self._waits_for_metrics()
        ended = self._last_epoch(is_waiting)
        if metrics:
            self._policy.require_metrics(metrics)
        if self._policy.reactive and not metrics:
            raise InputError(
                Fault("metrics", expected=f"the metrics of epoch {ended}, which {self._name} looks at", got="none")
            )
        self._history += [{} for _ in range(ended - len(self._history))]  # epochs for which epoch_end was not called
        self._history.append(_numbers(metrics or {}))
        if is_waiting:
            self._enter_next_epoch()

    def state_dict(self) -> dict[str, Any]:
        """The position in the run and the identity of policy and run, as values that JSON can hold."""
        return {
            "epoch": self._epoch,
            "update": self._update,
            "history": [dict(metrics) for metrics in self._history],
            "run": self._identity(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Sets the optimizer's groups, so it does not matter whether the optimizer's own state is loaded before or after.
        Raises InputError if the state was taken from another policy, other parameters or another run.
        """
        saved, own = state["run"], self._identity()
        if differing := [key for key in own if saved.get(key) != own[key]]:
            raise InputError(
                [
                    Fault(key, expected=f"{own[key]!r}, as this schedule has", got=f"{saved.get(key)!r}")
                    for key in differing
                ]
            )
        self._epoch, self._update = int(state["epoch"]), int(state["update"])
        self._history = [_numbers(metrics) for metrics in state["history"]]
        self._settings = self._of_epoch(min(self._epoch, self._run.num_epochs - 1))
        self._apply()

    def _identity(self) -> dict[str, Any]:
        values = {f.name: getattr(self._policy, f.name) for f in fields(self._policy)}
        plain: dict[str, Any] = json.loads(json.dumps(values, default=str))  # tuples are lists in JSON
        run = {"num_examples": self._run.num_examples, "epochs": self._run.num_epochs, "groups": self._run.num_sections}
        return {"policy": self._name, **plain, **run, "tail": self._run.recipe.tail}

    @property
    def _name(self) -> str:
        return self._policy.name

    def _last_epoch(self, is_waiting: bool) -> int:
        """The epoch that `epoch_end` ends. Raises RuntimeError if updates are missing or it was ended before."""
        ended = self._epoch if is_waiting else self._epoch - 1
        if ended < 0 or (not is_waiting and self._update != 0):
            raise RuntimeError(
                f"epoch {self._epoch} is not over: {self._update} of its {self._settings.num_updates} updates were made, "
                f"with a batch of {self._settings.batch_size} of {self._run.num_examples} examples."
            )
        if len(self._history) > ended:
            raise RuntimeError(f"epoch {ended} has been ended before, or epoch {self._epoch} made no update.")
        return ended

    def _waits_for_metrics(self) -> bool:
        return not self.is_finished and self._update == self._settings.num_updates

    def _require_known(self) -> None:
        if self._waits_for_metrics():
            raise RuntimeError(
                f"{self._name} needs the metrics of epoch {self._epoch} first: call epoch_end({{'val_loss': ...}})."
            )

    def _enter_next_epoch(self) -> None:
        self._epoch, self._update = self._epoch + 1, 0
        if not self.is_finished:
            self._settings = self._of_epoch(self._epoch)
            self._apply()

    def _of_epoch(self, epoch: int) -> Settings:
        return self._policy.settings(epoch, tuple(self._history[:epoch]), self._run)

    def _apply(self) -> None:
        """Set every group to the values of the update; those of an epoch's last update stay until the next epoch."""
        update = min(self._update, self._settings.num_updates - 1)
        if self.is_finished:
            update = self._settings.num_updates - 1
        lr, momentum = self._settings.lr[update].tolist(), self._settings.momentum[update].tolist()
        groups = self._optimizer.param_groups
        if len(groups) != len(lr):
            raise RuntimeError(
                f"the optimizer has {len(groups)} groups; this schedule was attached when it had {len(lr)}."
            )
        for group, rate, momentum_now in zip(groups, lr, momentum, strict=True):
            group["lr"] = rate
            if "betas" in group:
                group["betas"] = (momentum_now, *group["betas"][1:])
            elif "momentum" in group:
                group["momentum"] = momentum_now


def _numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as plain numbers, without those that are not finite, as in a study's history."""
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError):
            raise InputError(Fault(f"metrics.{name}", expected="a number", got=f"{value!r}")) from None
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
