"""The journal: what a study knows beyond its records, one append-only file of JSON lines per run.

    journal/0001.jsonl     kind: run | slots | found | suggest | told | trial | frozen | look | spans | slot | died | idle |
                                 done | teardown | end | killed

Each line is written at once and unbuffered, so a driver that is killed loses nothing that it has
written; a torn line is ignored, and so is one that no driver writes. All else that a study knows is in the records of the memo.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from lrstudy.errors import StorageError
from lrstudy.study_folder.journal_lines import is_line


class Journal:
    """The journal of one study. Constructing it reads all its files; `open_run` starts a new one.

    `wrote` is called with the kind of every line once it is written; what it raises, `write` does.
    """

    def __init__(self, folder: Path, wrote: Callable[[str], None] = lambda kind: None) -> None:
        self.folder = folder
        self._wrote = wrote
        self.lines: list[dict[str, Any]] = []
        self._by_kind: dict[str, list[dict[str, Any]]] = {}  # a large study has a million lines, most of them spans
        self.run = 0
        self.study_id = ""
        self._file: BinaryIO | None = None
        self._is_torn = False
        for path in sorted((path for path in folder.glob("*.jsonl") if path.stem.isdigit()), key=_number):
            self.run = _number(path)
            for line in _read(path):
                self._keep({**line, "run": self.run})

    def open_run(self, **facts: Any) -> int:
        """Begin a run; returns its number. The first run gives the study an identity of its own, `study_id`.

        Raises StorageError if the file cannot be written.
        """
        self.run += 1
        known = (str(line["study_id"]) for line in self.of_kind("run") if "study_id" in line)
        self.study_id = next(known, uuid4().hex[:12])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / f"{self.run:04d}.jsonl").open("xb", buffering=0)
        except OSError as error:
            raise self._refused(error) from error
        self.write("run", study_id=self.study_id, **facts)
        return self.run

    def write(self, kind: str, **facts: Any) -> None:
        """Append a line. Raises StorageError if it cannot be written; then it does not count."""
        assert self._file is not None, "no run is open"
        line = {"kind": kind, **facts}
        data = (json.dumps(line) + "\n").encode()
        rest = b"\n" + data if self._is_torn else data
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._is_torn = self._is_torn or len(rest) < len(data)
            raise self._refused(error) from error
        self._is_torn = False
        self._keep({**line, "run": self.run})
        self._wrote(kind)

    @property
    def is_open(self) -> bool:
        """Whether its last run is this process's own, and under way."""
        return self._file is not None

    @property
    def has_slots(self) -> bool:
        """Whether this run has allocated devices."""
        return any(line["run"] == self.run for line in self.of_kind("slots"))

    def of_kind(self, kind: str) -> Iterator[dict[str, Any]]:
        """The lines of one kind over all runs, oldest first."""
        return iter(self._by_kind.get(kind, ()))

    def close(self) -> None:
        """Close the run's file and flush it to the disk."""
        if self._file is not None:
            with suppress(OSError), self._file:  # a full disk has been reported by write
                os.fsync(self._file.fileno())
            self._file = None

    def _keep(self, line: dict[str, Any]) -> None:
        """Remember a line that is in a file."""
        self.lines.append(line)
        self._by_kind.setdefault(line["kind"], []).append(line)

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(
            f"storage.path: cannot write the journal in {self.folder}: {error.strerror}. What was recorded before is "
            "safe; free space or fix permissions, then run the same command again."
        )


def _number(path: Path) -> int:
    return int(path.stem)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue  # torn by a kill or a full disk
        if is_line(line):
            yield line
