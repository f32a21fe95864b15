"""What a study says about its data: plain descriptions, no arrays, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class ImageSpec:
    """How an image becomes an array of uint8: `size` pixels on both sides (None: as stored, all alike).

    `resize`: `squash` changes the aspect ratio; `crop` scales the short side and cuts the centre; `pad`
    scales the long side and adds black. `channels`: `rgb`, `grey`, or `stored` (as in the first image).
    `normalize`: `imagenet` constants, `data` (mean and deviation of the training set), or `none` (0 ... 1).
    """

    size: int | None = None
    resize: Literal["squash", "crop", "pad"] = "squash"
    channels: Literal["rgb", "grey", "stored"] = "stored"
    normalize: Literal["imagenet", "data", "none"] = "data"


@dataclass(frozen=True)
class SplitSpec:
    """How examples are divided. `test` and `validation` are each a fraction, a count, or `given` by the source.

    `by`: `stratified` keeps the share of every class; `random` does not.
    """

    test: float | int | Literal["given"] = "given"
    validation: float | int | Literal["given"] = 0.15
    by: Literal["stratified", "random"] = "stratified"
    seed: int = 0


@dataclass(frozen=True)
class DataSpec:
    """A data set: where it lies, which columns to read, how images and splits are made.

    `source` is `digits`, `folder:PATH` or `parquet:PATH` (absolute). `subset` keeps that many of the
    examples that are not test examples, chosen by the split's rule and seed; None keeps all.
    """

    source: str
    image_column: str = "image"
    label_column: str = "label"
    image: ImageSpec = field(default_factory=ImageSpec)
    split: SplitSpec = field(default_factory=SplitSpec)
    subset: int | None = None
