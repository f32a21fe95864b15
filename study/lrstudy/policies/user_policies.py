"""Policies of a user's own, named by reference: a function of the epoch clock, or a class derived from Policy.

Both are found in the user's file and pickled as the reference, the digest of its source and the values of the
parameters, so that another process imports the file itself and notices if it has changed.
"""

from __future__ import annotations

import copyreg
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
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
    """The policy that an absolute reference names; the same class as long as its source does not change.

    Raises InputError if it cannot be loaded or is neither a function of the simple form nor a policy class.
    """
    return _policy(reference, user_code.digest(reference))


def values_of(policy: Policy) -> dict[str, Any]:
    """The values of a policy's parameters, by name."""
    return {f.name: getattr(policy, f.name) for f in fields(policy) if f.init}


@dataclass(frozen=True, kw_only=True)
class FunctionPolicy(RatePolicy):
    """A function (p, E, *, parameters) -> rate as a policy, called once per update.

    p is the epoch clock e + i/n, E the budget in epochs; the function answers one rate, or one per section.
    """

    function: ClassVar[Callable[..., Any]]
    file: ClassVar[Path]
    asked: ClassVar[tuple[str, ...]]
    """The parameters that the function takes."""
    hints: ClassVar[Mapping[str, Any]]
    """Their annotations: durations, also in tuples, arrive in epochs."""

    def rates(self, epoch: int, run: Run) -> FloatArray:
        """What the function answers at each update; InputError for what is no rate, with the update and the values."""
        given = {name: getattr(self, name) for name in self.asked}
        arriving = {name: self._arriving(value, self.hints.get(name), run) for name, value in given.items()}
        updates, budget = self.initial_updates(run), float(run.num_epochs)
        answers = []
        for update in range(updates):
            p = epoch + update / updates
            where = f"at epoch {epoch}, update {update} (p = {p:.9g}, E = {budget:g})" + _shown(given)
            try:
                answer = type(self).function(p, budget, **arriving)
            except (Exception, SystemExit) as error:
                line = user_code.line_in(error, self.file.parent)
                raise InputError(
                    Fault("policy", f"{self.name} raised {type(error).__name__}: {error}{line} {where}")
                ) from error
            answers.append(_rates(answer, self.name, run.num_sections, where))
        if len({len(rates) for rates in answers}) > 1:
            raise InputError(
                Fault(
                    "policy",
                    expected=f"of {self.name} one rate, or one per section, always",
                    got=f"both in epoch {epoch}",
                )
            )
        return np.array(answers, dtype=np.float64)

    def _arriving(self, value: Any, hint: Any, run: Run) -> object:
        """A parameter's value as the function gets it: durations in epochs."""
        if value is None:
            return None
        if is_duration(hint):
            return float(self.epochs(value, run))
        if get_origin(hint) is Annotated:
            return self._arriving(value, get_args(hint)[0], run)
        if get_origin(hint) in (tuple, list):
            return get_origin(hint)(self._arriving(item, get_args(hint)[0], run) for item in value)
        return value


def _shown(values: Mapping[str, object]) -> str:
    return ", with " + ", ".join(f"{name} = {value!r}" for name, value in values.items())


def _rates(answer: Any, name: str, num_sections: int, where: str) -> Sequence[float]:
    """The rates that a function has answered for one update: one, or one per section. Raises InputError."""
    arrived = answer.tolist() if isinstance(answer, (np.ndarray, np.generic)) else answer
    rates = arrived if isinstance(arrived, (list, tuple)) else [arrived]
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
    found = user_code.load(reference, source=source)
    if isinstance(found, type) and issubclass(found, Policy):
        policy = _of_class(found)
    elif inspect.isfunction(found):
        policy = _of_function(found, parsed)
    else:
        raise InputError(
            Fault(
                "policy",
                expected=f"{parsed.name} in {parsed.path} to be a function ({_FORM.format(name=parsed.name)}) or a class "
                "derived from lrstudy.policies.Policy",
                got=_short(found),
            )
        )
    copyreg.pickle(policy, lambda one: (_rebuild, (reference, source, values_of(one))))
    return policy


def _rebuild(reference: str, source: str, values: dict[str, Any]) -> Policy:
    """A pickled policy, with the source that it was pickled with; InputError if the file has changed."""
    return _policy(reference, source)(**values)


def _of_class(policy: type[Policy]) -> type[Policy]:
    """The class itself, called after itself if it has no name. Raises InputError for what Python accepts and we cannot use."""
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
    parsed = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    faults = list(_shape_faults(reference.name, parameters))
    try:
        hints = get_type_hints(function, include_extras=True, localns={"Duration": Duration, "Annotated": Annotated})
    except (NameError, TypeError) as error:
        raise InputError(Fault("policy", f"an annotation of {reference.name} cannot be resolved: {error}")) from None
    added = [p for p in parsed if p.name not in _COMMON]
    faults += [
        Fault("policy", f"{reference.name} may not give {p.name} a default: it is the study's, common.{p.name}")
        for p in parsed
        if p.name in _COMMON and p.default is not p.empty
    ]
    for parameter in added:
        if parameter.name in _taken():
            problem = f"{reference.name} may not call a parameter {parameter.name!r}: policies have that name"
            faults.append(Fault("policy", problem))
        if parameter.name not in hints:
            problem = f"{reference.name} needs a type for {parameter.name}, like {parameter.name}: float"
            faults.append(Fault("policy", problem))
    if faults:
        raise InputError(faults)
    members = {
        "__module__": function.__module__, "__doc__": function.__doc__, "name": reference.name,
        "function": staticmethod(function), "file": reference.path, "asked": tuple(p.name for p in parsed),
        "hints": hints,
    }  # fmt: skip
    try:
        return make_dataclass(
            reference.name, [_field(p, hints[p.name]) for p in added],
            bases=(FunctionPolicy,), namespace=members, frozen=True, kw_only=True,
        )  # fmt: skip
    except (TypeError, ValueError) as error:  # a default that cannot be shared, such as a map
        raise InputError(
            Fault("policy", f"{reference.name} has a parameter that a policy cannot have: {error}")
        ) from None


def _shape_faults(name: str, parameters: Any) -> list[Fault]:
    """What of a signature is not of the simple form."""
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    form = _FORM.format(name=name)
    if len(positional) != 2 or any(p.kind not in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY) for p in positional):
        return [Fault("policy", expected=f"{name} to take the epoch clock p and the budget E, then keywords: {form}")]
    if "lr" not in [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]:
        return [Fault("policy", expected=f"{name} to take lr, the peak rate, as a keyword: {form}")]
    return []


def _field(parameter: inspect.Parameter, hint: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    if parameter.default is parameter.empty:
        return parameter.name, hint
    default = tuple(parameter.default) if isinstance(parameter.default, list) else parameter.default
    return parameter.name, hint, field(default=default)


def _taken() -> set[str]:
    """The names that a parameter would hide."""
    return {name for c in FunctionPolicy.__mro__ for name in (*vars(c), *vars(c).get("__annotations__", ()))}
