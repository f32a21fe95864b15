"""``folder:PATH``: image files in one folder per class, optionally below one folder per part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lrstudy.data.cells import POOL, Label
from lrstudy.data.sources.base import Encoded, WithoutColumns
from lrstudy.data.sources.files import given_parts, listing, stat
from lrstudy.errors import Fault, InputError

EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".webp",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
    ]
)


@dataclass(frozen=True)
class Folder(WithoutColumns):
    """Image files in one folder per class: PATH/CLASS/*, or PATH/PART/CLASS/*, for parts called as in PART_NAMES.

    The second layout applies if PATH/train exists; folders beside it that are not parts are then ignored. Hidden files
    and files without an image extension are skipped, as in torchvision's ImageFolder.
    """

    path: Path

    def fingerprint(self) -> dict[str, object]:
        """Relative path, size and modification time of every image."""
        return {
            "source": "folder",
            "path": str(self.path),
            "files": stat(self.path, [file for _, _, file in self._files()]),
        }

    def labels(self) -> tuple[list[Label], list[int]]:
        """The names of the class folders."""
        files = self._files()
        return [label for label, _, _ in files], [part for _, part, _ in files]

    def names(self) -> list[str]:
        """Paths below the folder."""
        return [str(file.relative_to(self.path)) for _, _, file in self._files()]

    def images(self) -> Iterator[tuple[str, Encoded]]:
        """Paths, sorted by part, class and file name."""
        return ((str(file.relative_to(self.path)), file) for _, _, file in self._files())

    def _files(self) -> list[tuple[str, int, Path]]:
        """Class name, part and path of every image."""
        files = []
        for folder, part in self._parts():
            for entry in _class_folders(folder):
                images = _images_in(Path(entry.path))
                if part == POOL and not images:
                    endings = ", ".join(sorted(EXTENSIONS))
                    raise InputError(
                        Fault("data", f"the class folder {entry.path} has no images (files ending in {endings})")
                    )
                files += [(entry.name, part, image) for image in images]
        return files

    def _parts(self) -> list[tuple[Path, int]]:
        names = [entry.name for entry in listing(self.path) if entry.is_dir()]
        if "train" not in names:
            return [(self.path, POOL)]
        return [(self.path / name, part) for name, part in given_parts(self.path, names, "/")]


def _class_folders(folder: Path) -> list[os.DirEntry[str]]:
    """The folders in a folder, sorted by name. Raises InputError if there are none."""
    classes = [entry for entry in listing(folder) if entry.is_dir()]
    if not classes:
        expected = "one folder of images per class, or train/ and test/ with such folders"
        raise InputError(Fault("data", f"the folder {folder} has no class folders; expected {expected}"))
    return classes


def _images_in(folder: Path) -> list[Path]:
    """Image files directly in a class folder, sorted by name. Raises InputError if it contains a folder."""
    images = []
    for entry in listing(folder):
        if entry.is_dir():
            raise InputError(
                Fault(
                    "data",
                    f"{folder} holds the folder {entry.name!r}; expected image files, as each folder in "
                    f"{folder.parent} is a class",
                    advice="(Parts are called train, validation and test.)",
                )
            )
        if os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
            images.append(Path(entry.path))
    return images
