"""The model of a workload, before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrstudy.workload.workload import Workload

if TYPE_CHECKING:
    from lrstudy.models.build import Model


def build(workload: Workload, generator_seed: int = 0) -> Model:
    """The workload's model on the CPU, all its weights drawn from a seed. Raises InputError as `build_model` does."""
    from lrstudy.models.build import build_model

    builder, num_classes = workload.user_function("model"), len(workload.classes)
    return build_model(
        workload.model, num_classes, workload.channels, workload.size, generator_seed, builder, workload.stem
    )
