"""Which models there are and what describes one in a lineage: plain rules, without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lrstudy.errors import Fault, InputError, not_yet, unknown
from lrstudy.user_code import is_reference

BUILDER = 1
"""Version of models.py: raised whenever one description gives another network or other sections."""

NUM_SECTIONS = 3
"""Every model has this many sections (groups of parameters), from input to head."""

SMALL_IMAGE = 64
"""Up to this size (pixels) stems made for 224 pixels are changed: they would discard most of the image."""

Stem = Literal["original", "3x3", "stride1"]


@dataclass(frozen=True)
class Family:
    """Models that are treated alike.

    `stem` is the one for small images: `3x3` replaces the first convolution by 3 x 3 with stride 1 and
    drops the pooling after it, `stride1` sets the stride of the first convolution to 1. `least` is the
    smallest image size (pixels) that works; sizes must be multiples of `multiple`.
    """

    names: tuple[str, ...]
    stem: Stem = "original"
    least: int = 8
    multiple: int = 1


_REGNET_FLOPS = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")

WITHOUT_BATCHNORM = ("lenet", "alexnet", "squeezenet", "convnext", "swin", "vit_")
"""Beginnings of the names of models that do without BatchNorm (VGG has both forms), and so can train on one example."""

FAMILIES = (
    Family(("small_cnn",)),
    Family(("lenet",), least=16),
    Family(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), "3x3"),
    Family(("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"), "3x3"),
    Family(("wide_resnet50_2", "wide_resnet101_2"), "3x3"),
    Family(("densenet121", "densenet161", "densenet169", "densenet201"), "3x3"),
    Family(("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"), "stride1"),
    Family(tuple(f"efficientnet_b{k}" for k in range(8)), "stride1"),
    Family(("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"), "stride1"),
    Family(tuple(f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3")), "stride1"),
    Family(tuple(f"regnet_x_{flops}" for flops in _REGNET_FLOPS), "stride1"),
    Family(tuple(f"regnet_y_{flops}" for flops in (*_REGNET_FLOPS, "128gf")), "stride1"),
    Family(tuple(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")), "stride1"),
    Family(("squeezenet1_0", "squeezenet1_1"), "stride1", least=14),
    Family(("googlenet",), "stride1"),
    Family(("inception_v3",), least=75),
    Family(("alexnet",), least=63),
    Family(tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")), least=32),
    Family(("convnext_tiny", "convnext_small", "convnext_base", "convnext_large"), least=32),
    Family(("swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b")),
    Family(("vit_b_16", "vit_l_16"), least=16, multiple=16),
    Family(("vit_b_32", "vit_l_32"), least=32, multiple=32),
    Family(("vit_h_14",), least=14, multiple=14),
    Family(("maxvit_t",), least=224, multiple=224),
)
"""Our own models and torchvision's. A name that only a newer torchvision knows is built as it is."""


def describe(name: str, num_classes: int, channels: int, size: int) -> dict[str, object]:
    """The model's part of a lineage's root: JSON values that determine the network and its sections.

    `channels` is 1 or 3, `size` the width of the square images in pixels, `num_classes` the number of logits. Of
    a user's model the file is named, not where it lies: its source is in the root of its own. Raises InputError for
    an unknown name or a size that the model cannot take, NotYetError for models that are designed but not built.
    """
    family = family_of(name)
    if size < family.least or size % family.multiple:
        steps = f", in multiples of {family.multiple}" if family.multiple > 1 else ""
        raise InputError(
            Fault(
                "model",
                f"{name} needs images of at least {family.least} pixels{steps}; got {size}",
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
        "version": BUILDER,
    }


def family_of(name: str) -> Family:
    """The family of a model's name. Imports torchvision only for a name that is not listed here."""
    for family in FAMILIES:
        if name in family.names:
            return family
    if is_reference(name):
        return Family((name,), least=1)
    if name.startswith("timm:"):
        raise not_yet("model", f"the model {name!r}", "Use a torchvision name, or a model of your own.")
    import torchvision

    if name in torchvision.models.list_models(module=torchvision.models):
        return Family((name,))
    known = [known for family in FAMILIES for known in family.names]
    raise InputError(unknown("model", "model", name, known))


def has_batchnorm(name: str) -> bool | None:
    """Whether a model normalises over the batch; None for a user's model, which would have to be built to know."""
    if is_reference(name):
        return None
    if name.startswith("vgg"):
        return name.endswith("_bn")
    return not name.startswith(WITHOUT_BATCHNORM)
