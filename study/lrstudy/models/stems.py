"""The first layers of a network, changed for small images or for grey ones."""

from __future__ import annotations

from typing import Any

from torch import nn

from lrstudy.models.catalogue import Stem


def change_stem(module: nn.Module, stem: Stem) -> None:
    """Make the first layers of a network, which is modified, keep more of a small image; see `catalogue.Family`."""
    if stem == "3x3":
        _replace_stem(module)
    elif stem == "stride1":
        _first_convolution(module).stride = (1, 1)


def take_grey(module: nn.Module) -> None:
    """Make a network, which is modified, take one channel, with the logits that it had for three equal channels."""
    convolution = _first_convolution(module)
    convolution.weight = nn.Parameter(convolution.weight.detach().sum(dim=1, keepdim=True))
    convolution.in_channels = 1


def _replace_stem(module: Any) -> None:
    """Make the first convolution of a ResNet or DenseNet 3 x 3 with stride 1, without pooling after it (He et al. 2016, 4.2).

    Of a stem of several 3 x 3 convolutions, such as that of ResNet-D, the first keeps its weights and loses its stride.
    """
    first = _first_convolution(module)
    if first.kernel_size == (3, 3):
        first.stride = (1, 1)
    else:
        convolution = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        if hasattr(module, "conv1"):
            module.conv1 = convolution
        else:
            module.features.conv0 = convolution
    if hasattr(module, "conv1"):
        module.maxpool = nn.Identity()
    else:
        module.features.pool0 = nn.Identity()


def _first_convolution(module: nn.Module) -> nn.Conv2d:
    return next(part for part in module.modules() if isinstance(part, nn.Conv2d))
