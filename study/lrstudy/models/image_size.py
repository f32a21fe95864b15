"""The size of images in pixels: one number if they are square, else height and width."""

from __future__ import annotations

Size = int | tuple[int, int]
"""Of square images one number, so that their names and caches are what they were before there were others."""


def size_of(height: int, width: int) -> Size:
    """The size of images with this height and width."""
    return height if height == width else (height, width)


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def shown(size: Size) -> str:
    """A size as somebody reads it, such as ``218 x 178 pixels (height x width)``."""
    height, width = sides(size)
    return f"{height} x {width} pixels" + ("" if height == width else " (height x width)")
