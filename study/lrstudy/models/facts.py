"""What is known of a model only once it is built, as plain values: found by models/examine.py, which needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

VERSION = 1
"""Raised when facts are added, or found in another way, so that no older ones are taken from a memo."""

_STEMS = {
    "original": "",
    "3x3": "; for small images a first convolution of 3 x 3 without stride, and no pooling after it",
    "stride1": "; for small images a first convolution without stride",
}


@dataclass(frozen=True)
class Section:
    """A section's tensors of parameters: how many, with how many numbers, and the names of the first and the last."""

    num_tensors: int
    num_parameters: int
    first: str
    last: str


@dataclass(frozen=True)
class Facts:
    """What a model is, as built for a study's images and classes; `sections` go from input to head."""

    has_batchnorm: bool
    sections: tuple[Section, ...]

    def describe(self, model: Mapping[str, object]) -> Iterator[str]:
        """Lines for a terminal: the model, then of each section its parameters, their share, its first and last tensor.

        `model` is the model's description in a lineage.
        """
        total = sum(section.num_parameters for section in self.sections)
        batchnorm = "BatchNorm" if self.has_batchnorm else "no BatchNorm"
        yield f"Model: {model['name']}, {total:,} parameters, {batchnorm}{_STEMS[str(model['stem'])]}:"
        for number, section in enumerate(self.sections, 1):
            label = f"  section {number}" + (" (head)" if number == len(self.sections) else "")
            names = " to ".join(dict.fromkeys([section.first, section.last])) or "empty"
            share = section.num_parameters / total
            yield f"{label:18} {section.num_parameters:>12,} parameters {share:>6.1%}  {names}"

    def to_json(self) -> dict[str, Any]:
        """JSON values, as `of_json` reads them."""
        return {
            "has_batchnorm": self.has_batchnorm,
            "sections": [
                {"tensors": s.num_tensors, "parameters": s.num_parameters, "first": s.first, "last": s.last}
                for s in self.sections
            ],
        }

    @staticmethod
    def of_json(values: Mapping[str, Any]) -> Facts:
        """The facts that `to_json` wrote."""
        sections = (Section(s["tensors"], s["parameters"], s["first"], s["last"]) for s in values["sections"])
        return Facts(values["has_batchnorm"], tuple(sections))
