"""Statistics of a data set and its parts, shown before training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy.data.cache import DataSet
from lrstudy.data.labels import class_counts
from lrstudy.data.splits import Splits
from lrstudy.models import image_size
from lrstudy.models.image_size import Size

IMBALANCED = 3.0
"""A note is given if the training counts of two classes differ by more than this factor."""
FEWEST_OF_A_CLASS = 5
"""A note is given if a class has fewer examples in a part that decides or judges."""
_MOST_CLASSES_SHOWN = 20
_WORDS = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Statistics:
    """Counts of examples per part and class.

    Args:
        classes: Names of the classes.
        num_examples: Part -> number of examples.
        counts: Part -> number of examples of each class, in the order of `classes`.
        is_multilabel: Whether an example may have several labels.
        num_groups: Number of groups, 0 without a group column.
        size: Size of an image in pixels.
        channels: 1 or 3.
        num_copies: Test examples with exactly the pixels of a training or validation example; None if not counted.
    """

    classes: tuple[str, ...]
    num_examples: Mapping[str, int]
    counts: Mapping[str, tuple[int, ...]]
    is_multilabel: bool
    num_groups: int
    size: Size
    channels: int
    num_copies: int | None = None

    @staticmethod
    def of(data: DataSet, splits: Splits) -> Statistics:
        """Count the examples of a data set; reads no pixels."""
        parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        counts = {name: class_counts(data.labels[index], len(data.classes)) for name, index in parts.items()}
        return Statistics(
            classes=data.classes,
            num_examples={name: len(index) for name, index in parts.items()},
            counts={name: tuple(count.tolist()) for name, count in counts.items()},
            is_multilabel=data.labels.ndim == 2,
            num_groups=len(data.groups),
            size=data.size,
            channels=data.channels,
        )

    def with_copies(self, data: DataSet, splits: Splits) -> Statistics:
        """The same statistics with `num_copies`; reads all pixels once."""
        seen = {digest for part in (splits.train, splits.validation) for digest in pixel_digests(data.images, part)}
        return replace(self, num_copies=sum(digest in seen for digest in pixel_digests(data.images, splits.test)))

    @property
    def summary(self) -> str:
        """One line: the number of examples of each part, and the range of training counts per class."""
        counts = sorted(self.counts["train"])
        parts = ", ".join(f"{number:,} {_WORDS[name]}" for name, number in self.num_examples.items())
        each = f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"
        kind = "labels" if self.is_multilabel else "classes"
        return f"{parts} examples; {len(self.classes)} {kind} with {each} training examples each"

    @property
    def imbalance(self) -> float:
        """The largest training count of any class divided by the smallest."""
        return max(self.counts["train"]) / max(1, min(self.counts["train"]))

    def undefined(self, part: str) -> list[str]:
        """The classes that no example of a part has, or all have: ranking metrics are undefined for them."""
        total = self.num_examples[part]
        return [name for name, count in zip(self.classes, self.counts[part], strict=True) if count in (0, total)]

    def notes(self, metric: str = "accuracy", is_weighted: bool = False) -> Iterator[str]:
        """Warnings to read before training for this metric, with class weights or without; one text each."""
        if self.imbalance > IMBALANCED:
            rare = self.classes[int(np.argmin(self.counts["train"]))]
            yield (
                f"Classes are imbalanced: the largest has {self.imbalance:.1f} times as many training examples as "
                f"the smallest ({rare!r}).{_advice(metric, is_weighted)}"
            )
        for part in ("validation", "test"):
            if names := self.undefined(part):
                shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
                yield f"In the {part} part {shown} cannot be ranked: no example has it, or all have. Means leave it out."
        yield from self._few()
        if self.num_copies:
            total = self.num_examples["test"]
            yield (
                f"{self.num_copies:,} of the {total:,} test examples {'has' if self.num_copies == 1 else 'have'} exactly the "
                "pixels of a training or validation "
                "example: what is measured on them is memory, not generalisation."
            )

    def _few(self) -> Iterator[str]:
        """A warning for each part that has only a few examples of some classes, if any."""
        for part, what in (("validation", "choices"), ("test", "verdicts")):
            few = [(count, name) for name, count in zip(self.classes, self.counts[part], strict=True)]
            few = sorted((count, name) for count, name in few if 0 < count < FEWEST_OF_A_CLASS)
            if few:
                shown = ", ".join(f"{name} {count}" for count, name in few[:5]) + (", ..." if len(few) > 5 else "")
                yield (
                    f"The {_WORDS[part]} part has fewer than {FEWEST_OF_A_CLASS} examples of some classes ({shown}): by a "
                    f"mean over classes, single images decide {what}."
                )

    def describe(self) -> list[str]:
        """Lines for a terminal: a table of classes by part, the largest classes only if there are many."""
        width = max(len(name) for name in (*self.classes, "all examples"))
        shown = list(range(len(self.classes)))
        if len(shown) > _MOST_CLASSES_SHOWN:
            shown = sorted(shown, key=lambda k: -self.counts["train"][k])[:_MOST_CLASSES_SHOWN]
        num_hidden = len(self.classes) - len(shown)
        lines = [f"  {'':{width}}" + "".join(f"{part:>12}" for part in self.num_examples)]
        for k in shown:
            counts = "".join(f"{self.counts[part][k]:>12}" for part in self.num_examples)
            lines.append(f"  {self.classes[k]:{width}}" + counts)
        if num_hidden:
            lines.append(f"  ... and {num_hidden} smaller classes")
        lines.append(f"  {'all examples':{width}}" + "".join(f"{n:>12}" for n in self.num_examples.values()))
        images = f"  {image_size.shown(self.size)}, {self.channels} channel{'s' * (self.channels > 1)}"
        lines.append(images + (f", {self.num_groups} groups" if self.num_groups else ""))
        return lines

    def to_json(self) -> dict[str, Any]:
        """JSON values: number of examples and counts per class of each part, then the other fields."""
        parts = {p: {"examples": n, "counts": list(self.counts[p])} for p, n in self.num_examples.items()}
        return {
            **parts,
            "classes": list(self.classes),
            "several": self.is_multilabel,
            "groups": self.num_groups,
            "copies": self.num_copies,
        }


def _advice(metric: str, is_weighted: bool) -> str:
    """What to change for imbalanced classes, leaving out what the study already has; starts with a space."""
    wanted = ["metric: balanced_accuracy or auroc"] if metric == "accuracy" else []
    wanted += [] if is_weighted else ["task.class_weights: balanced"]
    return f" Consider {', and '.join(wanted)}." if wanted else ""


def pixel_digests(images: NDArray[np.uint8], index: Iterable[int]) -> Iterator[bytes]:
    """The digest of the pixels of each image at `index`: equal ones are copies of each other."""
    return (blake2b(np.ascontiguousarray(images[k]).data, digest_size=16).digest() for k in index)
