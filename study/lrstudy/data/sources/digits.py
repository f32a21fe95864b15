"""``digits``: the handwritten digits that scikit-learn ships."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrstudy.data.cells import POOL, Label
from lrstudy.data.sources.base import Encoded, WithoutColumns


@dataclass(frozen=True)
class Digits(WithoutColumns):
    """The 1797 handwritten digits that scikit-learn ships: 8 x 8, grey, ten classes, no given parts."""

    def fingerprint(self) -> dict[str, object]:
        """The scikit-learn version."""
        from importlib.metadata import version

        return {"source": "digits", "scikit-learn": version("scikit-learn")}

    def labels(self) -> tuple[list[Label], list[int]]:
        """The digits 0 ... 9 as integers, all in the pool."""
        target = self._load().target.tolist()
        return target, [POOL] * len(target)

    def names(self) -> list[str]:
        """Their numbers in scikit-learn's arrays."""
        return [f"digit {index}" for index in range(len(self._load().target))]

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Grey pixels: the stored 0 ... 16 scaled to 0 ... 255 and rounded."""
        pixels = np.rint(self._load().images * (255 / 16)).astype(np.uint8)
        return zip(self.names(), pixels, strict=True)

    @staticmethod
    def _load() -> Any:
        from sklearn.datasets import load_digits

        return load_digits()
