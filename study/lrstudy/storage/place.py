"""A storage by its place: what lies where in it, and where a node keeps its copies of it. Nothing here is accessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from lrstudy.errors import Fault, InputError, user_path
from lrstudy.storage import node_cache

WHERE = "storage.path"
_SCHEMES = ("s3", "gs")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_PART = re.compile(r"[A-Za-z0-9_=+,@-][A-Za-z0-9_.=+,@-]*")
_EXPECTED = "a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
MEMO = "memo"


def is_url(text: str | Path) -> bool:
    """Whether a text names no folder but something on the network."""
    return "://" in str(text)


def checked_url(text: str, where: str = WHERE) -> str:
    """The URL of a prefix of a bucket, without a slash at its end.

    Raises InputError for anything else; a text that may hold a secret is not repeated.
    """
    scheme, _, rest = text.partition("://")
    bucket, *parts = rest.rstrip("/").split("/")
    if "@" in bucket or any(mark in rest for mark in "?#"):
        raise InputError(
            Fault(
                where,
                "a URL of a bucket has no user, key or query",
                advice="Credentials come from the cloud's own chain: the environment, a file of the cloud's tools, or the "
                "role of the machine. If this was a secret, it stands in your shell's history now: replace it.",
            )
        )
    if scheme not in _SCHEMES:
        raise InputError(Fault(where, expected=_EXPECTED, got=f"{scheme}://..."))
    if not _BUCKET.fullmatch(bucket):
        expected = f"the name of a bucket after {scheme}:// (3 to 63 small letters, digits, '-', '_' and '.')"
        raise InputError(Fault(where, expected=expected, got=repr(bucket)))
    if wrong := [part for part in parts if not _PART.fullmatch(part)]:
        expected = "names of letters, digits and '_.=+,@-' between the slashes, not beginning with a dot"
        raise InputError(Fault(where, expected=expected, got=repr(wrong[0])))
    return "/".join([f"{scheme}://{bucket}", *parts])


@dataclass(frozen=True)
class Storage:
    """Where the memo and the studies lie. Plain values: it travels to workers, where the node's own cache applies.

    Attributes:
        location: The absolute path of a folder that all nodes share, or the URL of a prefix of a bucket.
    """

    location: str

    @staticmethod
    def of(text: str | Path, base: Path = Path()) -> Storage:
        """The storage that `storage.path` names; a relative path starts at `base`. Raises InputError."""
        if is_url(text):
            return Storage(checked_url(str(text)))
        return Storage(str((base / user_path(str(text), WHERE)).resolve()))

    @property
    def is_bucket(self) -> bool:
        """Whether it is a prefix of a bucket."""
        return is_url(self.location)

    @property
    def memo(self) -> str:
        """Where its memo lies: a path or a URL."""
        return f"{self.location}/{MEMO}"

    def study(self, name: str) -> str:
        """Where a study lies in it: a path or a URL."""
        return f"{self.location}/{name}"

    @property
    def studies(self) -> Path:
        """The folder of all studies: the storage itself, or that of this node's working copies."""
        if not self.is_bucket:
            return Path(self.location)
        return node_cache.root() / "studies" / blake2b(self.location.encode(), digest_size=8).hexdigest()

    @property
    def data_cache(self) -> Path:
        """The folder of decoded data: in the storage itself, or in the cache of this node."""
        return self._near / "data"

    @property
    def data_origin(self) -> str | None:
        """Where the bucket has the decoded data that nodes fetch; None if the storage is a folder that all nodes share."""
        return f"{self.memo}/data" if self.is_bucket else None

    @property
    def numerics(self) -> Path:
        """The folder of what torch computes with on this machine."""
        return self._near / "numerics"

    @property
    def ours(self) -> Path:
        """The folder whose files are never the user's."""
        return node_cache.root() if self.is_bucket else Path(self.location)

    @property
    def _near(self) -> Path:
        """Where this node keeps what belongs to the memo and has to be a file."""
        return node_cache.root() if self.is_bucket else Path(self.memo)
