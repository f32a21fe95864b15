"""A prefix of a bucket: whole objects, put, got and listed under time limits.

Every request has a limit of its own and is tried again while a bucket is slow, unreachable or at fault, for
`patience_s` in all; then, and at once if it refuses, StorageError says what failed, why, and what to do. Credentials and
endpoints are those of the cloud's own environment; nothing of them is kept, shown or pickled.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from lrstudy.errors import StorageError

PATIENCE_VARIABLE = "LRSTUDY_BUCKET_PATIENCE_S"
PATIENCE_S = 60.0
"""How long a request to a bucket that fails is tried again, unless the environment variable says otherwise."""
_REQUEST_S, _CONNECT_S, _DOWNLOAD_S = 30.0, 5.0, 3600.0
MULTIPART_BYTES = 16 * 2**20
"""A larger object that may be replaced is put in parts, each a request with a limit of its own: 0.5 MB/s are enough."""
_LONGEST_PAUSE_S = 5.0
Version = dict[str, str]
"""What identifies the content of an object to its bucket: an ETag, and where it has versions the version."""
_T = TypeVar("_T")


class Listed(NamedTuple):
    """An object as a listing shows it."""

    path: str
    size_bytes: int
    modified_at: datetime
    tag: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]


class Found(NamedTuple):
    """An object as it was read; `modified_at` is by the clock of the bucket."""

    data: bytes
    version: Version
    modified_at: datetime


class Bucket:
    """Objects below a prefix of a bucket. Paths are relative to it, with ``/``.

    A put shows the whole object or nothing. Any number of threads may share one; it pickles as its URL. An empty object
    counts as absent: it frees a name that was taken by a damaged object, which a bucket cannot do in one step otherwise.

    Args:
        url: As `place.checked_url` gives it.
        patience_s: How long a request that fails is tried again, in seconds.
        request_s: The limit of one request, in seconds.
    """

    def __init__(self, url: str, patience_s: float | None = None, request_s: float = _REQUEST_S) -> None:
        self.url = url
        self._patience_s = _patience_s() if patience_s is None else patience_s
        self._request_s = request_s
        self._opened: Any = None

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, float, float]]:
        return type(self), (self.url, self._patience_s, self._request_s)

    def get(self, path: str) -> bytes | None:
        """The bytes of an object, unchecked, or None if there is none."""
        found = self.find(path)
        return None if found is None else found.data

    def find(self, path: str) -> Found | None:
        """An object with its version, or None if there is none."""

        def get() -> Found | None:
            try:
                result = obstore.get(self._store, path)
            except FileNotFoundError:
                return None
            return Found(bytes(result.bytes()), _version(result.meta), result.meta["last_modified"])

        found = self._trying("read", get)
        return found if found is None or found.data else None

    def download(self, path: str, file: Path) -> bool:
        """Write an object to a file, in pieces. Returns False, and writes nothing, if there is none. Raises OSError too."""

        def get() -> bool:
            try:
                result = obstore.get(self._store, path)
            except FileNotFoundError:
                return False
            with file.open("wb") as target:
                for piece in result.stream(min_chunk_size=4 * 2**20):
                    target.write(piece)
            return True

        return self._trying("read", get)

    def create(self, path: str, data: bytes) -> bool:
        """Create an object. Returns False, and changes nothing, if the name is taken."""
        return self.create_version(path, data) is not None

    def create_version(self, path: str, data: bytes) -> Version | None:
        """`create`, with the version of the new object; None if the name is taken.

        After a failure that hid a success, the object's own creator is told that the name is taken: whoever must know
        compares the content.
        """
        try:
            return self._put(path, data, "create")
        except AlreadyExistsError:
            pass
        found = self._trying("read", lambda: self._freed(path))
        return self.replace(path, data, found) if found else None

    def put(self, path: str, data: bytes | Path) -> Version:
        """Put an object, or a file as one, in the place of what is there; in parts if it is large."""
        return self._put(path, data, "overwrite")

    def replace(self, path: str, data: bytes, version: Version) -> Version | None:
        """Put an object in the place of that `version` of it. Returns None, and changes nothing, if it is another now."""
        try:
            return self._put(path, data, version)
        except (PreconditionError, AlreadyExistsError):
            return None

    def listing(self, folder: str = "") -> list[Listed]:
        """All objects below a folder, in no particular order."""

        def gather() -> list[Listed]:
            batches: Iterable[Any] = obstore.list(self._store, f"{folder}/" if folder else None, chunk_size=1000)
            return [
                Listed(item["path"], item["size"], item["last_modified"], item["e_tag"] or "")
                for batch in batches
                for item in batch
                if item["size"]
            ]

        return self._trying("list", gather)

    def folders(self) -> list[str]:
        """The names of the folders directly below the prefix."""
        found = self._trying("list", lambda: obstore.list_with_delimiter(self._store))
        return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in found["common_prefixes"]]

    def delete(self, paths: str | list[str]) -> None:
        """Delete objects, if they are there."""

        def delete() -> None:
            try:
                obstore.delete(self._store, paths)
            except FileNotFoundError:  # some services say so of an object that is not there
                self._require_bucket()

        self._trying("delete", delete)

    def set_aside(self, path: str, damaged: bytes) -> None:
        """Copy an object in which the caller has read the bytes `damaged` to ``damaged/<path>``, and free its name.

        Moving would be a copy and then a deletion, which may hit a faster process's good object. What frees the name is an
        empty object in the place of exactly the version that was read.
        """
        found = self.find(path)
        if found is None or found.data != damaged:
            return
        self.put(f"damaged/{path}", damaged)
        self.replace(path, b"", found.version)

    def _freed(self, path: str) -> Version | None:
        """The version of an empty object, or None if the name is taken or there is none any more."""
        try:
            meta = obstore.head(self._store, path)
        except FileNotFoundError:
            return None
        return None if meta["size"] else _version(meta)

    def _put(self, path: str, data: bytes | Path, mode: Any) -> Version:
        """Put an object. Raises AlreadyExistsError or PreconditionError where `mode` does not allow it."""
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        in_parts = mode == "overwrite" and size > MULTIPART_BYTES
        return self._trying(
            "write",
            lambda: _version(obstore.put(self._store, path, data, mode=mode, use_multipart=in_parts)),
        )

    def _require_bucket(self) -> None:
        """Raise FileNotFoundError if there is no such bucket."""
        for _ in obstore.list(self._store, chunk_size=1):
            return

    @property
    def _store(self) -> Any:
        if self._opened is None:
            self._opened = from_url(
                self.url,
                client_options={
                    # Of an answer, and anew for each piece of it: a large object may take longer.
                    "read_timeout": timedelta(seconds=self._request_s),
                    "timeout": timedelta(seconds=_DOWNLOAD_S),
                    "connect_timeout": timedelta(seconds=min(_CONNECT_S, self._request_s)),
                    # Plain HTTP only where the environment names such an endpoint.
                    "allow_http": any(value.startswith("http://") for value in _endpoints()),
                },
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=self._request_s)},
            )
        return self._opened

    def _trying(self, action: str, call: Callable[[], _T]) -> _T:
        """The result of a call, made again while the bucket does not answer. Raises StorageError for other failures."""
        end, pause_s = time.monotonic() + self._patience_s, 0.2
        while True:
            try:
                return call()
            except (AlreadyExistsError, PreconditionError):
                raise
            except (BaseError, OSError, ValueError) as error:
                if self._opened is None or _kind(error) != "passing" or time.monotonic() + pause_s > end:
                    raise StorageError(self._explain(action, error)) from error
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _explain(self, action: str, error: Exception) -> str:
        reason, advice = _reason(error), _advice(self.url, error)
        return (
            f"storage.path: cannot {action} in the bucket at {self.url}: {reason}. What was recorded before is safe; "
            f"{advice}, then run the same command again."
        )


def is_refusal(error: StorageError) -> bool:
    """Whether a bucket failed by refusing, which only its user can change: no bucket, no right, no credentials."""
    return isinstance(error.__cause__, Exception) and _kind(error.__cause__) in ("missing", "refused", "credentials")


def _patience_s() -> float:
    try:
        return max(0.0, float(os.environ.get(PATIENCE_VARIABLE, PATIENCE_S)))
    except ValueError:
        return PATIENCE_S


def _endpoints() -> Iterator[str]:
    """The endpoints that the environment names."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "GOOGLE_BASE_URL"):
        yield os.environ.get(name, "").lower()


def _version(meta: Any) -> Version:
    return {key: str(meta[key]) for key in ("e_tag", "version") if meta.get(key)}


_Kind = Literal["missing", "refused", "credentials", "region", "name", "passing", "other"]
_KINDS: dict[_Kind, str] = {
    # The last place where credentials are looked for is the metadata service of a cloud's machine.
    "credentials": r"169\.254\.169\.254|/latest/api/token|computeMetadata|token request|status code: 401",
    "missing": r"NoSuchBucket|bucket does not exist",
    "refused": r"status code: 403",
    "region": r"redirect|PermanentRedirect",
}
"""How kinds of failure are recognised by their text; the library has an exception for only some of them."""


def _kind(error: Exception) -> _Kind:
    """What kind of failure this is; `passing` is no answer, a late one, or a fault on the bucket's side."""
    if isinstance(error, InvalidPathError):
        return "name"
    if isinstance(error, PermissionDeniedError):
        return "refused"
    if isinstance(error, UnauthenticatedError):
        return "credentials"
    kinds = (kind for kind, signs in _KINDS.items() if re.search(signs, str(error)))
    return next(kinds, "passing" if isinstance(error, GenericError) else "other")


def _reason(error: Exception) -> str:
    """What went wrong, on one line and without the library's own notes."""
    text = str(error).split("\n\nDebug source")[0]
    if said := re.search(r"<Message>(.*?)</Message>", text, re.DOTALL):
        code = re.search(r"<Code>(.*?)</Code>", text)
        text = f"{code[1]}, {said[1]}" if code else said[1]
    if _kind(error) == "credentials":
        text = f"no credentials were found ({text})"
    return " ".join(text.split())[:400].rstrip(". ")


def _advice(url: str, error: Exception) -> str:
    """What to do about it, as a clause."""
    scheme, _, rest = url.partition("://")
    bucket = rest.partition("/")[0]
    where = {
        "s3": "by the environment (AWS_ACCESS_KEY_ID and others, as `aws configure export-credentials --format env` "
        "prints them) or by the role of the machine",
        "gs": "by GOOGLE_APPLICATION_CREDENTIALS or the service account of the machine",
    }
    return {
        "credentials": f"give it credentials {where.get(scheme, '')}",
        "missing": f"make the bucket {bucket}, or correct its name",
        "refused": f"let your credentials read, write, list and delete objects in {bucket}",
        "region": f"set AWS_REGION to the region of {bucket}",
        "name": "remove that object, whose name no program of this project has given",
        "passing": "see that the bucket can be reached from here",
        "other": "correct the cause",
    }[_kind(error)]
