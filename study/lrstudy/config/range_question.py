"""`lr: found`: a rate that a range test finds when the study runs, and how that test is to be made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from lrstudy.config.explain import explain
from lrstudy.config.section import ConfigSection, Count, Positive
from lrstudy.errors import Fault, InputError
from lrstudy.settings import FloatArray

FOUND = "found"
Form = Literal["exponential", "linear"]
Suggestion = Literal["valley", "steep", "steepest", "minimum", "slide", "smith"]
EPOCHS_OF_LINEAR = 4
"""How many epochs a linear test takes, unless it says how many updates: Smith took 4 to 8."""


class RangeQuestion(ConfigSection):
    """Which rate of a range test is taken, and how the rate rises in it: from `low` towards `high`, which is not reached."""

    found: Suggestion = "valley"
    form: Form = "exponential"
    low: Positive = 1e-7
    high: Positive = 10.0
    updates: Annotated[Count | None, Field(description="a whole number of at least 1, or null for four epochs")] = 100

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_form(cls, values: Any) -> Any:
        """Smith's suggestion has Smith's form by default, and that form has bounds and a length of its own."""
        if isinstance(values, dict):
            form = values.get("form", "linear" if values.get("found") == "smith" else "exponential")
            of_linear = {"found": "smith", "low": 1e-4, "high": 1.0, "updates": None} if form == "linear" else {}
            return {"form": form, **of_linear, **values}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> RangeQuestion:
        if self.low >= self.high:
            raise InputError(Fault("low", expected="it below high", got=f"{self.low:g} and {self.high:g}"))
        if self.found == "smith" and self.form != "linear":
            raise InputError(Fault("found", "smith goes by the accuracy, which only the linear form measures"))
        return self

    def rates(self, num_updates: int) -> FloatArray:
        """The rate of every update: fastai's with the exponential form, Smith's with the linear one."""
        shares = np.arange(num_updates) / num_updates
        if self.form == "linear":
            return self.low + (self.high - self.low) * shares
        rates: FloatArray = self.low * (self.high / self.low) ** shares
        return rates


def is_question(spec: object) -> bool:
    """Whether a study file asks for a rate to be found."""
    return spec == FOUND or (isinstance(spec, Mapping) and FOUND in spec)


def question_of(spec: object, where: str) -> RangeQuestion:
    """The question that `spec` asks at `where` in a study file. Raises InputError with every fault."""
    values = dict(spec) if isinstance(spec, Mapping) else {}
    try:
        return RangeQuestion.model_validate(values)
    except ValidationError as error:
        faults = [fault for of_field in explain(error, values, RangeQuestion).values() for fault in of_field]
        raise InputError([fault.within(where) for fault in faults]) from None
