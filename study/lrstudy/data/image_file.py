"""Writes images.npy as a stream that can be resumed after a crash.

The file is written in blocks. Once a block has reached the disk, a line in progress.jsonl records its end and its
checksum. To resume, the blocks are read back, and writing continues after the last intact one.
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
"""A block ends after this many bytes or seconds: no more than that has to be decoded again after a crash."""
_READ_BYTES = 1 << 22
PROGRESS = "progress.jsonl"


class ImageFile:
    """An .npy file of `num_images` images, uint8, all of one shape (C, H, W); continues a file that was begun before.

    It is a plain file, not a memory map, because on a full disk it raises OSError instead of killing the process.
    `written` is the number of images in the file and `shape` the shape of each, None before the first.
    """

    def __init__(self, folder: Path, num_images: int) -> None:
        self._path, self._num_images = folder / "images.npy", num_images
        self.written, self.shape = 0, None  # type: int, tuple[int, ...] | None
        end = self._resume(folder / PROGRESS)
        self._file: IO[bytes] = self._path.open("r+b" if end else "wb")
        self._file.truncate(end)
        self._file.seek(end)
        self._log = (folder / PROGRESS).open("a" if end else "w")
        self._has_room = False
        self._is_whole = True
        self._begin_block()

    def append(self, pixels: NDArray[np.uint8]) -> None:
        """Write the next image. Raises OSError, and StorageError if the disk has no room for all remaining images."""
        if not self._has_room:
            self._check_room(pixels)
            self._has_room = True
        self._is_whole = False  # an interrupt may come between writing, checksum and count
        if self.shape is None:
            self.shape = pixels.shape
            self._write(_header((self._num_images, *pixels.shape)))
        self._write(np.ascontiguousarray(pixels).reshape(-1).data)
        self.written += 1
        self._is_whole = True
        if self._block_bytes >= BLOCK_BYTES or time.monotonic() - self._begun > BLOCK_S:
            self._end_block()

    def close(self) -> None:
        """Flush everything to disk. A block with an unfinished image is not recorded, so it will be decoded again."""
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

    def _resume(self, log: Path) -> int:
        """Set `written` and `shape` to what is intact on disk, keep only its lines in the log; return where it ends."""
        if not (log.exists() and self._path.exists()):
            return 0
        with self._path.open("rb") as file:
            lines, written, end = _intact_blocks(file, log)
            num_images, shape = _shape_in(file) if end else (0, ())
            is_of_this_data = num_images == self._num_images and file.tell() + written * math.prod(shape) == end
        if not is_of_this_data:  # nothing is intact, or a user's function now returns other data
            return 0
        self.written, self.shape = written, shape
        log.write_text("".join(f"{line}\n" for line in lines))
        return end

    def _check_room(self, first: NDArray[np.uint8]) -> None:
        """Raise StorageError before hours of decoding, not after, if the result will not fit on the disk."""
        num_left = self._num_images - self.written
        needed_bytes, free_bytes = num_left * first.size, shutil.disk_usage(self._path.parent).free
        if needed_bytes > free_bytes:
            raise StorageError(
                f"storage.path: cannot keep the decoded data in {self._path.parents[2]}: it takes {_gb(needed_bytes)} "
                f"({num_left:,} images of {' x '.join(map(str, first.shape))} bytes), and {_gb(free_bytes)} are free. "
                "Free space, choose a smaller image.size, or another storage.path; then run the same command again."
            )


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _intact_blocks(file: IO[bytes], log: Path) -> tuple[list[str], int, int]:
    """The lines of the log up to the first block that is not intact, and how many images and bytes the blocks hold."""
    lines: list[str] = []
    written = end = 0
    for line in log.read_text().splitlines():
        try:
            block = json.loads(line)
            if _checksum(file, block["end"] - end) != block["checksum"]:
                break
            written, end = int(block["images"]), int(block["end"])
        except (ValueError, KeyError, TypeError):
            break  # torn by a crash
        lines.append(line)
    return lines, written, end


def _shape_in(file: IO[bytes]) -> tuple[int, tuple[int, ...]]:
    """The number of images in a file's header, and their shape; leaves the file at the end of the header."""
    file.seek(0)
    np.lib.format.read_magic(file)
    (num_images, *shape), _, _ = np.lib.format.read_array_header_1_0(file)
    return num_images, tuple(shape)


def _checksum(file: IO[bytes], num_bytes: int) -> str:
    """Digest of the next bytes of a file, which is read in pieces."""
    digest = blake2b(digest_size=16)
    while num_bytes > 0 and (piece := file.read(min(_READ_BYTES, num_bytes))):
        digest.update(piece)
        num_bytes -= len(piece)
    return digest.hexdigest()


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3g} GB"
