"""The user's files on nodes that do not have them: their code, and what it reads, travels through the memo.

A node that has the same files at the same paths, on a shared file system, uses those. Any other one gets copies in its
cache, each below one folder at the path that it has on the driver's host: modules find those beside them, and files that
are named relative to them. What is run on a node has the digest that the driver, not the storage, says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from lrstudy import user_code
from lrstudy.errors import Fault, InputError, StorageError
from lrstudy.memo.memo import Memo
from lrstudy.memo.objects import content_digest
from lrstudy.planning.plan import Plan
from lrstudy.policies.stages import STAGES
from lrstudy.settings import canonical_json
from lrstudy.storage import node_cache
from lrstudy.study_folder.replace_file import replacing
from lrstudy.trial.spec import TrialSpec
from lrstudy.workload.workload import Workload


@dataclass(frozen=True)
class Shipment:
    """The digests of the user's files, by the absolute paths that they have on the driver's host."""

    files: Mapping[str, str]

    def unpack(self, memo: Memo) -> Path:
        """Make the files available on this node; returns the folder below which they lie, ``/`` if they are here anyway.

        Many processes may do so at once. Raises StorageError if the memo does not have a file, or the cache cannot be
        written.
        """
        if all(_is_here(Path(path), digest) for path, digest in self.files.items()):
            return Path("/")
        name = blake2b(canonical_json(dict(self.files)), digest_size=16).hexdigest()
        root = node_cache.root() / "files" / name
        for path, digest in self.files.items():
            if not _is_here(copy := moved(Path(path), root), digest):
                _write(copy, memo.file(digest), path)
        return root


def pack(plan: Plan, memo: Memo) -> Shipment:
    """Store what the user's code of a study consists of and reads. Raises InputError if a file cannot be read."""
    return Shipment({str(path): memo.put_file(_content(path)) for path in _files(plan)})


def at_place(workload: Workload, root: Path) -> Workload:
    """The workload on a node where the user's files lie below `root`."""
    return replace(
        workload,
        user_references={role: _reference(text, root) for role, text in workload.user_references.items()},
        user_files={name: moved(path, root) for name, path in workload.user_files.items()},
    )


def with_policy_at(spec: TrialSpec, root: Path) -> TrialSpec:
    """A trial on a node where the user's files lie below `root`."""
    if spec.policy == STAGES:
        stages = tuple({**stage, "policy": _policy(stage["policy"], root)} for stage in spec.parameters["stages"])
        return replace(spec, parameters={**spec.parameters, "stages": stages})
    return replace(spec, policy=_policy(spec.policy, root))


def _policy(name: str, root: Path) -> str:
    return _reference(name, root) if user_code.is_reference(name) else name


def moved(path: Path, root: Path) -> Path:
    """Where a file with an absolute path on the driver's host lies below `root`."""
    return root / path.relative_to("/")


def _reference(text: str, root: Path) -> str:
    reference = user_code.Reference.parse(text)
    return str(user_code.Reference(moved(reference.path, root), reference.name))


def _files(plan: Plan) -> Iterable[Path]:
    """All files of the user's that training reads, each once."""
    policies = {policy for name, arm in plan.arms.items() if name not in plan.retired for policy in arm.policies}
    references = [*plan.workload.user_references.values(), *filter(user_code.is_reference, policies)]
    code = (file for reference in references for file in user_code.files(reference))
    return dict.fromkeys([*code, *plan.workload.user_files.values()])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(Fault("files", f"{path} cannot be read ({error.strerror})")) from error


def _is_here(path: Path, digest: str) -> bool:
    try:
        return content_digest(path.read_bytes()) == digest
    except OSError:
        return False


def _write(copy: Path, data: bytes | None, path: str) -> None:
    if data is None:
        raise StorageError(f"storage.path: the copy of {path} that was to be shipped to this node is not in the memo.")
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with replacing(copy) as fresh:
            fresh.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{node_cache.VARIABLE}: cannot write in {copy.parent}: {error.strerror}.") from error
