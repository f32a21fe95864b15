"""Torchvision's built-in data sets by name: read from disk, and downloaded first if that is allowed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy.data.cells import POOL, TEST, Label
from lrstudy.data.sources.base import Encoded
from lrstudy.errors import Fault, InputError

_BY_TRAIN = ({"train": True}, {"train": False})
_BY_SPLIT = ({"split": "train"}, {"split": "test"})
SETS: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "cifar10": ("CIFAR10", _BY_TRAIN),
    "cifar100": ("CIFAR100", _BY_TRAIN),
    "mnist": ("MNIST", _BY_TRAIN),
    "fashionmnist": ("FashionMNIST", _BY_TRAIN),
    "kmnist": ("KMNIST", _BY_TRAIN),
    "qmnist": ("QMNIST", _BY_TRAIN),
    "svhn": ("SVHN", _BY_SPLIT),
    "stl10": ("STL10", _BY_SPLIT),
    "gtsrb": ("GTSRB", _BY_SPLIT),
    "flowers102": ("Flowers102", _BY_SPLIT),
    "oxfordiiitpet": ("OxfordIIITPet", ({"split": "trainval"}, {"split": "test"})),
    "eurosat": ("EuroSAT", ({},)),
}
"""Name -> torchvision's class, and the arguments that select its training part and, if it has one, its test part."""

TIMEOUT_S = 10.0
"""Socket timeout while torchvision downloads."""
_DEFAULT_ROOT = "~/.cache/lrstudy/torchvision"


@dataclass(frozen=True)
class TorchvisionSet:
    """One of SETS, with its files below `root` in torchvision's layout."""

    name: str
    root: str | None
    download: bool

    @property
    def folder(self) -> Path:
        """`root`; by default a separate folder for each set, so that downloading another changes no fingerprint."""
        return Path(self.root) if self.root else Path(_DEFAULT_ROOT).expanduser() / self.name

    def fingerprint(self) -> dict[str, object]:
        """Name, torchvision's version, and sizes and modification times of the files; may download them first."""
        self._opened  # noqa: B018  # so that the files are there
        files = blake2b(digest_size=16)
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            status = path.stat()
            name = path.relative_to(self.folder).as_posix()
            files.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return {
            "source": self.name,
            "torchvision": version("torchvision"),
            "path": str(self.folder.resolve()),
            "files": files.hexdigest(),
        }

    def labels(self) -> tuple[list[Label], list[int]]:
        """Class names if torchvision has them, otherwise class numbers; and the part in which torchvision has each."""
        labels: list[Label] = []
        parts: list[int] = []
        for part, data in zip((POOL, TEST), self._opened, strict=False):
            # Each of QMNIST's targets is a row whose first value is the class.
            numbers = [int(value) for value in np.asarray(_targets(data)).reshape(len(data), -1)[:, 0]]
            names = getattr(data, "classes", None)
            labels += [str(names[number]) for number in numbers] if names else numbers
            parts += [part] * len(numbers)
        return labels, parts

    def column(self, name: str) -> list[str]:
        """Always raises InputError: there are no further columns."""
        raise InputError(Fault("data", f"there is no column {name!r}: {self.name} has images and labels only"))

    def names(self) -> list[str]:
        """Set, torchvision's part, and number in it."""
        parts = zip(("train", "test"), self._opened, strict=False)
        return [f"{self.name} {part} {row}" for part, data in parts for row in range(len(data))]

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Pixels, as torchvision decodes them."""
        for part, data in zip(("train", "test"), self._opened, strict=False):
            for row in range(len(data)):
                yield f"{self.name} {part} {row}", np.asarray(data[row][0])

    @cached_property
    def _opened(self) -> list[Any]:
        from torchvision import datasets

        kind, parts = SETS[self.name]
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(TIMEOUT_S)
        try:
            return [getattr(datasets, kind)(self.folder, download=self.download, **arguments) for arguments in parts]
        except Exception as error:  # torchvision raises RuntimeError, URLError, zipfile's and tarfile's errors, ...
            allowed = (
                "The download failed: is there a network?"
                if self.download
                else "Write data: {source: " + self.name + ", download: true} to have it downloaded."
            )
            raise InputError(
                Fault(
                    "data",
                    f"{self.name} cannot be read from {self.folder} ({' '.join(str(error).split())[:160]})",
                    advice=f"{allowed} Or put torchvision's files there and name the folder as `root`.",
                )
            ) from None
        finally:
            socket.setdefaulttimeout(before)


def _targets(data: Any) -> Any:
    for name in ("targets", "labels", "_labels"):
        if hasattr(data, name):
            return getattr(data, name)
    return [label for _, label in getattr(data, "_samples", None) or (data[row] for row in range(len(data)))]
