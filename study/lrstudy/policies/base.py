"""What a policy is: the settings of any epoch as a pure function of its number and the recorded history."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from fractions import Fraction
from functools import cache, lru_cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrstudy.faults import InputError
from lrstudy.policies.durations import Duration, in_epochs
from lrstudy.settings import FloatArray, Recipe, Settings

if TYPE_CHECKING:
    from lrstudy.policies.attach import OptimizerLike, Schedule

History = Sequence[Mapping[str, float]]
"""Metrics of the finished epochs, oldest first: ``train_loss``, ``val_loss``, ``val_<metric>``."""


def count_updates(num_examples: int, batch_size: int, tail: Literal["keep", "drop"] = "keep") -> int:
    """Updates of an epoch: `keep` makes ceil(N / B), a tail of one joining the batch before; `drop` floor(N / B).

    Raises InputError if dropping the tail leaves nothing.
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
    """What a policy knows of the run it decides for: training-set size, budget, sections, recipe.

    `num_epochs` is the budget E; `num_sections` counts the model's parameter groups, input to head.
    """

    num_examples: int
    num_epochs: int
    num_sections: int = 1
    recipe: Recipe = field(default_factory=Recipe)

    def num_updates(self, batch_size: int) -> int:
        """Number of updates in an epoch with this batch size."""
        return count_updates(self.num_examples, batch_size, self.recipe.tail)

    def settings(self, lr: ArrayLike, momentum: ArrayLike, batch_size: int) -> Settings:
        """Settings of one epoch from a rate per update, broadcast over sections.

        `lr` and `momentum` are scalars or have shape (updates,) or (updates, sections). A norm or micro batch
        that is no smaller than the batch is the batch itself, and is named so.
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
    """The settings of `Run.settings`, made once for epochs that are alike, as most are: planning takes a third of the time."""
    if recipe.norm_batch is not None and recipe.norm_batch >= batch_size:
        recipe = replace(recipe, norm_batch=None)
    if recipe.micro_batch is not None and recipe.micro_batch >= batch_size:
        recipe = replace(recipe, micro_batch=None)
    rates = np.frombuffer(lr).reshape(lr_shape)
    momenta = np.frombuffer(momentum).reshape(momentum_shape)
    return Settings(_over_sections(rates, shape), _over_sections(momenta, shape), batch_size, recipe)


@dataclass(frozen=True)
class Rule:
    """What a parameter must fulfil beyond its type, written as ``Annotated[float, Rule(...)]``.

    `expected` completes "expected ..." in the error; `holds` is asked with a value of the right type.
    """

    expected: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Rule("a whole number of at least 1", lambda value: value >= 1)]
Ratio = Annotated[float, Rule("a number above 0 and at most 1", lambda value: 0 < value <= 1)]
"""A share of the peak rate."""
Floor = Annotated[float, Rule("a number in [0, 1)", lambda value: 0 <= value < 1)]
"""A share of the peak rate below it, which may be 0. Also the range of momentum."""
Factor = Annotated[int, Rule("a whole number of at least 2", lambda value: value >= 2)]
"""How many times a batch grows."""
PositiveDuration = Annotated[
    Duration, Rule("a duration above 0, like 4, '25%' or '2000u'", lambda value: in_epochs(value, 1, 1) > 0)
]


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """Decides each epoch's settings. Subclasses are frozen dataclasses whose fields are its parameters.

    `lr` is the policy's peak rate: floors, ends and the rates of sections are ratios of it. A policy must
    be pure and picklable: `settings` depends on its arguments alone, and epochs may be asked in any order.
    Values are checked against the fields' annotations on construction: whole numbers become floats and
    lists become tuples where the annotation says so, and InputError lists every value that does not fit.
    """

    name: ClassVar[str]
    """What a study file calls this policy."""
    reactive: ClassVar[bool] = False
    """Whether `settings` looks at the history; otherwise it may be called with an empty one.

    A reactive policy is asked about epochs to come as well: those without metrics count as epochs that
    trigger nothing, so with an empty history it gives the settings of a run in which nothing happens.
    """

    horizon_free: ClassVar[bool] = True
    """Whether a longer budget only adds epochs, as long as durations are given in epochs or updates."""

    lr: Annotated[float, Rule("a finite number above 0", lambda value: value > 0)]
    batch_size: Count
    momentum: Floor = 0.9

    def __post_init__(self) -> None:
        values, faults = checked(type(self), {f.name: getattr(self, f.name) for f in fields(self)})
        if faults:
            raise InputError(faults)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @abstractmethod
    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch` (from 0), given the metrics of all epochs before it."""

    def attach(
        self, optimizer: OptimizerLike, *, num_examples: int, epochs: int, tail: Literal["keep", "drop"] = "keep"
    ) -> Schedule:
        """A schedule that lets this policy drive an optimizer in a loop of your own (policies/attach.py)."""
        from lrstudy.policies.attach import attach

        return attach(self, optimizer, num_examples=num_examples, epochs=epochs, tail=tail)

    def caveats(self) -> tuple[str, ...]:
        """What every report must say of this policy with these values, a sentence each."""
        return ()

    def initial_batch(self, run: Run) -> int:
        """The batch size that the run starts with: never more than its training examples."""
        return min(self.batch_size, run.num_examples)

    def initial_updates(self, run: Run) -> int:
        """Updates per epoch at the initial batch size: what a duration in updates is measured with."""
        return run.num_updates(self.initial_batch(run))

    def epochs(self, duration: Duration, run: Run) -> Fraction:
        """`duration` in epochs of this run, exactly."""
        return in_epochs(duration, run.num_epochs, self.initial_updates(run))


class RatePolicy(Policy):
    """A policy that decides the learning rate, and whose other settings do not depend on results.

    Batch size and momentum stay what they are unless a subclass says otherwise.
    """

    @abstractmethod
    def rates(self, epoch: int, run: Run) -> FloatArray:
        """The unrounded rates of an epoch, shape (updates,), or (updates, sections) where sections differ."""

    def momenta(self, epoch: int, run: Run) -> float | FloatArray:
        """The momentum of an epoch: one number, or shape (updates,)."""
        return self.momentum

    def batch(self, epoch: int, run: Run) -> int:
        """The batch size of an epoch."""
        return self.initial_batch(run)

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch`; the history is not looked at."""
        return run.settings(self.rates(epoch, run), self.momenta(epoch, run), self.batch(epoch, run))


def parameter_names(policy: type[Policy]) -> tuple[str, ...]:
    """The names of a policy's parameters, common ones (lr, batch_size, momentum) first."""
    return tuple(f.name for f in fields(policy))


def durations_of(policy: Policy) -> Iterator[tuple[str, tuple[Duration, ...]]]:
    """The parameters that are durations, or lists of them, and their values; those that are absent are left out."""
    for name, hint in _hints(type(policy)).items():
        value = getattr(policy, name)
        if value is not None and _is_of_durations(hint):
            yield name, value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True)
class Ticks:
    """The updates of an epoch on a clock that counts whole ticks: `first`, first + 1, ..., `per_epoch` of them an epoch.

    The epoch clock p = e + i / n has as many ticks an epoch as the epoch has updates.
    """

    first: int
    count: int
    per_epoch: int

    @staticmethod
    def of_epoch(epoch: int, num_updates: int) -> Ticks:
        """The epoch clock."""
        return Ticks(epoch * num_updates, num_updates, num_updates)

    @property
    def epochs(self) -> FloatArray:
        """Each update's position in epochs, shape (updates,)."""
        return np.arange(self.first, self.first + self.count) / self.per_epoch


def phase(ticks: Ticks, period: Fraction) -> tuple[NDArray[np.int64], FloatArray]:
    """Where each update of an epoch stands in cycles of `period` epochs: whole cycles done, share in [0, 1).

    The position is divided in whole numbers, so a cycle begins at exactly the right update however the
    period was written, and the same point of a cycle has the same float in every run. Floats miss
    restarts: torch's CosineAnnealingWarmRestarts.step(p) stays at the floor for one update at epoch
    121 T0 with T_mult 3, because its logarithm comes out just below 5.
    """
    divisor = ticks.per_epoch * period.numerator
    last = (ticks.first + ticks.count) * period.denominator
    exact = np.int64 if max(last, divisor) < 2**53 else object  # beyond, Python's integers: slow and exact
    done = np.arange(ticks.first, ticks.first + ticks.count).astype(exact) * period.denominator
    return (done // divisor).astype(np.int64), (done % divisor / divisor).astype(np.float64)


def require_absent(policy: Policy, names: Sequence[str], where: str) -> None:
    """Raise InputError for those of the parameters `names` that are given (not None): they exist only `where`."""
    given = [name for name in names if getattr(policy, name) is not None]
    if given:
        raise InputError([_fault(name, f"it only with {where}", getattr(policy, name)) for name in given])


def require(holds: bool, parameter: str, expected: str, arrived: object) -> None:
    """Raise InputError ``parameter: expected ...; got ...`` unless `holds`."""
    if not holds:
        raise InputError(_fault(parameter, expected, arrived))


def checked(policy: type[Policy], values: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
    """The `values` as the policy's annotations want them, and a sentence for each that does not fit.

    Whole numbers are converted for floats and lists for tuples, also inside lists; nothing else is
    repaired: truth values and strings are no numbers, 32.0 is no whole number. All names must exist.
    """
    fitting: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in values.items():
        try:
            fitting[name] = _converted(value, _hints(policy)[name])
        except (ValueError, OverflowError):
            faults.append(_fault(name, expected(policy, name), value) + _nearest(_hints(policy)[name], value))
    return fitting, faults


def expected(policy: type[Policy], parameter: str) -> str:
    """What a parameter's value must be, as the words after "expected"."""
    return _described(_hints(policy)[parameter])


@cache
def _hints(policy: type[Policy]) -> dict[str, Any]:
    return get_type_hints(policy, include_extras=True)


def _converted(value: Any, hint: Any) -> object:
    """`value` as the annotation `hint` wants it; an author's own types pass. Raises ValueError otherwise."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        converted = _converted(value, inner[0])
        fits = all(rule.holds(converted) for rule in inner[1:] if isinstance(rule, Rule))
    elif is_duration(hint):
        is_absent = value is None and NoneType in inner
        fits, converted = is_absent or isinstance(value, (int, float, str)), value
        if fits and not is_absent:
            in_epochs(value, 1, 1)  # raises ValueError for what is no duration
    elif origin in (Union, UnionType):
        return _first_that_fits(value, inner)
    elif origin in (tuple, list):
        fits = isinstance(value, (list, tuple))
        converted = tuple(_converted(item, inner[0]) for item in value) if fits else value
    elif origin is Literal:
        fits, converted = value in inner, value
    elif hint in (float, int):
        fits = isinstance(value, Real if hint is float else Integral) and not isinstance(value, bool)
        converted = hint(value) if fits else value
        fits = fits and math.isfinite(converted)
    else:
        fits, converted = hint not in (bool, str, NoneType) or isinstance(value, hint), value
    if not fits:
        raise ValueError(f"{value!r} is not {hint}")
    return converted


def is_duration(hint: Any) -> bool:
    """Whether an annotation is `Duration`, perhaps or None: a union flattens, so its three types are looked for."""
    return get_origin(hint) in (Union, UnionType) and set(get_args(Duration)) <= set(get_args(hint))


def _is_of_durations(hint: Any) -> bool:
    """Whether an annotation asks for a duration, a list of them, or either or nothing."""
    if get_origin(hint) in (Annotated, tuple, list):
        return _is_of_durations(get_args(hint)[0])
    is_union = get_origin(hint) in (Union, UnionType)
    return is_duration(hint) or (is_union and any(map(_is_of_durations, get_args(hint))))


def _first_that_fits(value: object, hints: Sequence[Any]) -> object:
    for hint in hints:
        try:
            return _converted(value, hint)
        except ValueError:
            continue
    raise ValueError(f"{value!r} is none of {hints}")


def _described(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return next(rule.expected for rule in reversed(inner) if isinstance(rule, Rule))
    if is_duration(hint):
        return "a duration, like 4, '25%' or '2000u'" + (" or null" if NoneType in inner else "")
    if origin in (Union, UnionType):
        return " or ".join(_described(option) for option in inner)
    if origin in (tuple, list):
        return f"a list of which each is {_described(inner[0])}"
    if origin is Literal:
        return " or ".join(filter(None, (", ".join(inner[:-1]), inner[-1])))
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", NoneType: "null"}
    return words.get(hint, str(hint))


def _fault(parameter: str, expected: str, arrived: object) -> str:
    return f"{parameter}: expected {expected}; got {'null' if arrived is None else repr(arrived)}"


def _nearest(hint: Any, arrived: object) -> str:
    """``. Did you mean 'this'?`` for a name that is almost one of those that the annotation lists."""
    names = [name for option in (hint, *get_args(hint)) if get_origin(option) is Literal for name in get_args(option)]
    near = get_close_matches(str(arrived), names, n=2)
    return f". Did you mean {' or '.join(map(repr, near))}?" if near else ""


def _over_sections(values: ArrayLike, shape: tuple[int, int]) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    return np.broadcast_to(array, shape)
