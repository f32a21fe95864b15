"""The metrics that a reactive policy sees in a trace, as `--metrics` gives them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lrstudy.errors import Fault, InputError
from lrstudy.policies.base import Policy
from lrstudy.policies.run import History


def read_metrics(texts: Iterable[str], num_epochs: int) -> list[dict[str, float]]:
    """The metrics of finished epochs, one map per epoch.

    Each text is either ``val_loss=1.0,0.9`` or a JSON file, which holds lists by name or a list with one map per epoch.
    Later texts add to earlier ones. ``nan`` and null stand for a metric that an epoch does not have. Raises InputError
    if a text cannot be read or has values for more than `num_epochs` epochs.
    """
    columns: dict[str, list[float | None]] = {}
    for text in texts:
        columns |= _column(text) if "=" in text else _columns_of_file(Path(text))
    longest = max(map(len, columns.values()), default=0)
    if longest > num_epochs:
        raise InputError(
            Fault("--metrics", expected=f"at most the {num_epochs} epochs of the run", got=f"{longest} values")
        )
    history: list[dict[str, float]] = [{} for _ in range(longest)]
    for name, values in columns.items():
        for metrics, value in zip(history, values, strict=False):  # columns may be shorter than the longest
            if value is not None:
                metrics[name] = value
    return history


def check_metrics(label: str, policy: Policy, history: History) -> None:
    """Raise InputError if `policy`, called `label`, reacts to a metric that no epoch of a given history has."""
    metric = getattr(policy, "metric", None)
    if policy.reactive and history and metric is not None and not any(metric in epoch for epoch in history):
        names = sorted({name for epoch in history for name in epoch})
        raise InputError(Fault("--metrics", f"{label} looks at {metric}; got {', '.join(names) or 'no values'}"))


def _column(text: str) -> dict[str, list[float | None]]:
    name, _, listed = text.partition("=")
    values: list[float | None] = []
    for item in listed.split(","):
        try:
            values.append(_finite(float(item)))
        except ValueError:
            raise InputError(
                Fault("--metrics", expected="numbers, like val_loss=1.0,0.9", got=f"{item.strip()!r}")
            ) from None
    return {name.strip(): values}


def _columns_of_file(path: Path) -> dict[str, list[float | None]]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            Fault("--metrics", expected=f"NAME=NUMBERS or a JSON file; {path} cannot be read: {reason}")
        ) from None
    if isinstance(raw, list) and all(isinstance(epoch, dict) for epoch in raw):
        raw = {name: [epoch.get(name) for epoch in raw] for name in {name for epoch in raw for name in epoch}}
    if not (isinstance(raw, dict) and all(map(_is_column, raw.values()))):
        raise InputError(
            Fault(
                "--metrics",
                expected=f"{path} to hold lists of numbers by name, or a list with a map of metrics per epoch",
            )
        )
    return {str(name): [_finite(value) for value in values] for name, values in raw.items()}


def _is_column(values: Any) -> bool:
    """Whether a JSON value is a list of numbers and nulls."""
    return isinstance(values, list) and all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
