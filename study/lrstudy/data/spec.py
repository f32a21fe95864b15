"""A study's description of its data: plain values, without arrays or torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lrstudy.models.image_size import Size

AUGMENTATIONS = ("none", "flip", "crop_flip")
"""The built-in augmentations, which are computed for whole batches."""


@dataclass(frozen=True)
class ImageSpec:
    """How an image becomes an array of uint8.

    Args:
        size: In pixels; None keeps the stored size, which must then be the same for all images.
        resize: ``squash`` changes the aspect ratio; ``crop`` cuts out the largest centre of the right aspect ratio and
            scales it; ``pad`` scales the whole image to fit and adds black.
        channels: ``rgb``, ``grey``, or ``stored`` (as in the first image).
        normalize: ``imagenet`` constants, ``data`` (mean and deviation of the training set), ``weights`` (what the
            weights that training begins with were trained with), or ``none`` (0 ... 1).
    """

    size: Size | None = None
    resize: Literal["squash", "crop", "pad"] = "squash"
    channels: Literal["rgb", "grey", "stored"] = "stored"
    normalize: Literal["imagenet", "data", "weights", "none"] = "data"


@dataclass(frozen=True)
class ByColumn:
    """The examples whose `column` has `value`, compared as text."""

    column: str
    value: str


@dataclass(frozen=True)
class SplitSpec:
    """How examples are divided.

    Args:
        test: A fraction in (0, 1), a count of at least 1, ``given`` by the source, or the examples that a column names.
        validation: The same for validation, see `splits.split` for what a fraction is taken of.
        by: ``stratified`` keeps the share of every class (an example with several labels counts for its rarest);
            ``group`` keeps the examples of a group together; ``random`` does neither.
        seed: The draw is a function of it.
    """

    test: float | int | Literal["given"] | ByColumn = "given"
    validation: float | int | Literal["given"] | ByColumn = 0.15
    by: Literal["stratified", "group", "random"] = "stratified"
    seed: int = 0


@dataclass(frozen=True)
class DataSpec:
    """A data set: where it is stored, which columns to read, and how to decode and split it.

    Args:
        source: ``digits``, the name of a torchvision set, ``KIND:PATH`` with a kind of ``folder``, ``parquet``, ``csv``
            or ``npz``, or a reference to a user's function; paths are absolute.
        image_column: The column of images, in a table.
        label_column: The column of labels, in a table.
        group_column: The column of what must not be divided between parts, such as a patient.
        root: The folder to which the paths in a CSV file are relative, or the folder of torchvision's files.
        download: Whether torchvision may download its files to `root`.
        multilabel: Whether an example may have several labels; None if the source decides.
        label: Reduces the labels to two classes: those with this label, and all others.
        image: How to decode the images.
        split: How to divide the examples.
        subset: How many of the examples outside the test part to keep, chosen by the split's rule and seed; None keeps
            all.
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
