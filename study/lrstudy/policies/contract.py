"""The contract of a policy as a suite of checks: for built-in policies, torch's schedulers and users' policies."""

from __future__ import annotations

import os
import pickle
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy import child_process, user_code
from lrstudy.errors import Fault, InputError
from lrstudy.policies import build_from, resolve
from lrstudy.policies.base import Policy, parameter_names
from lrstudy.policies.run import History, Run
from lrstudy.settings import Settings

RUNS = (Run(3200, 20, 3), Run(301, 7, 3), Run(97, 4, 3))
"""A run of 100 updates per epoch, one with a smaller last batch, and a small one whose last batch has one example.

All have three sections, as models have.
"""
COMMON: Mapping[str, object] = {"lr": 0.1, "batch_size": 32}
"""Values for the parameters that have no default in any policy."""
_METRICS = ("accuracy", "balanced_accuracy", "auroc", "average_precision", "f1", "exact_match")
_FRESH_S = 120.0
_CHILD = (
    "import pickle, sys\n"
    "policy, runs = pickle.load(sys.stdin.buffer)\n"
    "for run in runs:\n"
    "    print(*(policy.settings(epoch, (), run).digest for epoch in range(run.num_epochs)))\n"
)


def check(
    policy: type[Policy],
    parameters: Mapping[str, object] | None = None,
    runs: Sequence[Run] = RUNS,
    in_fresh_process: bool = True,
) -> list[Fault]:
    """How a policy breaks the contract; an empty list if it keeps it.

    Settings must be complete, finite and of the right shape. They must be the same whenever they are asked for: in any
    order, with any history (for a reactive policy, with the same one), from a pickled copy, and in another process.
    Neither the arguments nor the global random generators may change.

    Args:
        policy: The class of the policy.
        parameters: Its values. Those left out take their defaults, or for `lr` and `batch_size` the values of `COMMON`.
        runs: The runs to check in. Those that the policy refuses, for example because they are shorter than its
            warm-up, are skipped.
        in_fresh_process: Whether another process is started for the last check.

    Returns:
        The faults of the first rule that is broken. If the policy refuses all runs, the faults of the first run.
    """
    try:
        instance = build_from(policy, {**COMMON, **(parameters or {})})
    except InputError as error:
        return list(error.faults)
    except Exception as error:  # a user's __post_init__ may raise anything
        return [Fault("", f"it cannot be made: {_said(error)}")]
    fitting = [run for run in runs if not refusal(instance, run)]
    if not fitting:
        return refusal(instance, runs[0])
    for run in fitting:
        for rule in (_answers, _is_pure, _history_is_used_as_declared, _cycles_end_with_epochs, _copies):
            if faults := list(dict.fromkeys(rule(instance, run))):
                return faults  # later rules and other runs would report the same in other words
    return list(_in_a_fresh_process(instance, fitting)) if in_fresh_process else []


def refusal(policy: Policy, run: Run) -> list[Fault]:
    """Why a policy with these values refuses a run: its parameters do not fit, or a batch exceeds the training set."""
    try:
        for epoch in range(run.num_epochs):
            batch_size = policy.settings(epoch, (), run).batch_size
            if batch_size > run.num_examples:
                most = f"at most the {run.num_examples} training examples"
                return [Fault("batch_size", expected=most, got=f"{batch_size} in epoch {epoch}")]
    except InputError as error:
        is_of_parameters = all(fault.where in parameter_names(type(policy)) for fault in error.faults)
        return list(error.faults) if is_of_parameters else []
    except Exception:
        return []  # the rules report it
    return []


def validate_policy(text: str, base: Path, parameters: Mapping[str, object] | None = None) -> list[str]:
    """Check a policy by name, or by a reference relative to `base`, with these parameters.

    Returns lines that describe the policy and the checks. Raises InputError with every fault.
    """
    name = user_code.resolve(text, base) if user_code.is_reference(text) else text
    policy = resolve(name)
    if faults := check(policy, parameters):
        raise InputError([fault if fault.where == "policy" else fault.within(text, ": ") for fault in faults])
    instance = build_from(policy, {**COMMON, **(parameters or {})})
    kind = "reactive: it looks at results" if policy.reactive else "not reactive: its settings are known beforehand"
    lines = [f"{text} is a valid policy ({kind}).", f"  parameters: {', '.join(_parameters(instance))}"]
    if user_code.is_reference(name):
        names = ", ".join(str(file.relative_to(Path(name).parent)) for file in user_code.files(name))
        lines.append(f"  source: {user_code.digest(name)} ({names})")
    refused = {run: faults for run in RUNS if (faults := refusal(instance, run))}
    asked = [_words(run) for run in RUNS if run not in refused]
    lines.append(f"  asked for {', '.join(asked)}: pure, in any order, alike in another process.")
    lines += [f"  not for {_words(run)}: {faults[0]}" for run, faults in refused.items()]
    return [*lines, *(f"  caveat: {caveat}" for caveat in instance.caveats())]


def _words(run: Run) -> str:
    return f"{run.num_epochs} epochs of {run.num_examples} examples"


def _parameters(policy: Policy) -> Iterator[str]:
    for f in fields(policy):
        yield f.name if f.default is MISSING else f"{f.name} = {getattr(policy, f.name)!r}"


def _histories(run: Run) -> dict[str, History]:
    """Metrics of a whole run that improves, stands still, or gets worse."""
    slopes = {"improving": -0.01, "standing still": 0.0, "worsening": 0.01}
    return {words: [_metrics(1 + slope * epoch) for epoch in range(run.num_epochs)] for words, slope in slopes.items()}


def _metrics(loss: float) -> dict[str, float]:
    return {"train_loss": loss, "val_loss": loss, **{f"val_{name}": 1 - loss / 2 for name in _METRICS}}


def _answers(policy: Policy, run: Run) -> Iterator[Fault]:
    """Every epoch has settings that fit the run."""
    for epoch in range(run.num_epochs):
        try:
            settings: object = policy.settings(epoch, (), run)
        except InputError as error:
            yield from error.faults
            return
        except Exception as error:
            yield Fault("", f"settings of epoch {epoch} raised {_said(error, policy)}")
            return
        if not isinstance(settings, Settings):
            expected = "what run.settings(lr, momentum, batch_size) gives"
            yield Fault(f"settings of epoch {epoch}", expected=expected, got=f"{settings!r}")
            return
        shape = (run.num_updates(settings.batch_size), run.num_sections)
        if settings.lr.shape != shape:
            expected = f"rates of shape {shape} (updates, sections) with a batch of {settings.batch_size}"
            yield Fault(f"settings of epoch {epoch}", expected=expected, got=f"{settings.lr.shape}")
            return


def _is_pure(policy: Policy, run: Run) -> Iterator[Fault]:
    """Asking again, in any order, gives the same settings; neither arguments nor global generators change."""
    history = tuple(_histories(run)["standing still"])
    arguments = deepcopy((history, run))
    before = _generators()
    forth = _digests(policy, history, run)
    after = _generators()
    yield from (
        Fault("", f"it draws from the global generator of {name}: draw from one of its own, seeded with a parameter")
        for name in before.keys() & after.keys()
        if before[name] != after[name]
    )
    backwards = range(run.num_epochs - 1, -1, -1)
    back = [_asked(policy, epoch, history[:epoch], run) for epoch in backwards]
    again = [_asked(policy, epoch, history[:epoch], run) for epoch in backwards]
    differing = [e for e in range(run.num_epochs) if not forth[e] == back[-1 - e] == again[-1 - e]]
    if differing:
        yield Fault(
            "",
            f"settings of epoch {differing[0]} depend on when they are asked for: expected the same answer each time",
        )
    if (history, run) != arguments:
        yield Fault("", "settings changed the history or the run that it was given")


def _history_is_used_as_declared(policy: Policy, run: Run) -> Iterator[Fault]:
    """A policy that is not reactive ignores the history; a reactive one also works with a history that is too short."""
    expected = _digests(policy, (), run)
    for words, history in _histories(run).items():
        for known in sorted({run.num_epochs, run.num_epochs // 2, 1, 0}, reverse=True):
            try:
                digests = [policy.settings(e, history[: min(e, known)], run).digest for e in range(run.num_epochs)]
            except Exception as error:
                yield Fault("", f"with the metrics of {known} epochs ({words}), settings raised {_said(error, policy)}")
                return
            if not policy.reactive and digests != expected:
                yield Fault("", "settings look at the history: a policy that does so says reactive = True in its class")
                return


def _cycles_end_with_epochs(policy: Policy, run: Run) -> Iterator[Fault]:
    """Cycles end with whole epochs of the run, in order."""
    try:
        ends = list(policy.cycle_ends(run))
    except Exception as error:
        yield Fault("", f"cycle_ends raised {_said(error, policy)}")
        return
    known = range(1, run.num_epochs + 1)
    if not all(type(end) is int and end in known for end in ends) or ends != sorted(ends):
        expected = f"rising numbers of epochs from 1 to {run.num_epochs}"
        yield Fault("cycle_ends", expected=expected, got=f"{ends}")


def _copies(policy: Policy, run: Run) -> Iterator[Fault]:
    """A pickled copy is equal, and has the same hash and the same settings."""
    try:
        copy = pickle.loads(pickle.dumps(policy))
        is_alike = copy == policy and hash(copy) == hash(policy)
    except Exception as error:
        yield Fault("", f"it cannot be pickled or hashed: {_said(error, policy)}")
        return
    if not is_alike or _digests(copy, (), run) != _digests(policy, (), run):
        yield Fault("", "a pickled copy of it is not equal to it or answers otherwise")


def _in_a_fresh_process(policy: Policy, runs: Sequence[Run]) -> Iterator[Fault]:
    """Another process, at a later time and with another hash seed, gets the same settings."""
    child = child_process.run_python(
        ["-c", _CHILD],
        stdin=pickle.dumps((policy, tuple(runs))),
        variables={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "4242"},
        timeout_s=_FRESH_S,
    )
    if child.returncode:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        yield Fault("", f"in another process it fails: {''.join(last)}")
    elif child.stdout.decode().split() != [digest for run in runs for digest in _digests(policy, (), run)]:
        yield Fault(
            "",
            "in another process it answers otherwise: does it depend on the time, the environment or the order of a set?",
        )


def _asked(policy: Policy, epoch: int, history: History, run: Run) -> str:
    return _outcome(lambda: policy.settings(epoch, history, run).digest)


def _digests(policy: Policy, history: History, run: Run) -> list[str]:
    return [_asked(policy, epoch, history[:epoch], run) for epoch in range(run.num_epochs)]


def _outcome(ask: Callable[[], str]) -> str:
    """The digest of settings, or the text of the exception if there is one; the two are compared alike."""
    try:
        return ask()
    except Exception as error:
        return _said(error)


def _said(error: Exception, policy: Policy | None = None) -> str:
    file = getattr(sys.modules.get(type(policy).__module__), "__file__", None) if policy is not None else None
    return f"{type(error).__name__}: {error}{user_code.line_in(error, Path(file).parent) if file else ''}"


def _generators() -> dict[str, Any]:
    """The state of the global random generators, torch's only if torch is imported."""
    states: dict[str, Any] = {"random": random.getstate(), "numpy": str(np.random.get_state(legacy=False))}
    torch = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = torch.get_rng_state().numpy().tobytes()
    return states
