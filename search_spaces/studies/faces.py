"""The network of Yacalis and Le (CS 274C, 2018) for three labels of faces: 460,707 parameters at 178 x 218 pixels.

One convolution of three filters, and a perceptron of two hidden layers. Weights begin as in Keras: Glorot's uniform
distribution, and zero for biases.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class FaceCNN(nn.Module):
    """Maps images (B, C, H, W) to `num_classes` logits."""

    def __init__(self, num_classes: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, 3, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.norm = nn.BatchNorm2d(3, eps=1e-3, momentum=0.01)  # Keras calls this momentum 0.99
        pooled = 3 * (((height + 1) // 2 - 3) // 2 + 1) * (((width + 1) // 2 - 3) // 2 + 1)
        self.hidden = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(pooled, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 64), nn.ReLU()
        )
        self.head = nn.Linear(64, num_classes)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes)."""
        height, width = images.shape[2:]
        images = functional.pad(images, (width % 2, 1, height % 2, 1))  # as Keras pads with stride 2 and "same"
        features = self.norm(self.pool(torch.relu(self.convolution(images))))
        logits: Tensor = self.head(self.hidden(features.flatten(1)))
        return logits


def build(num_classes: int, channels: int, size: int | tuple[int, int]) -> nn.Module:
    """The network for images of `size` pixels: both sides, or (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    return FaceCNN(num_classes, channels, height, width)
