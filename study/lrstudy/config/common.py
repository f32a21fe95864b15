"""The common parameters, which all policies share: what each may be, its default and its meaning, written here alone.

The study file, the checks of arms, the JSON Schema, `lrstudy trace` and the documentation's table derive from `COMMON`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from lrstudy.annotations import description, reader
from lrstudy.errors import Fault
from lrstudy.policies.parameters import BelowOne, Count, LearningRate, unfit, unfit_by
from lrstudy.search.parameter import Configuration, Value
from lrstudy.settings import OPTIMIZER_CONSTANTS, Optimizer, Tail

INITIAL = "initial"
"""A norm_batch of the trial's own batch_size."""


@dataclass(frozen=True)
class CommonParameter:
    """A parameter that all policies share.

    Args:
        name: What study files call it.
        annotation: What one value may be.
        default: Its value or space where a study file says nothing.
        meaning: What it does, for the documentation.
        is_optional: Whether configurations lack it while it is left at its default.
        is_traced: Whether it decides how an epoch's examples become updates, so that a trace without a study takes it.
    """

    name: str
    annotation: Any
    default: Value
    meaning: str
    is_optional: bool = True
    is_traced: bool = False


_Positive = Annotated[float, Field(gt=0, description="a number above 0")]
_COMMON = (
    CommonParameter(
        "lr", LearningRate, {"log": [1e-3, 1.0], "steps": 10},
        "the peak rate; floors, ends and the rates of sections are ratios of it", is_optional=False,
    ),
    CommonParameter("batch_size", Count, 32, "examples of an update", is_optional=False),
    CommonParameter(
        "momentum", BelowOne, 0.9,
        "momentum; Adam's and AdamW's beta1; 0 with `rmsprop` and `rmsprop_keras` unless it is written beside them", is_optional=False,
    ),
    CommonParameter("weight_decay", BelowOne, 5e-4, "L2 penalty, decoupled with AdamW", is_optional=False),
    CommonParameter("optimizer", Optimizer, "sgd", "which optimizer, as torch has it; `rmsprop_keras` as Keras 3 has it"),
    CommonParameter("nesterov", bool, False, "Nesterov's momentum; with `sgd` only"),
    CommonParameter(
        "tail", Tail, "keep", "`keep` the last, smaller batch of an epoch, or `drop` it; a tail of one example joins the batch before it",
        is_traced=True,
    ),
    CommonParameter(
        "clip_norm", Annotated[_Positive | None, Field(description="a number above 0, or null for none")], None,
        "largest norm of the gradient, over all parameters; null: not clipped",
    ),
    CommonParameter("beta2", BelowOne | None, None, "with `adam` and `adamw`; null: 0.999"),
    CommonParameter("eps", _Positive | None, None, "with all but `sgd`; null: 1e-8, with `rmsprop_keras` 1e-7"),
    CommonParameter("alpha", BelowOne | None, None, "with `rmsprop` and `rmsprop_keras`, Keras' rho; null: 0.99 and 0.9"),
    CommonParameter(
        "norm_batch",
        Annotated[
            Literal["initial"] | Count | None,
            Field(description="a whole number of examples, initial (the trial's batch_size), or null"),
        ],
        None, "BatchNorm takes its statistics over so many examples; `initial`: over the trial's `batch_size`; null: over the batch",
        is_traced=True,
    ),
    CommonParameter(
        "micro_batch", Annotated[Count | None, Field(description="a whole number of examples, or null")], None,
        "gradients are gathered over so many examples at a time, with the update of the whole batch; with BatchNorm this needs "
        "a `norm_batch` that divides it", is_traced=True,
    ),
)  # fmt: skip
COMMON: Mapping[str, CommonParameter] = {parameter.name: parameter for parameter in _COMMON}
_WITHOUT_MOMENTUM = ("rmsprop", "rmsprop_keras")
OF_POLICIES = ("lr", "batch_size", "momentum")
"""The common parameters that every policy has; the others belong to the recipe."""


def default_momentum(optimizer: object) -> float:
    """The momentum of an optimizer for which none was given: 0 with RMSprop, as in torch and Keras, which SGD's would upset."""
    return 0.0 if optimizer in _WITHOUT_MOMENTUM else float(COMMON["momentum"].default)


def documentation() -> str:
    """The common parameters as a Markdown table: name, what one value may be, default, meaning."""
    rows = ["| parameter | a value is | default | |", "|---|---|---|---|"]
    for parameter in COMMON.values():
        default = json.dumps(parameter.default) if not isinstance(parameter.default, str) else parameter.default
        rows.append(f"| `{parameter.name}` | {description(parameter.annotation)} | `{default}` | {parameter.meaning} |")
    return "\n".join(rows)


def is_left_out(name: str, spec: object) -> bool:
    """Whether configurations lack a parameter that a study gives as `spec`."""
    parameter = COMMON.get(name)
    return (
        parameter is not None and parameter.is_optional and not isinstance(spec, Mapping) and spec == parameter.default
    )


def recipe_faults(configuration: Configuration) -> Iterator[Fault]:
    """The faults of a configuration's recipe: values out of range, and values that do not go together."""
    is_sound = True
    for name, parameter in COMMON.items():
        if name in configuration and name not in OF_POLICIES:
            try:
                reader(parameter.annotation)(configuration[name])
            except ValueError:
                is_sound &= name != "optimizer"
                yield unfit_by(parameter.annotation, name, configuration[name])
    if is_sound:
        yield from _conflicts_with_optimizer(configuration)


def _conflicts_with_optimizer(configuration: Configuration) -> Iterator[Fault]:
    """Constants that the optimizer does not have, and Nesterov's momentum without SGD or without momentum."""
    optimizer = str(configuration.get("optimizer", COMMON["optimizer"].default))
    for name in ("beta2", "eps", "alpha"):
        if configuration.get(name) is not None and name not in OPTIMIZER_CONSTANTS[optimizer]:
            having = ", ".join(o for o, constants in OPTIMIZER_CONSTANTS.items() if name in constants)
            expected = f"it only with an optimizer that has it ({having})"
            yield Fault(name, expected=expected, got=f"optimizer {optimizer}")
    if configuration.get("nesterov") is not True:
        return
    if optimizer != "sgd":
        yield Fault("nesterov", expected="it only with optimizer sgd", got=f"optimizer {optimizer}")
    elif not configuration.get("momentum", COMMON["momentum"].default):
        yield unfit("nesterov", "a momentum above 0 with it", 0)
