"""images.npy, written in a stream that can be taken up again.

What is on disk is known block by block: a line in progress.jsonl, written once a block has reached the disk, gives its
end and its checksum. Whoever goes on reads the blocks back and begins after the last one that is whole.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import time
from hashlib import blake2b
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lrstudy.errors import StorageError

BLOCK_BYTES = 64 * 2**20
BLOCK_S = 10.0
"""A block ends after so many bytes or seconds: that much is decoded again after a crash."""
_READ_BYTES = 1 << 22
PROGRESS = "progress.jsonl"


class ImageFile:
    """Writes `num_images` images of one shape (C, H, W), uint8, behind an .npy header; begins after those already there.

    A plain file, not a memory map: a full disk then raises OSError instead of killing the process. `written` counts the
    images that the file holds, `shape` is theirs, None as long as there is none.
    """

    def __init__(self, folder: Path, num_images: int) -> None:
        self._path, self._num_images = folder / "images.npy", num_images
        self.written, self.shape = 0, None  # type: int, tuple[int, ...] | None
        end = self._take_up(folder / PROGRESS)
        self._file: IO[bytes] = self._path.open("r+b" if end else "wb")
        self._file.truncate(end)
        self._file.seek(end)
        self._log = (folder / PROGRESS).open("a" if end else "w")
        self._has_room = False
        self._is_whole = True
        self._begin_block()

    def append(self, pixels: NDArray[np.uint8]) -> None:
        """Write the next image. Raises OSError, and StorageError if the disk has no room for all of them."""
        if not self._has_room:
            self._check_room(pixels)
            self._has_room = True
        self._is_whole = False  # an interrupt may come between bytes, checksum and count
        if self.shape is None:
            self.shape = pixels.shape
            self._write(_header((self._num_images, *pixels.shape)))
        self._write(np.ascontiguousarray(pixels).reshape(-1).data)
        self.written += 1
        self._is_whole = True
        if self._block_bytes >= BLOCK_BYTES or time.monotonic() - self._begun > BLOCK_S:
            self._end_block()

    def close(self) -> None:
        """Bring everything to the disk; a block in which an image was not finished is left out, and decoded again."""
        if self._block_bytes and self._is_whole:
            self._end_block()
        self._file.close()
        self._log.close()

    def _write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self._sum.update(content)
        self._block_bytes += len(content)

    def _begin_block(self) -> None:
        self._sum, self._block_bytes, self._begun = blake2b(digest_size=16), 0, time.monotonic()

    def _end_block(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        line = {"images": self.written, "end": self._file.tell(), "checksum": self._sum.hexdigest()}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()
        os.fsync(self._log.fileno())
        self._begin_block()

    def _take_up(self, log: Path) -> int:
        """Where the last whole block ends; keeps the lines of whole blocks only."""
        if not (log.exists() and self._path.exists()):
            return 0
        whole: list[str] = []
        end = 0
        with self._path.open("rb") as file:
            for text in log.read_text().splitlines():
                try:
                    line = json.loads(text)
                    if _sum_of(file, line["end"] - end) != line["checksum"]:
                        break
                    self.written, end = int(line["images"]), int(line["end"])
                except (ValueError, KeyError, TypeError):
                    break  # torn by a crash
                whole.append(text)
            count, shape = _shape_in(file) if end else (0, ())
            fits = file.tell() + self.written * math.prod(shape) == end
        # Nothing there yet, or a function gives other data than it gave before.
        if count != self._num_images or not fits:
            self.written = 0
            return 0
        self.shape = shape
        log.write_text("".join(f"{text}\n" for text in whole))
        return end

    def _check_room(self, first: NDArray[np.uint8]) -> None:
        """Say before hours of decoding that the result will not fit."""
        needed = (self._num_images - self.written) * first.size
        free = shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise StorageError(
                f"storage.path: cannot keep the decoded data in {self._path.parents[2]}: it takes {_gb(needed)} "
                f"({self._num_images - self.written:,} images of {' x '.join(map(str, first.shape))} bytes), and {_gb(free)} are free. Free space, "
                "choose a smaller image.size, or another storage.path; then run the same command again."
            )


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _shape_in(file: IO[bytes]) -> tuple[int, tuple[int, ...]]:
    """How many images a file's header announces, and their shape."""
    file.seek(0)
    np.lib.format.read_magic(file)
    (count, *shape), _, _ = np.lib.format.read_array_header_1_0(file)
    return count, tuple(shape)


def _sum_of(file: IO[bytes], count: int) -> str:
    digest = blake2b(digest_size=16)
    while count > 0 and (piece := file.read(min(_READ_BYTES, count))):
        digest.update(piece)
        count -= len(piece)
    return digest.hexdigest()


def _gb(number: int) -> str:
    return f"{number / 1e9:.3g} GB"
