"""What a study says about its data: plain descriptions, no arrays, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

AUGMENTATIONS = ("none", "flip", "crop_flip")
"""The built-in augmentations, made for whole batches."""


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
class ByColumn:
    """The examples whose `column` holds `value`, both as text."""

    column: str
    value: str


@dataclass(frozen=True)
class SplitSpec:
    """How examples are divided. `test` and `validation` are each a fraction, a count, `given` by the source, or a column.

    `by`: `stratified` keeps the share of every class (of several labels, the rarest that an example has counts);
    `group` keeps the examples of a group together; `random` does neither.
    """

    test: float | int | Literal["given"] | ByColumn = "given"
    validation: float | int | Literal["given"] | ByColumn = 0.15
    by: Literal["stratified", "group", "random"] = "stratified"
    seed: int = 0


@dataclass(frozen=True)
class DataSpec:
    """A data set: where it lies, which columns to read, how images and splits are made.

    `source` is `digits`, the name of a torchvision set, `KIND:PATH` with a kind of `folder`, `parquet`, `csv` or `npz`,
    or a reference to a user's function; paths are absolute. `root` is where the paths of a CSV file start, or where
    torchvision's files lie, which `download` may fetch. `group_column` names what must not be divided, such as a
    patient. `multilabel` says whether an example may have several labels (None: as the source looks); `label` chooses
    one of them, to be told from its absence. `subset` keeps that many of the examples that are not test examples,
    chosen by the split's rule and seed; None keeps all.
    """

    source: str
    image_column: str = "image"
    label_column: str = "label"
    group_column: str | None = None
    root: str | None = None
    download: bool = False
    multilabel: bool | None = None
    label: str | None = None
    image: ImageSpec = field(default_factory=ImageSpec)
    split: SplitSpec = field(default_factory=SplitSpec)
    subset: int | None = None
