"""`until` in a study file: what ends a training before its budget does, of the whole study or of an arm that has its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lrstudy.annotations import description, reader
from lrstudy.errors import Fault, InputError

Metric = Literal["accuracy", "balanced_accuracy", "f1", "auroc", "average_precision", "exact_match"]
_FORM = "none, or one metric with a value above 0 and at most 1 to reach, such as {accuracy: 0.9}"
_Reached = dict[Metric, Annotated[float, Field(gt=0, le=1, description="a number above 0 and at most 1")]]
UntilValue = Annotated[
    Literal["none"] | Annotated[_Reached, Field(min_length=1, max_length=1)], Field(description=_FORM)
]


def checked(value: Any, where: str, got: str) -> Any:
    """`value` in the form of an `UntilValue`. Raises InputError: at `where` something else stands, which reads as `got`."""
    try:
        return reader(UntilValue)(value)
    except ValueError:
        raise InputError(Fault(where, expected=description(UntilValue), got=got)) from None
