"""What a data set looks like once it is divided: shown before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy.data.cache import DataSet
from lrstudy.data.labels import class_counts
from lrstudy.data.splits import Splits

IMBALANCED = 3.0
"""Classes whose training counts differ by more than this factor are pointed out."""
_SHOWN = 20
_WORDS = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Statistics:
    """Counts of examples per part and class. `is_multilabel`: an example may have several labels; `groups` counts groups.

    `copies` is how many test examples have exactly the pixels of a training or validation example; None: not counted.
    """

    classes: tuple[str, ...]
    examples: Mapping[str, int]
    counts: Mapping[str, tuple[int, ...]]
    is_multilabel: bool
    groups: int
    size: int
    channels: int
    copies: int | None = None

    @staticmethod
    def of(data: DataSet, splits: Splits) -> Statistics:
        """Count; no pixel is read."""
        parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        counts = {name: class_counts(data.labels[index], len(data.classes)) for name, index in parts.items()}
        return Statistics(
            classes=data.classes,
            examples={name: len(index) for name, index in parts.items()},
            counts={name: tuple(count.tolist()) for name, count in counts.items()},
            is_multilabel=data.labels.ndim == 2,
            groups=len(data.groups),
            size=data.size,
            channels=data.channels,
        )

    def with_copies(self, data: DataSet, splits: Splits) -> Statistics:
        """The same with copies counted, for which all pixels are read once."""
        seen = {_digest(data.images[k]) for part in (splits.train, splits.validation) for k in part}
        return replace(self, copies=sum(_digest(data.images[k]) in seen for k in splits.test))

    @property
    def summary(self) -> str:
        """One line: examples by part, and how the classes divide the training part."""
        counts = sorted(self.counts["train"])
        parts = ", ".join(f"{number:,} {_WORDS[name]}" for name, number in self.examples.items())
        each = f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"
        return f"{parts} examples; {len(self.classes)} {'labels' if self.is_multilabel else 'classes'} with {each} training examples each"

    @property
    def imbalance(self) -> float:
        """The largest training count of a class over the smallest."""
        return max(self.counts["train"]) / max(1, min(self.counts["train"]))

    def undefined(self, part: str) -> list[str]:
        """The classes that no example of a part has, or all have: ranking metrics do not exist for them there."""
        total = self.examples[part]
        return [name for name, count in zip(self.classes, self.counts[part], strict=True) if count in (0, total)]

    def notes(self, metric: str = "accuracy", is_weighted: bool = False) -> Iterator[str]:
        """What somebody should know before training by this metric, with or without class weights, a sentence each."""
        if self.imbalance > IMBALANCED:
            rare = self.classes[int(np.argmin(self.counts["train"]))]
            yield (
                f"Classes are imbalanced: the largest has {self.imbalance:.1f} times as many training examples as the smallest "
                f"({rare!r}).{_advice(metric, is_weighted)}"
            )
        for part in ("validation", "test"):
            if lacking := self.undefined(part):
                shown = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
                yield f"In the {part} part {shown} cannot be ranked: no example has it, or all have. Means leave it out."
        if self.copies:
            yield f"{self.copies} test examples have exactly the pixels of a training or validation example."

    def describe(self) -> list[str]:
        """Lines for a terminal: a table of classes by part."""
        width = max(len(name) for name in (*self.classes, "all examples"))
        lines = [f"  {'':{width}}" + "".join(f"{part:>12}" for part in self.examples)]
        order = (
            sorted(range(len(self.classes)), key=lambda k: -self.counts["train"][k])
            if len(self.classes) > _SHOWN
            else None
        )
        for k in order[:_SHOWN] if order else range(len(self.classes)):
            lines.append(f"  {self.classes[k]:{width}}" + "".join(f"{self.counts[p][k]:>12}" for p in self.examples))
        if order:
            lines.append(f"  ... and {len(order) - _SHOWN} smaller classes")
        lines.append(f"  {'all examples':{width}}" + "".join(f"{n:>12}" for n in self.examples.values()))
        about = f"  {self.size} x {self.size} pixels, {self.channels} channel{'s' * (self.channels > 1)}"
        lines.append(about + (f", {self.groups} groups" if self.groups else ""))
        return lines

    def to_json(self) -> dict[str, Any]:
        """JSON values: per part the number of examples and the counts, in the order of `classes`."""
        parts = {p: {"examples": n, "counts": list(self.counts[p])} for p, n in self.examples.items()}
        return {
            **parts,
            "classes": list(self.classes),
            "several": self.is_multilabel,
            "groups": self.groups,
            "copies": self.copies,
        }


def _advice(metric: str, is_weighted: bool) -> str:
    """What imbalanced classes ask for, as far as the study does not have it."""
    wanted = ["metric: balanced_accuracy or auroc"] if metric == "accuracy" else []
    wanted += [] if is_weighted else ["task.class_weights: balanced"]
    return f" Consider {', and '.join(wanted)}." if wanted else ""


def _digest(image: NDArray[np.uint8]) -> bytes:
    return blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
