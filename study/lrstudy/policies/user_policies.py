"""Policies that users write, named by reference: a function of the epoch clock, or a class derived from Policy.

Both are pickled as the reference, the digest of the source and the values of the parameters. So another process imports
the user's file itself, and notices if it has changed.
"""

from __future__ import annotations

import copyreg
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import numpy as np

from lrstudy import user_code
from lrstudy.errors import Fault, InputError
from lrstudy.policies.base import Policy, RatePolicy
from lrstudy.policies.durations import Duration
from lrstudy.policies.parameters import is_duration
from lrstudy.policies.run import Run
from lrstudy.settings import FloatArray

_FORM = "def {name}(p: float, E: float, *, lr: float, ...) -> float"
_COMMON = ("lr", "batch_size", "momentum")


def policy_of(reference: str) -> type[Policy]:
    """The class of the policy that an absolute reference names; the same class as long as its source does not change.

    Raises InputError if the reference cannot be loaded, or names neither a function of the simple form nor a policy class.
    """
    return _policy(reference, user_code.digest(reference))


def values_of(policy: Policy) -> dict[str, Any]:
    """The values of a policy's parameters, by name."""
    return {f.name: getattr(policy, f.name) for f in fields(policy) if f.init}


@dataclass(frozen=True, kw_only=True)
class FunctionPolicy(RatePolicy):
    """A function (p, E, *, parameters) -> rate as a policy, called once per update.

    p is the epoch clock e + i/n and E the budget in epochs. The function returns one rate, or one per section.
    """

    function: ClassVar[Callable[..., Any]]
    file: ClassVar[Path]
    asked: ClassVar[tuple[str, ...]]
    """The parameters that the function takes."""
    hints: ClassVar[Mapping[str, Any]]
    """The annotations of these parameters. Durations, also those in tuples, are passed to the function in epochs."""

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """What the function returns at each update.

        Raises InputError, which names the update and the values, if it raises or returns something that is no rate.
        """
        values = {name: getattr(self, name) for name in self.asked}
        arguments = {name: self._argument(value, self.hints.get(name), run) for name, value in values.items()}
        updates, budget = self.initial_updates(run), float(run.num_epochs)
        answers = []
        for update in range(updates):
            p = epoch + update / updates
            where = f"at epoch {epoch}, update {update} (p = {p:.9g}, E = {budget:g})" + _shown(values)
            answers.append(_rates(self._answer(p, budget, arguments, where), self.name, run.num_sections, where))
        if len({len(rates) for rates in answers}) > 1:
            raise InputError(
                Fault(
                    "policy",
                    expected=f"of {self.name} one rate, or one per section, always",
                    got=f"both in epoch {epoch}",
                )
            )
        return np.array(answers, dtype=np.float64)

    def _answer(self, p: float, budget: float, arguments: Mapping[str, object], where: str) -> Any:
        """Call the function. Raises InputError for whatever it raises, with the line in the user's file."""
        try:
            return type(self).function(p, budget, **arguments)
        except (Exception, SystemExit) as error:
            line = user_code.line_in(error, self.file.parent)
            raise InputError(
                Fault("policy", f"{self.name} raised {type(error).__name__}: {error}{line} {where}")
            ) from error

    def _argument(self, value: Any, hint: Any, run: Run) -> object:
        """A parameter's value as it is passed to the function, with durations in epochs."""
        if value is None:
            return None
        if is_duration(hint):
            return float(self.epochs(value, run))
        if get_origin(hint) is Annotated:
            return self._argument(value, get_args(hint)[0], run)
        if get_origin(hint) in (tuple, list):
            return get_origin(hint)(self._argument(item, get_args(hint)[0], run) for item in value)
        return value


def _shown(values: Mapping[str, object]) -> str:
    return ", with " + ", ".join(f"{name} = {value!r}" for name, value in values.items())


def _rates(answer: Any, name: str, num_sections: int, where: str) -> Sequence[float]:
    """The rates in a function's answer for one update: one, or one per section. Raises InputError for anything else."""
    plain = answer.tolist() if isinstance(answer, (np.ndarray, np.generic)) else answer
    rates = plain if isinstance(plain, (list, tuple)) else [plain]
    if not all(isinstance(rate, Real) and not isinstance(rate, bool) for rate in rates):
        raise InputError(
            Fault("policy", expected=f"of {name} a number, or one per section", got=f"{_short(answer)} {where}")
        )
    if len(rates) not in (1, num_sections):
        raise InputError(
            Fault(
                "policy", expected=f"of {name} 1 rate or {num_sections}, one per section", got=f"{len(rates)} {where}"
            )
        )
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        raise InputError(
            Fault("policy", expected=f"of {name} a finite rate of at least 0", got=f"{_short(answer)} {where}")
        )
    return [float(rate) for rate in rates]


def _short(value: object) -> str:
    text = "nothing (it has no return there)" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@cache
def _policy(reference: str, source: str) -> type[Policy]:
    parsed = user_code.Reference.parse(reference)
    named = user_code.load(reference, source=source)
    if isinstance(named, type) and issubclass(named, Policy):
        policy = _of_class(named)
    elif inspect.isfunction(named):
        policy = _of_function(named, parsed)
    else:
        raise InputError(
            Fault(
                "policy",
                expected=f"{parsed.name} in {parsed.path} to be a function ({_FORM.format(name=parsed.name)}) or a class "
                "derived from lrstudy.policies.Policy",
                got=_short(named),
            )
        )
    copyreg.pickle(policy, lambda one: (_rebuild, (reference, source, values_of(one))))
    return policy


def _rebuild(reference: str, source: str, values: dict[str, Any]) -> Policy:
    """Unpickle a policy. Raises InputError if the source is no longer the one that it was pickled with."""
    return _policy(reference, source)(**values)


def _of_class(policy: type[Policy]) -> type[Policy]:
    """The class itself, with its class name as `name` if it defines none. Raises InputError if it cannot be used."""
    if missing := sorted(getattr(policy, "__abstractmethods__", ())):
        raise InputError(Fault("policy", f"{policy.__name__} does not define {', '.join(missing)}"))
    hints = vars(policy).get("__annotations__", {})
    parameters = [name for name, hint in hints.items() if "ClassVar" not in str(hint)]
    if parameters and "__dataclass_params__" not in vars(policy):
        raise InputError(
            Fault(
                "policy",
                f"{policy.__name__} has parameters ({', '.join(parameters)}) but is no dataclass: write "
                "@dataclass(frozen=True, kw_only=True) above it",
            )
        )
    if not isinstance(getattr(policy, "name", None), str):
        policy.name = policy.__name__
    return policy


def _of_function(function: Callable[..., Any], reference: user_code.Reference) -> type[Policy]:
    """A policy class whose parameters are the function's keyword-only ones. Raises InputError with every fault."""
    parameters = inspect.signature(function).parameters.values()
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    try:
        hints = get_type_hints(function, include_extras=True, localns={"Duration": Duration, "Annotated": Annotated})
    except (NameError, TypeError) as error:
        raise InputError(Fault("policy", f"an annotation of {reference.name} cannot be resolved: {error}")) from None
    faults = [*_signature_faults(reference.name, parameters), *_keyword_faults(reference.name, keywords, hints)]
    if faults:
        raise InputError(faults)
    members = {
        "__module__": function.__module__, "__doc__": function.__doc__, "name": reference.name,
        "function": staticmethod(function), "file": reference.path, "asked": tuple(p.name for p in keywords),
        "hints": hints,
    }  # fmt: skip
    try:
        return make_dataclass(
            reference.name, [_field(p, hints[p.name]) for p in keywords if p.name not in _COMMON],
            bases=(FunctionPolicy,), namespace=members, frozen=True, kw_only=True,
        )  # fmt: skip
    except (TypeError, ValueError) as error:  # a default that cannot be shared, such as a map
        raise InputError(
            Fault("policy", f"{reference.name} has a parameter that a policy cannot have: {error}")
        ) from None


def _signature_faults(name: str, parameters: Any) -> list[Fault]:
    """How a function's signature departs from the simple form."""
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    form = _FORM.format(name=name)
    if len(positional) != 2 or any(p.kind not in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY) for p in positional):
        return [Fault("policy", expected=f"{name} to take the epoch clock p and the budget E, then keywords: {form}")]
    if "lr" not in [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]:
        return [Fault("policy", expected=f"{name} to take lr, the peak rate, as a keyword: {form}")]
    return []


def _keyword_faults(name: str, keywords: Sequence[inspect.Parameter], hints: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of a function's keyword-only parameters: defaults, names and types that a policy cannot have."""
    for parameter in keywords:
        if parameter.name in _COMMON and parameter.default is not parameter.empty:
            problem = f"may not give {parameter.name} a default: it is the study's, common.{parameter.name}"
            yield Fault("policy", f"{name} {problem}")
    for parameter in keywords:
        if parameter.name in _COMMON:
            continue
        if parameter.name in _taken():
            problem = f"may not call a parameter {parameter.name!r}: policies have that name"
            yield Fault("policy", f"{name} {problem}")
        if parameter.name not in hints:
            yield Fault("policy", f"{name} needs a type for {parameter.name}, like {parameter.name}: float")


def _field(parameter: inspect.Parameter, hint: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    if parameter.default is parameter.empty:
        return parameter.name, hint
    default = tuple(parameter.default) if isinstance(parameter.default, list) else parameter.default
    return parameter.name, hint, field(default=default)


def _taken() -> set[str]:
    """The names of the members of a policy class, which a parameter of the same name would hide."""
    return {name for c in FunctionPolicy.__mro__ for name in (*vars(c), *vars(c).get("__annotations__", ()))}
