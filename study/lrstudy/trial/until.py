"""Training until a target: a trial ends after the first epoch whose validation metric reaches a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Until:
    """A metric of the task, of which more is better, and the value on the validation part at which a trial ends.

    It is in no settings and so in no name: a trial that ends shares its training with those that go on. One that never
    reaches the value trains the whole budget, and its time to the target is censored there.
    """

    metric: str
    value: float

    def is_reached(self, metrics: Mapping[str, float]) -> bool:
        """Whether an epoch with these metrics (those of its record) is the last; not where the metric is undefined."""
        value = metrics.get(f"val_{self.metric}")
        return value is not None and value >= self.value
