"""Which models are known and how a lineage describes them: plain rules, without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from lrstudy.errors import Fault, InputError, unknown
from lrstudy.models import timm_names
from lrstudy.models.image_size import Size, shown, sides
from lrstudy.models.timm_names import PREFIX, is_timm
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
StemChoice = Literal["auto", "original", "small"]


@dataclass(frozen=True)
class Family:
    """Models that are treated alike.

    Attributes:
        names: The names of the models.
        stem: How the first layers are changed for small images. `3x3` replaces the first convolution by one of 3 x 3 with
            stride 1 and removes the pooling after it; `stride1` sets the stride of the first convolution to 1.
        min_size: The smallest height and width that work, in pixels.
        multiple: Height and width must be multiples of this, in pixels.
        is_square: Whether images must be square.
        revision: How often these models alone have changed under a `BUILDER`; raised as that is.
    """

    names: tuple[str, ...]
    stem: Stem = "original"
    min_size: int = 8
    multiple: int = 1
    is_square: bool = False
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
    Family(("vit_b_16", "vit_l_16"), min_size=16, multiple=16, is_square=True),
    Family(("vit_b_32", "vit_l_32"), min_size=32, multiple=32, is_square=True),
    Family(("vit_h_14",), min_size=14, multiple=14, is_square=True),
    Family(("maxvit_t",), min_size=224, multiple=224, revision=1),
)
"""Our own models and torchvision's. A model that only a newer torchvision has is built unchanged."""

_TIMM_STEMS: dict[str, Stem] = {
    **dict.fromkeys(("resnet", "densenet", "res2net", "resnest", "sknet"), "3x3"),
    **dict.fromkeys(("efficientnet", "mobilenetv3", "regnet", "ghostnet", "hardcorenas", "rexnet"), "stride1"),
}
"""The stems of timm's models for small images, by the file of timm that they stand in; the others' are not changed.

MobileNetV1 and V2, MnasNet and EfficientNet V2 stand in `efficientnet`, V4 in `mobilenetv3`.
"""


def stem_of(name: str, size: Size, choice: StemChoice = "auto", is_random: bool = True) -> Stem:
    """How the first layers of a model are for images of a size.

    Args:
        name: The name of a model, or a reference to the user's own.
        size: The image size in pixels; the longer side counts.
        choice: ``auto`` changes them up to SMALL_IMAGE pixels, but leaves a convolution that has been trained; ``original``
            never does, ``small`` always.
        is_random: Whether the weights are drawn at random. Others belong to the first convolution, which ``3x3`` would
            replace; a stride may change.

    Raises:
        InputError: For an unknown name, and for ``small`` if the model has no such stem.
    """
    small = family_of(name).stem
    if choice == "small" and small == "original":
        expected = f"auto or original, as the first layers of {name} are not changed for small images"
        raise InputError(Fault("stem", expected=expected, got="small"))
    if choice == "auto":
        is_kept = max(sides(size)) > SMALL_IMAGE or (small == "3x3" and not is_random)
        return "original" if is_kept else small
    return small if choice == "small" else "original"


def describe(name: str, num_classes: int, channels: int, size: Size, stem: Stem | None = None) -> dict[str, object]:
    """The model's part of a lineage's root: JSON values that determine the network and its sections.

    Args:
        name: The name of a model, or a reference to the user's own. Of a reference only the file's name enters the
            description, not its folder: the root has a digest of the user's source besides.
        num_classes: The number of logits.
        channels: The number of image channels, 1 or 3.
        size: The image size in pixels.
        stem: How the first layers are; None for what `stem_of` says of random weights.

    Returns:
        The description, which two lineages share only if their networks are the same.

    Raises:
        InputError: For an unknown name, or a size that the model cannot take. What sizes a model of timm's takes is not
            known here: models/facts.py tries it.
    """
    family = family_of(name)
    _require_size(name, family, size)
    assert num_classes >= 1, num_classes
    assert channels in (1, 3), channels
    return {
        "name": timm_names.without_tag(name) if is_timm(name) else name.rpartition("/")[2],
        "num_classes": num_classes,
        "channels": channels,
        "size": size if isinstance(size, int) else list(size),
        "stem": stem or stem_of(name, size),
        "version": BUILDER + family.revision,
        **({"timm": timm_names.installed()} if is_timm(name) else {}),
    }


def _require_size(name: str, family: Family, size: Size) -> None:
    """Raise InputError if models of a family cannot take images of this size."""
    height, width = sides(size)
    is_whole = height % family.multiple == width % family.multiple == 0
    if min(height, width) >= family.min_size and is_whole and (height == width or not family.is_square):
        return
    square = "square " if family.is_square and height != width else ""
    steps = f", in multiples of {family.multiple}" if family.multiple > 1 else ""
    raise InputError(
        Fault(
            "model",
            f"{name} needs {square}images of at least {family.min_size} pixels{steps}; got "
            + (str(size) if isinstance(size, int) else shown(size)),
            advice="Set image.size, or choose another model (small_cnn and resnet18 take 8 pixels and more).",
        )
    )


def family_of(name: str) -> Family:
    """The family that a model belongs to; imports torchvision only for a name that is known nowhere else. Raises InputError."""
    for family in FAMILIES:
        if name in family.names:
            return family
    if is_reference(name):
        return Family((name,), min_size=1)
    if is_timm(name):
        return Family((name,), _TIMM_STEMS.get(timm_names.file_of(name), "original"), min_size=1)
    import torchvision

    if name in torchvision.models.list_models(module=torchvision.models):
        return Family((name,))
    names = [listed for family in FAMILIES for listed in family.names]
    fault = unknown("model", "model", name, names)
    if timm_names.without_tag(name) in timm_names.architectures():
        fault = replace(fault, valid=(), advice=f"timm has one of this name: model: {PREFIX}{name}.")
    raise InputError(fault)


def has_batchnorm(name: str) -> bool | None:
    """Whether a model has BatchNorm; None for a user's or timm's, which would have to be built to find out."""
    if is_reference(name) or is_timm(name):
        return None
    if name.startswith("vgg"):
        return name.endswith("_bn")
    return not name.startswith(WITHOUT_BATCHNORM)
