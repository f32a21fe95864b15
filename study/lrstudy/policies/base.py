"""What a policy is: the settings of any epoch as a pure function of its number and the recorded history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from itertools import accumulate, takewhile
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lrstudy.errors import InputError
from lrstudy.policies.attach import OptimizerLike, Schedule, attach
from lrstudy.policies.durations import Duration, in_epochs
from lrstudy.policies.parameters import BelowOne, Count, LearningRate, checked, hints, is_of_durations, unfit
from lrstudy.policies.run import History, Run
from lrstudy.settings import FloatArray, Settings, Tail


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """Decides each epoch's settings. Subclasses are frozen dataclasses whose fields are its parameters.

    A policy must be pure and picklable: `settings` depends on its arguments alone, and may be called for epochs in any
    order. Values are checked against the fields' annotations on construction. Whole numbers become floats, and lists
    become tuples, where the annotation says so; InputError lists every value that does not fit.

    Attributes:
        lr: The peak rate of the policy; floors, ends and the rates of sections are ratios of it.
        batch_size: Examples per update; a batch that grows starts from it.
        momentum: The momentum, or Adam's beta1, in [0, 1).
    """

    name: ClassVar[str]
    """What a study file calls this policy."""
    reactive: ClassVar[bool] = False
    """Whether `settings` depends on the history; otherwise it may be called with an empty one.

    A reactive policy is asked for epochs in the future too. Epochs without metrics count as epochs that trigger
    nothing, so that with an empty history it returns the settings of a run in which nothing happens.
    """

    horizon_free: ClassVar[bool] = True
    """Whether a longer budget leaves the earlier epochs unchanged, provided durations are in epochs or updates."""

    lr: LearningRate
    batch_size: Count
    momentum: BelowOne = 0.9

    def __post_init__(self) -> None:
        values, faults = checked(type(self), {f.name: getattr(self, f.name) for f in fields(self)})
        if faults:
            raise InputError(faults)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @abstractmethod
    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch` (counted from 0), given the metrics of all epochs before it."""

    def attach(self, optimizer: OptimizerLike, *, num_examples: int, epochs: int, tail: Tail = "keep") -> Schedule:
        """A schedule with which this policy drives an optimizer in your own training loop.

        Args:
            optimizer: The optimizer, whose `lr` and `momentum` are set at once and at every step.
            num_examples: The size of the training set, at least 1.
            epochs: The budget in epochs, at least 1.
            tail: Whether the loader keeps the last, smaller batch of an epoch or drops it.

        Returns:
            The schedule, to be stepped after each update (see policies/attach.py).

        Raises:
            InputError: The numbers are out of range, or the policy does not fit the run or the number of groups.
        """
        return attach(self, optimizer, num_examples=num_examples, epochs=epochs, tail=tail)

    def require_metrics(self, names: Iterable[str]) -> None:  # noqa: B027  # nothing to check for most policies
        """Raise InputError if this policy reacts to a metric that is not among `names`. Most policies react to none."""

    def caveats(self) -> tuple[str, ...]:
        """What every report must say about this policy with these values, a sentence each."""
        return ()

    def cycle_ends(self, run: Run) -> Sequence[int]:
        """After how many epochs each cycle of the rate ends that the budget completes; `select: last_cycle` tests the last.

        By default the whole budget is one cycle. A cycle that ends within an epoch ends with the epoch before: in the next
        one the rate is high again.
        """
        return (run.num_epochs,)

    def stage_starts(self, run: Run) -> Sequence[int]:
        """The first epoch of every stage of the training; by default it is all one."""
        return (0,)

    def initial_batch(self, run: Run) -> int:
        """The batch size at the start of the run: at most the number of training examples."""
        return min(self.batch_size, run.num_examples)

    def initial_updates(self, run: Run) -> int:
        """Updates per epoch at the initial batch size, by which durations in updates are converted to epochs."""
        return run.num_updates(self.initial_batch(run))

    def epochs(self, duration: Duration, run: Run) -> Fraction:
        """`duration` in epochs of this run, exactly."""
        return in_epochs(duration, run.num_epochs, self.initial_updates(run))


class RatePolicy(Policy):
    """A policy that decides the learning rate and does not depend on results.

    Batch size and momentum are constant unless a subclass overrides `batch` or `momenta`.
    """

    @abstractmethod
    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The unrounded rates of an epoch, of shape (updates,), or (updates, sections) if sections differ."""

    def momenta(self, epoch: int, run: Run) -> float | FloatArray:
        """The momentum of an epoch: one number, or an array of shape (updates,)."""
        return self.momentum

    def batch(self, epoch: int, run: Run) -> int:
        """The batch size of an epoch."""
        return self.initial_batch(run)

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch`; the history is not used."""
        return run.settings(self.rates(epoch, run), self.momenta(epoch, run), self.batch(epoch, run))


def parameter_names(policy: type[Policy]) -> tuple[str, ...]:
    """The names of a policy's parameters, with the common ones (lr, batch_size, momentum) first."""
    return tuple(f.name for f in fields(policy))


def durations_of(policy: Policy) -> Iterator[tuple[str, tuple[Duration, ...]]]:
    """The parameters that are durations or lists of durations, with their values; those that are None are left out."""
    for name, hint in hints(type(policy)).items():
        value = getattr(policy, name)
        if value is not None and is_of_durations(hint):
            yield name, value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True)
class Ticks:
    """The updates of an epoch on a clock that counts whole ticks, one per update.

    On the epoch clock p = e + i / n, a tick is 1 / n of an epoch, where n is the number of updates of the epoch.

    Attributes:
        first: The tick of the first update, counted from the beginning of the run.
        count: How many updates, and so ticks, the epoch has.
        per_epoch: How many ticks the clock counts as one epoch.
    """

    first: int
    count: int
    per_epoch: int

    @staticmethod
    def of_epoch(epoch: int, num_updates: int) -> Ticks:
        """The ticks of the epoch clock."""
        return Ticks(epoch * num_updates, num_updates, num_updates)

    @property
    def epochs(self) -> FloatArray:
        """Each update's position in epochs, shape (updates,)."""
        return np.arange(self.first, self.first + self.count) / self.per_epoch


def phase(ticks: Ticks, period: Fraction) -> tuple[NDArray[np.int64], FloatArray]:
    """The position of each update of an epoch in cycles of `period` epochs.

    Positions are computed by dividing integers. So a cycle begins at exactly the right update however the period was
    written, and the same point of a cycle has the same float in every run. Floats miss restarts: torch's
    CosineAnnealingWarmRestarts.step(p) stays at the floor for one update at epoch 121 T0 with T_mult 3, because its
    logarithm comes out just below 5.

    Returns:
        The number of whole cycles before each update, and its position in the cycle in [0, 1); both of shape (updates,).
    """
    divisor = ticks.per_epoch * period.numerator
    last = (ticks.first + ticks.count) * period.denominator
    exact = np.int64 if max(last, divisor) < 2**53 else object  # larger ones need Python's integers: slow, but exact
    done = np.arange(ticks.first, ticks.first + ticks.count).astype(exact) * period.denominator
    return (done // divisor).astype(np.int64), (done % divisor / divisor).astype(np.float64)


def completed_cycles(lengths: Iterable[Fraction | int], clock: Sequence[Fraction | int]) -> tuple[int, ...]:
    """After how many epochs each completed cycle ends: the last epoch end that is not behind the cycle's.

    Args:
        lengths: The lengths of the cycles from the beginning, each above 0; there may be more than the run completes.
        clock: What the clock that measures them shows after each epoch of the run, rising.

    Returns:
        Numbers of epochs, rising, each once. A cycle that ends within the first epoch has none.
    """
    ends = takewhile(lambda end: end <= clock[-1], accumulate(lengths))
    return tuple(dict.fromkeys(depth for end in ends if (depth := bisect_right(clock, end))))


def require_absent(policy: Policy, names: Sequence[str], where: str) -> None:
    """Raise InputError if any of the parameters `names` is not None; they may be given only with `where`."""
    refused = [name for name in names if getattr(policy, name) is not None]
    if refused:
        raise InputError([unfit(name, f"it only with {where}", getattr(policy, name)) for name in refused])
