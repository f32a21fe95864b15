"""The files that a user's code reads, such as weights: named in the study file, so that their content is in the names.

A file that is read without being named is refused. If it changed, states trained with its old content would be recalled
as if they had been trained with the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from lrstudy import opened_files, user_code
from lrstudy.errors import Fault, InputError, user_path
from lrstudy.settings import canonical_json

_MOST_SHOWN = 5
_BLOCK_BYTES = 2**24


def named(texts: Sequence[str], base: Path) -> dict[str, Path]:
    """The files that `workload.files` names, by what it calls them; a folder stands for all files below it.

    Args:
        texts: Paths of files and folders, relative to `base`.
        base: The folder of the study file.

    Raises:
        InputError: Something is named that does not exist.
    """
    faults: list[Fault] = []
    files: dict[str, Path] = {}
    for text in texts:
        path = (base / user_path(text, "files")).resolve()
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.is_file())
            files |= {f"{text.rstrip('/')}/{file.relative_to(path).as_posix()}": file for file in below}
        elif path.is_file():
            files[text] = path
        else:
            faults.append(Fault("files", f"there is no file or folder {path} (from {text})"))
    if faults:
        raise InputError(faults)
    return files


def digest(files: Mapping[str, Path]) -> str:
    """32 hexadecimal digits over the names and contents of files. Raises InputError for one that cannot be read."""
    return blake2b(
        canonical_json({name: content_digest(path) for name, path in files.items()}),
        digest_size=16,
        person=b"lrstudy-files",
    ).hexdigest()


def content_digest(path: Path) -> str:
    """32 hexadecimal digits over the content of a file, which is read again only if it has been touched."""
    try:
        touched = path.stat()
        return _content_digest(path, touched.st_size, touched.st_mtime_ns, touched.st_ino)
    except OSError as error:
        raise InputError(Fault("files", f"{path} cannot be read ({error.strerror})")) from error


@contextmanager
def only_named(
    references: Mapping[str, str], digests: Mapping[str, str], files: Mapping[str, Path], ours: Path
) -> Iterator[None]:
    """Within it, the user's code may read the files that are named, as long as they are what states are named with.

    Args:
        references: References to the code that runs, by role.
        digests: Digests of its source by role; under ``files``, that of the files.
        files: The files that it may read, by what the study file calls them.
        ours: The storage, which often lies beside the study file; files below it are not the user's.

    Raises:
        InputError: The code has read another file, or one that has changed.
    """
    if not references:
        yield
        return
    with opened_files.recording() as opened:
        yield
    if files and digest(files) != digests["files"]:
        raise InputError(Fault("files", "a file has changed while the study ran", advice="Run the study again."))
    homes = {user_code.Reference.parse(reference).path.parent for reference in references.values()}
    for role, reference in references.items():
        opened |= user_code.opened_at_import(reference, digests[role])
    unnamed = sorted(
        path
        for path in opened
        if not (Path(path).is_relative_to(ours) or opened_files.is_foreign(path, homes))
        and Path(path).resolve() not in files.values()
        and Path(path).is_file()
    )
    if unnamed:
        raise InputError(_fault(unnamed, min(homes)))


def _fault(unnamed: Sequence[str], home: Path) -> Fault:
    """The fault of files that were read and are not named."""
    names = [str(Path(path).relative_to(home)) if Path(path).is_relative_to(home) else path for path in unnamed]
    shown = ", ".join(names[:_MOST_SHOWN]) + (f" and {len(names) - _MOST_SHOWN} more" * (len(names) > _MOST_SHOWN))
    is_one = len(names) == 1
    return Fault(
        "files",
        f"your code reads {shown}, which {'is' if is_one else 'are'} not named; if {'it' if is_one else 'they'} changed, "
        "old training would be recalled as if it were new",
        advice=f"Name {'it' if is_one else 'them, or their folder'} under workload, as in files: [{names[0]}].",
    )


@lru_cache(maxsize=4096)
def _content_digest(path: Path, size: int, modified_ns: int, inode: int) -> str:
    total = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()
