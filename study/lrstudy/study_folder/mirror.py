"""A study in a bucket, and the copies of its folder on a node: the driver's, and one for all who only read.

    study.yaml, study.lock.json, *.parquet   whole objects, replaced
    source/, report/                         likewise; code from a bucket is never brought, as it would be run
    journal/0001-000017.jsonl                part 17 of run 1's lines, created and never changed
    journal/0001-000001-000100.jsonl         a hundred parts in one object; they are deleted then
    journal/0001.jsonl                       all lines of run 1, once it is over; its parts are deleted then
    predictions/<trial>.parquet              put by the worker that tested the trial

The bucket is the truth. `bring` makes the copy equal to it, so a line that was written here and never confirmed there is
dropped, as if the driver had been killed a moment earlier. What may be lost so is at most `JOURNAL_EVERY_S` of lines:
everything that was trained is in the memo. Before confirm trials read the test part, everything is confirmed.

Requests of a run: one part of the journal per second at most, a hundredth more to join them, and eight tables per
`TABLES_EVERY_S`: 1.3 per second.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lrstudy.errors import StorageError
from lrstudy.storage.bucket import Bucket, Listed
from lrstudy.storage.place import MEMO, Storage
from lrstudy.study_folder import of_workloads
from lrstudy.study_folder.replace_file import replacing

JOURNAL_EVERY_S = 1.0
TABLES_EVERY_S = 30.0
PARTS_JOINED = 100
"""So many parts become one object: a run of 12 hours that is killed leaves hundreds of objects, not tens of thousands."""
_CONFIRMED = ("run", "frozen", "look")
"""Kinds of lines that are published before the driver goes on: what a run is, and what confirm trials rest on."""
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,180}"
_BROUGHT = re.compile(
    rf"study\.yaml|study\.lock\.json|workloads\.json|{_NAME}\.parquet|predictions/{_NAME}\.parquet|journal/\d{{1,9}}(-\d{{6,9}}){{0,2}}\.jsonl|"
    r"report/answer\.json"
)
_TABLES_OF_ALL = ("study.lock.json", "trials.parquet", "epochs.parquet")
_STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_INDEX = ".mirror.json"
_DRIVERS, _TABLES = ".driver", ".tables"
_Stamp = list[int]


class Mirror:
    """A copy of one study; where the storage is a folder, that is the study's folder and nothing is to do.

    The driver works on a copy of its own, which it uses while it holds the driver lock: somebody who looks at the study on
    the same node brings another one, and never replaces what a driver is writing. Methods raise StorageError when the
    bucket fails, or the node's disk.
    """

    def __init__(self, storage: Storage, name: str, is_drivers: bool = False) -> None:
        self.folder = storage.studies / _DRIVERS / name if is_drivers and storage.is_bucket else storage.studies / name
        self.location = storage.study(name)
        """Where the study lies: a path or a URL."""
        self._storage, self._name = storage, name
        self._bucket = Bucket(self.location) if storage.is_bucket else None
        self._publishing = threading.RLock()
        self._published: dict[str, _Stamp] = {}
        self._run, self._part, self._offset = 0, 0, 0
        self._joined = (0, 0)  # as many parts have been joined, and so many bytes
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._failure: StorageError | None = None

    # From the bucket

    def bring(self) -> None:
        """Make the copy equal to what the bucket has. Names and sizes are the bucket's; nothing that is brought is run."""
        if self._bucket is None:
            return
        try:
            known = self._read_index()
            wanted = _wanted(self._bucket.listing())
            if not wanted and self.folder.is_dir():
                shutil.rmtree(self.folder)
            for path in _present(self.folder):
                if path not in wanted:
                    (self.folder / path).unlink(missing_ok=True)
            for path, sources in wanted.items():
                tag = "+".join(f"{source.path}={source.tag}" for source in sources)
                if known.get(path) != [tag, *_stamp(self.folder / path)]:
                    self._download(path, [source.path for source in sources])
                known[path] = [tag, *_stamp(self.folder / path)]
                self._published[path] = _stamp(self.folder / path)
            self._write_index({path: known[path] for path in wanted})
        except OSError as error:
            raise self._disk(error) from error

    def bring_tables(self) -> Path:
        """The folder in which all studies of the storage have the tables that say what they trained and need."""
        if self._bucket is None:
            return self._storage.studies
        folder = self._storage.studies / _TABLES
        present = [name for name in Bucket(self._storage.location).folders() if name != MEMO and _STUDY.fullmatch(name)]
        for name in present:
            self._bring_tables_of(name, folder, (of_workloads.INDEX, *_TABLES_OF_ALL))
            for workload in of_workloads.read(folder / name):
                self._bring_tables_of(f"{name}/{workload}", folder, _TABLES_OF_ALL)
        for gone in {path.name for path in folder.glob("*")} - {*present}:
            shutil.rmtree(folder / gone, ignore_errors=True)
        return folder

    def _bring_tables_of(self, name: str, folder: Path, paths: Iterable[str]) -> None:
        study = Mirror(self._storage, name)
        study.folder = folder / name
        try:
            for path in paths:
                study._download(path, [path])
        except OSError as error:
            raise self._disk(error) from error

    def bring_predictions(self, trials: Iterable[str]) -> None:
        """Bring the predictions of these trials that are not here; workers put them into the bucket."""
        if self._bucket is None:
            return
        try:
            for trial in trials:
                path = f"predictions/{trial}.parquet"
                if not (self.folder / path).exists():
                    self._download(path, [path])
                    self._published[path] = _stamp(self.folder / path)
        except OSError as error:
            raise self._disk(error) from error

    # To the bucket

    def begin(self, run: int) -> None:
        """Publish the journal of this run from now on, and the tables, in a thread."""
        if self._bucket is None:
            return
        self._join_earlier_runs(run)
        self._run, self._part, self._offset, self._joined = run, 0, 0, (0, 0)
        self._thread = threading.Thread(target=self._keep_publishing, name="lrstudy-mirror", daemon=True)
        self._thread.start()

    def wrote(self, kind: str) -> None:
        """Note that a line of the journal was written; lines that later ones rest on are published before it returns."""
        if self._bucket is not None and self._run and kind in _CONFIRMED:
            self._publish_journal()

    def check(self) -> None:
        """Raise the StorageError of the thread, if it has failed."""
        if self._failure is not None:
            raise self._failure

    def publish(self) -> None:
        """Publish everything that has changed; on return the bucket has it."""
        if self._bucket is None:
            return
        with self._publishing:
            self._publish_journal()
            self._publish_files()

    def end(self) -> None:
        """Stop the thread, publish everything, and let one object take the place of the parts of this run's journal."""
        self.stop()
        if self._bucket is None:
            return
        with self._publishing:
            self.publish()
            self._join_earlier_runs(self._run + 1)
            self._run = 0

    def stop(self) -> None:
        """Stop the thread; what it had not published stays unpublished."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _keep_publishing(self) -> None:
        ticks = 0
        while not self._stopped.wait(JOURNAL_EVERY_S):
            ticks += 1
            try:
                self._publish_journal()
                if ticks % round(TABLES_EVERY_S / JOURNAL_EVERY_S) == 0:
                    self._publish_files()
            except StorageError as error:
                self._failure = error
                return

    def _publish_journal(self) -> None:
        """Publish the whole lines that the run's journal has beyond the last part, as another part."""
        assert self._bucket is not None
        with self._publishing:
            if not self._run:
                return
            try:
                with (self.folder / f"journal/{self._run:04d}.jsonl").open("rb") as file:
                    file.seek(self._offset)
                    data = file.read()
            except FileNotFoundError:
                return  # the run is about to begin it
            except OSError as error:
                raise self._disk(error) from error
            data = data[: data.rfind(b"\n") + 1]
            if not data:
                return
            path = self._part_path(self._part + 1)
            if not self._bucket.create(path, data) and self._bucket.get(path) != data:
                raise StorageError(
                    f"storage.path: another driver writes the journal in {self.location}. This run stops; what was recorded "
                    "is safe."
                )
            self._part, self._offset = self._part + 1, self._offset + len(data)
            if self._part - self._joined[0] == PARTS_JOINED:
                self._join_parts()

    def _join_parts(self) -> None:
        """Put the parts that have come since the last time into one object, and delete them."""
        assert self._bucket is not None
        (before, start), last = self._joined, self._part
        with (self.folder / f"journal/{self._run:04d}.jsonl").open("rb") as file:
            file.seek(start)
            data = file.read(self._offset - start)
        self._bucket.create(f"{self._part_path(before + 1).removesuffix('.jsonl')}-{last:06d}.jsonl", data)
        self._bucket.delete([self._part_path(number) for number in range(before + 1, last + 1)])
        self._joined = last, self._offset

    def _join_earlier_runs(self, run: int) -> None:
        """Let one object take the place of all parts of each run before `run`; the copy has them."""
        assert self._bucket is not None
        parts: dict[str, list[str]] = {}
        for item in self._bucket.listing("journal"):
            match = _BROUGHT.fullmatch(item.path)
            if match and match[1] and int(item.name.partition("-")[0]) < run:
                parts.setdefault(f"{item.path.partition('-')[0]}.jsonl", []).append(item.path)
        for whole, paths in parts.items():
            self._bucket.put(whole, (self.folder / whole).read_bytes())
            self._bucket.delete(paths)

    def _publish_files(self) -> None:
        """Put what has changed since it was put last; the study lock, which may say that all is complete, at the end."""
        assert self._bucket is not None
        with self._publishing:
            for path in sorted(_published(self.folder), key=lambda path: (path == "study.lock.json", path)):
                try:
                    stamp = _stamp(self.folder / path)
                    if stamp and self._published.get(path) != stamp:
                        self._bucket.put(path, (self.folder / path).read_bytes())
                        self._published[path] = stamp
                except FileNotFoundError:
                    continue  # removed meanwhile
                except OSError as error:
                    raise self._disk(error) from error

    def _part_path(self, number: int) -> str:
        return f"journal/{self._run:04d}-{number:06d}.jsonl"

    def _download(self, path: str, sources: list[str]) -> None:
        """Write the objects `sources`, one after the other, to the file `path`; it is left out if one of them is gone."""
        assert self._bucket is not None
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if len(sources) == 1:
            with replacing(target) as fresh:
                if not self._bucket.download(sources[0], fresh):
                    fresh.write_bytes(b"")
            if not target.stat().st_size:
                target.unlink(missing_ok=True)
            return
        with replacing(target) as fresh:
            fresh.write_bytes(b"".join(self._bucket.get(source) or b"" for source in sources))

    def _read_index(self) -> dict[str, list[object]]:
        """What was brought or put last, by its path: the bucket's tag, and the stamp of the file here."""
        try:
            index = json.loads((self.folder / _INDEX).read_bytes())
        except (OSError, ValueError):
            return {}
        return index if isinstance(index, dict) else {}

    def _write_index(self, index: Mapping[str, list[object]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(self.folder / _INDEX) as fresh:
            fresh.write_text(json.dumps(index))

    def _disk(self, error: OSError) -> StorageError:
        return StorageError(
            f"storage.path: cannot keep the working copy of {self.location} in {self.folder}: {error.strerror or error}. What "
            "was recorded before is safe; free space or set LRSTUDY_CACHE to another folder, then run the same command again."
        )


def _wanted(listed: Iterable[Listed]) -> dict[str, list[Listed]]:
    """The files of the copy, and the objects that each is made of. Objects that are not a study's are left out."""
    wanted: dict[str, list[Listed]] = {}
    parts: dict[str, list[Listed]] = {}
    for item in listed:
        match = _BROUGHT.fullmatch(item.path)
        if match is None:
            continue
        if match[1]:
            parts.setdefault(f"{item.path.partition('-')[0]}.jsonl", []).append(item)
        else:
            wanted[item.path] = [item]
    for (
        path,
        items,
    ) in parts.items():  # where all lines are in one object, parts are left of a deletion that was cut off
        wanted.setdefault(path, list(_uncovered(items)))
    return wanted


def _uncovered(parts: Iterable[Listed]) -> Iterator[Listed]:
    """Parts of a journal in order, without those that are in a joined one as well."""
    numbered = []
    for part in parts:
        numbers = [int(text) for text in part.name.removesuffix(".jsonl").split("-")[1:]]
        numbered.append((numbers[0], -numbers[-1], part))
    covered = 0
    for first, minus_last, part in sorted(numbered):
        if first > covered:
            covered = -minus_last
            yield part


def _present(folder: Path) -> Iterator[str]:
    """The files of a copy that are the bucket's."""
    paths = (
        [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    )
    yield from (path for path in paths if _BROUGHT.fullmatch(path))


def _published(folder: Path) -> Iterator[str]:
    """The files of a copy that are put as whole objects; those being written have names that begin with a dot."""
    paths = [path for path in folder.iterdir() if path.suffix in (".parquet", ".yaml", ".json")]
    paths += [path for below in ("source", "report") for path in (folder / below).rglob("*")]
    yield from (
        path.relative_to(folder).as_posix() for path in paths if path.is_file() and not path.name.startswith(".")
    )


def _stamp(file: Path) -> _Stamp:
    """By which a change of a file is noticed; empty if there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ino]
