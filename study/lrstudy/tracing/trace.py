"""A trace: what a policy does with the learning rate of every update, momentum and batch size, without training.

The numbers are those that training would get: settings as applied, rounded once to 9 significant digits. torch is not
imported, unless a policy is one of torch's schedulers or imports it itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lrstudy import user_code
from lrstudy.config.common import COMMON
from lrstudy.errors import Fault, InputError
from lrstudy.policies.base import Policy
from lrstudy.policies.run import History, Run
from lrstudy.policies.user_policies import values_of
from lrstudy.settings import DIGITS, FloatArray, Settings

By = Literal["update", "epoch"]

RECIPE_PARAMETERS = tuple(parameter.name for parameter in COMMON.values() if parameter.is_traced)
"""The common parameters that a trace without a study takes for the recipe."""


@dataclass(frozen=True, eq=False)
class Trace:
    """The settings of every epoch of one run of a policy.

    Attributes:
        label: What charts and messages call it: the policy's name or reference, or the arm's name.
        policy: The policy.
        run: The run that it decided for.
        settings: The settings of each epoch.
        num_known: How many epochs had metrics that a reactive policy could react to.
    """

    label: str
    policy: Policy
    run: Run
    settings: tuple[Settings, ...]
    num_known: int = 0

    @staticmethod
    def of(label: str, policy: Policy, run: Run, history: History = ()) -> Trace:
        """Trace a policy.

        Args:
            label: What the trace is called; errors begin with it.
            policy: The policy, which is asked for the settings of every epoch.
            run: The run.
            history: The metrics of the first epochs, oldest first; later epochs have none.

        Raises:
            InputError: The policy refuses the run, or a user's policy raises any exception.
        """
        try:
            settings = tuple(policy.settings(epoch, history[:epoch], run) for epoch in range(run.num_epochs))
        except InputError as error:
            raise error.within(label, ": ") from None
        except ValueError as error:
            raise InputError(Fault(label, str(error))) from None
        except Exception as error:
            if not user_code.is_reference(label):
                raise
            line = user_code.line_in(error, Path(inspect.getfile(type(policy))).parent)
            raise InputError(Fault(label, f"settings raised {type(error).__name__}: {error}{line}")) from error
        return Trace(label, policy, run, settings, len(history))

    @cached_property
    def clock(self) -> FloatArray:
        """The position of each update in epochs, shape (updates of the run,)."""
        return np.concatenate([e + np.arange(s.num_updates) / s.num_updates for e, s in enumerate(self.settings)])

    @cached_property
    def lr(self) -> FloatArray:
        """The unrounded rate of each update and section, shape (updates, sections); the head is the last section."""
        return np.concatenate([s.unrounded_lr for s in self.settings])

    @cached_property
    def momentum(self) -> FloatArray:
        """The momentum of each update (Adam's beta1), shape (updates,); all sections have the same."""
        return np.concatenate([s.momentum[:, -1] for s in self.settings])

    @cached_property
    def batch(self) -> FloatArray:
        """The batch size of each epoch, shape (epochs,)."""
        return np.array([s.batch_size for s in self.settings], dtype=np.float64)

    @property
    def notes(self) -> list[str]:
        """What a reader of this trace should know, a sentence each."""
        notes = list(self.policy.caveats())
        if self.policy.reactive and not self.num_known:
            metric = getattr(self.policy, "metric", None)
            looks = f"looks at {metric}" if metric else "looks at results"
            notes.append(f"{self.label} {looks}; without --metrics nothing triggers.")
        return notes

    def to_json(self, by: By = "update") -> dict[str, Any]:
        """JSON values. `lr_per_step[k]` is the rate of update k of the run, of the head if sections differ.

        Rates are unrounded; training applies them rounded to `rounded_to_digits` significant digits.
        """
        return {
            "policy": self.label if user_code.is_reference(self.label) else self.policy.name,
            "label": self.label,
            "parameters": _with_lists(values_of(self.policy)),
            "recipe": {name: getattr(self.run.recipe, name) for name in RECIPE_PARAMETERS},
            "epochs": self.run.num_epochs,
            "examples": self.run.num_examples,
            "sections": self.run.num_sections,
            "rounded_to_digits": DIGITS,
            "batch_size_per_epoch": [s.batch_size for s in self.settings],
            "updates_per_epoch": [s.num_updates for s in self.settings],
            **(self._of_updates() if by == "update" else self._of_epochs()),
            "caveats": list(self.policy.caveats()),
            "notes": self.notes,
        }

    def _of_updates(self) -> dict[str, Any]:
        values: dict[str, Any] = {"lr_per_step": self.lr[:, -1].tolist()}
        if self.run.num_sections > 1:
            values["lr_per_step_sections"] = self.lr.T.tolist()
        return values | {"momentum_per_step": self.momentum.tolist()}

    def _of_epochs(self) -> dict[str, Any]:
        values: dict[str, Any] = {"lr_per_epoch": _summaries([s.unrounded_lr[:, -1] for s in self.settings])}
        if self.run.num_sections > 1:
            values["lr_per_epoch_sections"] = [
                _summaries([s.unrounded_lr[:, k] for s in self.settings]) for k in range(self.run.num_sections)
            ]
        return values | {"momentum_per_epoch": _summaries([s.momentum[:, -1] for s in self.settings])}


def _summaries(epochs: Sequence[FloatArray]) -> dict[str, list[float]]:
    return {
        "first": [float(values[0]) for values in epochs],
        "min": [float(values.min()) for values in epochs],
        "max": [float(values.max()) for values in epochs],
        "last": [float(values[-1]) for values in epochs],
    }


def _with_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
