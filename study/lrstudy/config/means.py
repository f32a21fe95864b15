"""The sections on what a study may take, and what that costs: limits, resources, price, storage. They may change freely."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lrstudy.config.section import ConfigSection, Count, Positive, Text
from lrstudy.errors import Fault, InputError
from lrstudy.storage.place import checked_url, is_url

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


class LimitsConfig(ConfigSection):
    """When to stop handing out trials; running again with higher limits goes on."""

    gpu_hours: Positive | None = None
    wall: Annotated[Text | Positive, Field(description="a time such as 90s, 30m, 12h or 2d, or hours")] | None = None

    @field_validator("wall")
    @classmethod
    def _readable(cls, value: object) -> object:
        if isinstance(value, str) and not ((match := _TIME.fullmatch(value)) and float(match[1])):
            raise ValueError(f"expected a time above 0, such as 90s, 30m, 12h or 2d, or hours; got {value!r}")
        return value

    @property
    def wall_s(self) -> float | None:
        """The wall limit in seconds; a plain number is in hours."""
        if not isinstance(self.wall, str):
            return None if self.wall is None else self.wall * 3600
        match = _TIME.fullmatch(self.wall)
        assert match, "checked above"
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


class ResourcesConfig(ConfigSection):
    """What one trial occupies. `gpu` lies between 0 and 1; by default it is 1 where there is a GPU, else 0.

    With `auto` one trial is measured, and as many share a GPU as fit.

    `accelerator` is the kind of GPU that all trials run on; by default that of earlier runs, else the most numerous one.
    """

    gpu: (
        Annotated[
            Annotated[float, Field(ge=0, le=1)] | Literal["auto"], Field(description="a number from 0 to 1, or auto")
        ]
        | None
    ) = None
    cpu: Count = 1
    accelerator: Annotated[Text, Field(description="a kind of GPU as Ray names it, such as A100")] | None = None

    @model_validator(mode="after")
    def _accelerator_with_gpu(self) -> ResourcesConfig:
        if self.accelerator is not None and self.gpu == 0:
            raise InputError(Fault("resources.accelerator", expected="it only with resources.gpu above 0"))
        return self


class PriceConfig(ConfigSection):
    """Money per hour of a GPU (one price, or one per model name) or of a CPU core."""

    gpu_hour: Positive | dict[str, Positive] | None = None
    cpu_core_hour: Positive | None = None
    currency: Text = "USD"


_KEPT = "a number of at least 0, or all"


class StorageConfig(ConfigSection):
    """Where the memo and the study's folder lie, and how much the states of its studies may take beyond what is needed."""

    path: Text = "runs"
    keep_gb: Annotated[Annotated[float, Field(ge=0)] | Literal["all"], Field(description=_KEPT)] = 1.0

    @field_validator("path")
    @classmethod
    def _a_folder_or_a_bucket(cls, value: str) -> str:
        return checked_url(value) if is_url(value) else value
