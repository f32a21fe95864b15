"""What all sections of a study file are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, description="a number above 0")]
Count = Annotated[int, Field(ge=1, description="a whole number of at least 1")]
Natural = Annotated[int, Field(ge=0, description="a whole number of at least 0")]
Fraction = Annotated[float, Field(gt=0, lt=1, description="a fraction between 0 and 1")]
Text = Annotated[str, Field(min_length=1, description="a text")]


class ConfigSection(BaseModel):
    """A map of the study file whose keys are all known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
