"""Builds a network by name, its parameters divided into sections, its weights drawn from a seed.

A section is a group of parameters that a policy may give a learning rate of its own; every model has three, from input
to head. catalogue.py decides which names and image sizes are accepted and how the stem is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate, count, groupby
from typing import Any

import torch
from torch import nn

from lrstudy.errors import Fault, InputError
from lrstudy.models.catalogue import NUM_SECTIONS, Stem, describe, stem_of
from lrstudy.models.image_size import Size, shown, sides
from lrstudy.models.networks import LeNet, SmallCNN
from lrstudy.models.stems import change_stem, take_grey
from lrstudy.models.timm_names import is_timm

Names = tuple[str, ...]

_RESNET_CUT = ("conv1", "bn1", "maxpool", "layer1", "layer2")
_DENSENET_CUT = ("conv0", "norm0", "conv1", "norm1", "conv2", "norm2", "denseblock1", "transition1", "denseblock2")
"""Deeper stems, which only timm's have, among them: a pooling with weights, and three convolutions."""


@dataclass(frozen=True, eq=False)
class Model:
    """A network, its sections (names of parameters, from input to head, each once), and its description in a lineage."""

    module: nn.Module
    sections: tuple[Names, ...]
    description: dict[str, object]


Builder = Callable[[int, int, Size], nn.Module]
"""A user's function that builds a model: maps the numbers of logits and channels and the image size in pixels to a module.

The size is one number of square images, else (height, width).
"""


def build_model(
    name: str,
    num_classes: int,
    channels: int,
    size: Size,
    generator_seed: int,
    builder: Builder | None = None,
    stem: Stem | None = None,
    device: str = "cpu",
) -> Model:
    """Build a model, in training mode, with weights that depend on the arguments alone.

    The global generators stay as they were.

    Args:
        name: The name of a model, or a reference to the user's own.
        num_classes: The number of logits.
        channels: The number of image channels, 1 or 3.
        size: The image size in pixels.
        generator_seed: The seed that the weights are drawn from.
        builder: The function that the reference names, for a model of the user's own.
        stem: How the first layers are; None for what `catalogue.stem_of` says of random weights.
        device: ``cpu``, or ``meta`` for a model without values.

    Returns:
        A model that maps images of shape (B, channels, height, width) to logits of shape (B, num_classes).

    Raises:
        InputError: As `describe` raises it, and if the user's model cannot be built or does not return such logits.
    """
    stem = stem or stem_of(name, size)
    description = describe(name, num_classes, channels, size, stem)
    entropy = blake2b(f"weights/{description['name']}/{generator_seed}".encode(), digest_size=7).digest()
    with torch.random.fork_rng(devices=[]), torch.device(device):
        # Not torch.manual_seed, which would also seed every GPU's generator.
        torch.default_generator.manual_seed(int.from_bytes(entropy, "little"))
        if builder is not None:
            return _user_model(builder, name, description, (num_classes, channels, size))
        if name == "small_cnn":
            module: nn.Module = SmallCNN(channels, size, num_classes)
        elif name == "lenet":
            module = LeNet(channels, size, num_classes)
        elif is_timm(name):
            module = _timm(name, num_classes, channels, size, stem)
        else:
            module = _torchvision(name, num_classes, channels, size, stem)
    return Model(module, sections(module, head_names(module)), description)


def sections(module: nn.Module, head: Sequence[str] = ()) -> tuple[Names, Names, Names]:
    """The three sections of a network: the backbone in two, and the head.

    The backbone of a ResNet is cut after layer2 and that of a DenseNet after denseblock2, as in fastai's splitters; any
    other one at the boundary between blocks that is nearest to half of its parameter tensors. If fewer than three parts
    of the network have parameters, the first sections are empty.

    Args:
        module: The network.
        head: The modules that make the logits; by default the last child that has parameters. In torchvision's networks
            that may be far more: 96% of AlexNet's parameters lie in a classifier of three layers.
    """
    head = head or _with_parameters(module.named_children())[-1:]
    backbone = [name for name, _ in module.named_parameters() if not _within(name, head)]
    if hasattr(module, "layer4"):
        early: Names = _RESNET_CUT
    elif hasattr(module, "features") and hasattr(module.features, "denseblock4"):
        early = tuple(f"features.{block}" for block in _DENSENET_CUT)
    else:
        early = tuple(backbone[: _middle(backbone)])
    return (
        tuple(name for name in backbone if _within(name, early)),
        tuple(name for name in backbone if not _within(name, early)),
        tuple(name for name, _ in module.named_parameters() if _within(name, head)),
    )


def _user_model(builder: Builder, name: str, description: dict[str, object], arguments: tuple[int, int, Size]) -> Model:
    """A user's model, checked: a module that returns logits of the right shape. Raises InputError.

    `arguments` are those of `builder`: the numbers of logits and channels, and the image size.
    """
    module = _built_by_user(builder, name, arguments)
    num_classes, channels, size = arguments
    of_images = (2, channels, *sides(size))
    try:
        with torch.no_grad():
            shape = tuple(module.eval()(torch.zeros(of_images)).shape)
    except Exception as error:
        raise InputError(
            Fault(
                "model",
                f"{name} cannot take images of shape {of_images}: {type(error).__name__}: {error}",
            )
        ) from error
    if shape != (2, num_classes):
        raise InputError(
            Fault("model", f"{name} must give logits of shape (2, {num_classes}) for two images; got {shape}")
        )
    return Model(module.train(), _user_sections(module, name), description)


def _built_by_user(builder: Builder, name: str, arguments: tuple[int, int, Size]) -> nn.Module:
    """What a user's function builds. Raises InputError unless it is a module with parameters."""
    try:
        module = builder(*arguments)
    except Exception as error:
        raise InputError(
            Fault("model", f"{name} failed when called with {arguments}: {type(error).__name__}: {error}")
        ) from error
    if not isinstance(module, nn.Module) or not any(True for _ in module.parameters()):
        raise InputError(
            Fault("model", f"{name} must return a torch.nn.Module with parameters; got {type(module).__name__}")
        )
    return module


def _user_sections(module: nn.Module, name: str) -> tuple[Names, ...]:
    """The sections that the module's own `sections()` returns, else the usual ones; a single one if it is too small for these.

    Raises InputError if its own do not hold each parameter once.
    """
    names = [parameter for parameter, _ in module.named_parameters()]
    own_sections = getattr(module, "sections", None)
    if callable(own_sections):
        parts = tuple(tuple(part) for part in own_sections())
        if len(parts) != NUM_SECTIONS or sorted(n for part in parts for n in part) != sorted(names):
            raise InputError(
                Fault(
                    "model",
                    f"sections() of {name} must give {NUM_SECTIONS} lists, input to head, that hold the name of every "
                    f"parameter once; got {[len(part) for part in parts]} names of {len(names)} parameters",
                )
            )
        return parts
    children = _with_parameters(module.named_children())
    backbone = [parameter for parameter in names if children and not _within(parameter, children[-1:])]
    return sections(module) if len(backbone) > 1 else ((), (), tuple(names))


def _torchvision(name: str, num_classes: int, channels: int, size: Size, stem: Stem) -> nn.Module:
    from torchvision.models import get_model

    arguments: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        arguments |= {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        arguments |= {"image_size": size}
    elif name.startswith("maxvit_"):
        arguments |= {"input_size": sides(size)}
    module: nn.Module = get_model(name, **arguments)
    change_stem(module, stem)
    if channels == 1:
        take_grey(module)
    return module


def _timm(name: str, num_classes: int, channels: int, size: Size, stem: Stem) -> nn.Module:
    """A model of timm's. Raises InputError if it cannot be built for images of this size."""
    from lrstudy.models.timm_models import create

    try:
        module = create(name, num_classes, channels, size)
    except InputError:
        raise
    except Exception as error:
        raise InputError(Fault("model", f"{name} cannot be built for images of {shown(size)}: {error}")) from error
    change_stem(module, stem)
    return module


def head_names(module: nn.Module) -> Names:
    """The names of the modules that make the logits: as timm gives them (of a distilled model two), else the last layer."""
    configuration = getattr(module, "pretrained_cfg", None)
    given = configuration.get("classifier") if isinstance(configuration, dict) else None
    names = [given] if isinstance(given, str) else list(given or ())
    known = set(_with_parameters(module.named_modules()))
    return tuple(name for name in names if name in known) or (last_layer(module),)


def last_layer(module: nn.Module) -> str:
    """The name of the last module that has parameters of its own."""
    own: list[str] = [
        name for name, part in module.named_modules() if any(True for _ in part.parameters(recurse=False))
    ]
    return own[-1]


def head_module(module: nn.Module, sections: Sequence[Sequence[str]]) -> nn.Module | None:
    """The module that consists of the last section: the innermost one, so that no dropout before it belongs to it.

    None if no module has exactly the parameters of that section.
    """
    wanted, found = set(sections[-1]), None
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        if {prefix + parameter for parameter, _ in part.named_parameters()} == wanted:
            found = part
    return found


def _with_parameters(modules: Iterable[tuple[str, nn.Module]]) -> list[str]:
    """The names of the modules that have parameters."""
    return [name for name, module in modules if any(True for _ in module.parameters())]


def _within(name: str, modules: Iterable[str]) -> bool:
    """Whether the parameter `name` belongs to one of these modules, or is one of these parameters."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _middle(names: Sequence[str]) -> int:
    """How many parameters come before the cut: at the boundary of blocks nearest to the middle, the later of two."""
    if len(names) < 2:
        return 0
    for depth in count(1):  # ever finer blocks, until none holds the majority
        prefixes = [name.split(".")[:depth] for name in names]
        blocks = [len(list(block)) for _, block in groupby(prefixes)]
        if len(blocks) > 1 and 2 * max(blocks) <= len(names):
            break
    boundaries = list(accumulate(blocks))[:-1]
    return min(boundaries, key=lambda boundary: (abs(2 * boundary - len(names)), -boundary))
