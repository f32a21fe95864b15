"""Which models are known and how a lineage describes them: plain rules, without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lrstudy.errors import Fault, InputError, not_yet, unknown
from lrstudy.user_code import is_reference

BUILDER = 1
"""Version of models/build.py: raised whenever the same description builds another network or other sections.

Where only some families change, their `revision` is raised instead, and the names of the others stay.
"""

FITTING = 1
"""Version of models/fitting.py: raised whenever the same file of weights gives a network other weights to begin with."""

NUM_SECTIONS = 3
"""Every model has this many sections (groups of parameters), from input to head."""

SMALL_IMAGE = 64
"""Up to this size (pixels) the stems designed for 224 pixels are changed, as they would discard most of the image."""

Stem = Literal["original", "3x3", "stride1"]


@dataclass(frozen=True)
class Family:
    """Models that are treated alike.

    Attributes:
        names: The names of the models.
        stem: How the first layers are changed for small images. `3x3` replaces the first convolution by one of 3 x 3 with
            stride 1 and removes the pooling after it; `stride1` sets the stride of the first convolution to 1.
        min_size: The smallest image size that works, in pixels.
        multiple: Image sizes must be multiples of this, in pixels.
        revision: How often these models alone have changed under a `BUILDER`; raised as that is.
    """

    names: tuple[str, ...]
    stem: Stem = "original"
    min_size: int = 8
    multiple: int = 1
    revision: int = 0


_REGNET_FLOPS = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")

WITHOUT_BATCHNORM = ("lenet", "alexnet", "squeezenet", "convnext", "swin", "vit_")
"""Prefixes of the names of models without BatchNorm, which can train on a single example. (VGG exists with and without.)"""

FAMILIES = (
    Family(("small_cnn",)),
    Family(("lenet",), min_size=16, revision=1),
    Family(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), "3x3"),
    Family(("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"), "3x3"),
    Family(("wide_resnet50_2", "wide_resnet101_2"), "3x3"),
    Family(("densenet121", "densenet161", "densenet169", "densenet201"), "3x3"),
    Family(("mobilenet_v2",), "stride1"),
    Family(("mobilenet_v3_large", "mobilenet_v3_small"), "stride1", revision=1),
    Family(tuple(f"efficientnet_b{k}" for k in range(8)), "stride1"),
    Family(("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"), "stride1"),
    Family(tuple(f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3")), "stride1"),
    Family(tuple(f"regnet_x_{flops}" for flops in _REGNET_FLOPS), "stride1"),
    Family(tuple(f"regnet_y_{flops}" for flops in (*_REGNET_FLOPS, "128gf")), "stride1"),
    Family(tuple(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")), "stride1"),
    Family(("squeezenet1_0", "squeezenet1_1"), "stride1", min_size=14),
    Family(("googlenet",), "stride1"),
    Family(("inception_v3",), min_size=75),
    Family(("alexnet",), min_size=63, revision=1),
    Family(tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")), min_size=32, revision=1),
    Family(("convnext_tiny", "convnext_small", "convnext_base", "convnext_large"), min_size=32, revision=1),
    Family(("swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b")),
    Family(("vit_b_16", "vit_l_16"), min_size=16, multiple=16),
    Family(("vit_b_32", "vit_l_32"), min_size=32, multiple=32),
    Family(("vit_h_14",), min_size=14, multiple=14),
    Family(("maxvit_t",), min_size=224, multiple=224, revision=1),
)
"""Our own models and torchvision's. A model that only a newer torchvision has is built unchanged."""


def describe(name: str, num_classes: int, channels: int, size: int) -> dict[str, object]:
    """The model's part of a lineage's root: JSON values that determine the network and its sections.

    Args:
        name: The name of a model, or a reference to the user's own. Of a reference only the file's name enters the
            description, not its folder: the root has a digest of the user's source besides.
        num_classes: The number of logits.
        channels: The number of image channels, 1 or 3.
        size: The width of the square images in pixels.

    Returns:
        The description, which two lineages share only if their networks are the same.

    Raises:
        InputError: For an unknown name, or a size that the model cannot take.
        NotYetError: For models that are designed but not available yet.
    """
    family = family_of(name)
    if size < family.min_size or size % family.multiple:
        steps = f", in multiples of {family.multiple}" if family.multiple > 1 else ""
        raise InputError(
            Fault(
                "model",
                f"{name} needs images of at least {family.min_size} pixels{steps}; got {size}",
                advice="Set image.size, or choose another model (small_cnn and resnet18 take 8 pixels and more).",
            )
        )
    assert num_classes >= 1, num_classes
    assert channels in (1, 3), channels
    return {
        "name": name.rpartition("/")[2],
        "num_classes": num_classes,
        "channels": channels,
        "size": size,
        "stem": family.stem if size <= SMALL_IMAGE else "original",
        "version": BUILDER + family.revision,
    }


def family_of(name: str) -> Family:
    """The family that a model belongs to; imports torchvision only for a name that is not listed here. Raises InputError."""
    for family in FAMILIES:
        if name in family.names:
            return family
    if is_reference(name):
        return Family((name,), min_size=1)
    if name.startswith("timm:"):
        raise not_yet("model", f"the model {name!r}", "Use a torchvision name, or a model of your own.")
    import torchvision

    if name in torchvision.models.list_models(module=torchvision.models):
        return Family((name,))
    names = [listed for family in FAMILIES for listed in family.names]
    raise InputError(unknown("model", "model", name, names))


def has_batchnorm(name: str) -> bool | None:
    """Whether a model has BatchNorm; None for a user's model, which would have to be built to find out."""
    if is_reference(name):
        return None
    if name.startswith("vgg"):
        return name.endswith("_bn")
    return not name.startswith(WITHOUT_BATCHNORM)
