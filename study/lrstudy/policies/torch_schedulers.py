"""Any scheduler of torch as a policy: `torch:PolynomialLR`, traced on a dummy optimizer.

The scheduler is run once per run, exactly as torch implements it (recursive forms included), and the settings of an
epoch are read from the trace. So they do not depend on the order in which epochs are asked for. The two schedulers that
have a peak of their own, OneCycleLR and CyclicLR (`max_lr`), take the policy's `lr` for it; all others start from `lr`.
These two change the momentum only with `cycle_momentum: true`; torch does so by default, and replaces the study's.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import cache, lru_cache
from itertools import accumulate, repeat
from operator import mul
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from lrstudy.errors import Fault, InputError, unknown
from lrstudy.policies.base import Policy, RatePolicy, completed_cycles
from lrstudy.policies.parameters import require
from lrstudy.policies.run import Run
from lrstudy.settings import FloatArray

StepPer = Literal["epoch", "update"]

PER_UPDATE = ("OneCycleLR", "CyclicLR", "CosineAnnealingWarmRestarts")
"""Schedulers that torch's documentation steps after every batch; the others are stepped after every epoch."""
LENGTHS = ("T_max", "total_steps", "total_iters")
"""Parameters that are the length of a run in steps. One that torch requires is the run's length by default."""
ENDS_AT_ZERO = ("PolynomialLR",)
"""Schedulers that stay at 0 after a default number of steps; for them, too, the run's length is the default."""
_MOMENTUM = "cycle_momentum"
_PEAK = "max_lr"
_RATES = ("base_lr", "eta_min", "min_lr")
"""Parameters that are rates below the peak."""
_OURS = ("self", "optimizer", "last_epoch", "verbose", _PEAK)
_INSTEAD = {
    "ReduceLROnPlateau": "It looks at results while it runs: use the built-in policy `plateau`.",
    "LambdaLR": "It takes a function: write a policy of your own, policy: ./mine.py:name.",
    "MultiplicativeLR": "It takes a function: write a policy of your own, policy: ./mine.py:name.",
    "SequentialLR": "It takes other schedulers: write a policy of your own, policy: ./mine.py:name.",
    "ChainedScheduler": "It takes other schedulers: write a policy of your own, policy: ./mine.py:name.",
}


@dataclass(frozen=True, kw_only=True)
class SchedulerPolicy(RatePolicy):
    """A scheduler of torch, with its arguments as parameters.

    Attributes:
        step_per: Whether it is stepped after every epoch or every update, and so what its integer arguments count.
    """

    scheduler: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]]

    step_per: StepPer = "epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _RATES:
            value = getattr(self, name, None)
            rates = value if isinstance(value, tuple) else (value,)
            is_below = all(rate is None or rate <= self.lr for rate in rates)
            require(is_below, name, f"a rate of at most lr, {self.lr:g}, which is the peak", value)

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The scheduler's rates, shape (updates, sections). Raises InputError with torch's message if it refuses."""
        return self._of_epoch(0, epoch, run)

    def momenta(self, epoch: int, run: Run) -> float | FloatArray:
        """The momentum, which some schedulers set, shape (updates, sections)."""
        return self._of_epoch(1, epoch, run)

    def cycle_ends(self, run: Run) -> tuple[int, ...]:
        """After how many epochs each cycle of CyclicLR or CosineAnnealingWarmRestarts ends; else the whole budget is one."""
        values = {name: getattr(self, name) for name in self.arguments}
        if self.scheduler == "CyclicLR":
            up, down = values["step_size_up"], values["step_size_down"]
            lengths: Iterator[int] = repeat(up + (up if down is None else down))
        elif self.scheduler == "CosineAnnealingWarmRestarts":
            lengths = accumulate(repeat(values["T_mult"]), mul, initial=values["T_0"])
        else:
            return (run.num_epochs,)
        steps = self.initial_updates(run) if self.step_per == "update" else 1
        return completed_cycles(lengths, [steps * epoch for epoch in range(1, run.num_epochs + 1)])

    def _of_epoch(self, quantity: int, epoch: int, run: Run) -> FloatArray:
        updates, trace = self.initial_updates(run), _trace(self, run)[quantity]
        if self.step_per == "epoch":
            return np.broadcast_to(trace[epoch], (updates, run.num_sections))
        return trace[epoch * updates : (epoch + 1) * updates]

    def __reduce__(self) -> tuple[Callable[..., Policy], tuple[str, dict[str, Any]]]:
        names = ("lr", "batch_size", "momentum", "step_per", *self.arguments)
        return _rebuild, (self.scheduler, {name: getattr(self, name) for name in names})


def _rebuild(scheduler: str, values: dict[str, Any]) -> Policy:
    return policy_of_scheduler(scheduler)(**values)


@cache
def policy_of_scheduler(name: str) -> type[Policy]:
    """The policy of torch's scheduler `name`. Imports torch. Raises InputError if it is unknown or not traceable."""
    if name in _INSTEAD:
        raise InputError(Fault("policy", f"torch:{name} cannot be traced", advice=_INSTEAD[name]))
    schedulers = _schedulers()
    if name not in schedulers:
        raise InputError(unknown("policy", "scheduler", f"torch:{name}", [f"torch:{known}" for known in schedulers]))
    initialise = schedulers[name].__init__
    hints = get_type_hints(initialise, localns={"Callable": Callable, "Iterable": Iterable, "Sequence": Sequence})
    arguments = [
        parameter
        for parameter in inspect.signature(initialise).parameters.values()
        if parameter.name not in _OURS and not _takes_function(hints[parameter.name])
    ]
    per: StepPer = "update" if name in PER_UPDATE else "epoch"
    return make_dataclass(
        name,
        [("step_per", StepPer, field(default=per)), *(_field(name, p, hints[p.name]) for p in arguments)],
        bases=(SchedulerPolicy,),
        namespace={
            "__module__": __name__,
            "__doc__": f"torch.optim.lr_scheduler.{name}",
            "name": f"torch:{name}",
            "scheduler": name,
            "arguments": tuple(p.name for p in arguments),
        },
        frozen=True,
        kw_only=True,
    )


def _schedulers() -> dict[str, Any]:
    """The schedulers that can be traced, by name, sorted."""
    from torch.optim import lr_scheduler

    schedulers = {
        name: value
        for name, value in vars(lr_scheduler).items()
        if inspect.isclass(value) and issubclass(value, lr_scheduler.LRScheduler) and not name.startswith("_")
    }
    return {name: schedulers[name] for name in sorted(schedulers) if name not in (*_INSTEAD, "LRScheduler")}


def _field(scheduler: str, parameter: inspect.Parameter, hint: Any) -> tuple[Any, ...]:
    """A field of the policy for an argument of the scheduler, with the argument's type and default."""
    hint = _plain(hint)
    if parameter.name == _MOMENTUM:
        return parameter.name, hint, field(default=False)
    is_length = parameter.name in LENGTHS and (parameter.default is parameter.empty or scheduler in ENDS_AT_ZERO)
    if parameter.default is not parameter.empty and not is_length:
        return parameter.name, hint, field(default=parameter.default)
    if is_length:
        return parameter.name, hint | None, field(default=None)
    return parameter.name, hint


def _plain(hint: Any) -> Any:
    """An annotation of torch in the form that policies use, with tuples for lists and other iterables."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (list, Iterable, Sequence):
        return tuple.__class_getitem__((inner[0], ...))
    if origin in (Union, UnionType):
        return Union[tuple(_plain(option) for option in inner)]  # noqa: UP007  # options are known at run time only
    return hint


def _takes_function(hint: Any) -> bool:
    return get_origin(hint) is Callable or any(_takes_function(option) for option in get_args(hint))


@lru_cache(maxsize=64)
def _trace(policy: SchedulerPolicy, run: Run) -> tuple[FloatArray, FloatArray]:
    """The rate and the momentum before every step of a run, each of shape (steps, sections). Raises InputError."""
    import torch

    steps = run.num_epochs * (policy.initial_updates(run) if policy.step_per == "update" else 1)
    groups = [{"params": [torch.zeros(1)]} for _ in range(run.num_sections)]
    optimizer = torch.optim.SGD(groups, lr=policy.lr, momentum=policy.momentum)
    lr, momentum = np.empty((steps, run.num_sections)), np.empty((steps, run.num_sections))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch warns unless optimizer.step() is called first, which has no purpose here
            scheduler = _schedulers()[policy.scheduler](optimizer, **_arguments(policy, steps))
            for step in range(steps):
                lr[step] = [float(group["lr"]) for group in optimizer.param_groups]
                momentum[step] = [group["momentum"] for group in optimizer.param_groups]
                if step + 1 < steps:
                    scheduler.step()
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise InputError(
            Fault("policy", f"torch:{policy.scheduler} refuses its parameters or the run: {error}")
        ) from None
    for array in (lr, momentum):
        array.setflags(write=False)
    return lr, momentum


def _arguments(policy: SchedulerPolicy, steps: int) -> dict[str, Any]:
    """The scheduler's arguments: the policy's values, the peak, and the run's length where it is needed."""
    values = {name: getattr(policy, name) for name in policy.arguments}
    arguments = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    signature = inspect.signature(_schedulers()[policy.scheduler]).parameters
    if _PEAK in signature:
        arguments[_PEAK] = policy.lr
    has_epochs = arguments.get("epochs") is not None and arguments.get("steps_per_epoch") is not None
    for name in LENGTHS:
        if name in arguments and arguments[name] is None and not has_epochs:
            arguments[name] = steps
    return arguments
