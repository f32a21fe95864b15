"""The weights that a study begins with: found by what the study file calls them, fitted to its model, kept in the memo.

What the memo keeps is exactly what training begins with, but for a head that is made anew from each trial's seed: the
digest of these tensors is part of every root. Workers read them from there alone and unpickle nothing. What a file
or a name gives a model is remembered too, so the next run imports no torch for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lrstudy.data.normalise import Constants
from lrstudy.errors import Fault, InputError, StorageError, unknown, user_path
from lrstudy.models import pretrained
from lrstudy.models.catalogue import FITTING, Stem
from lrstudy.settings import canonical_json
from lrstudy.storage.place import Storage
from lrstudy.workload import warm_start
from lrstudy.workload.seen import OurData, deviations

if TYPE_CHECKING:
    from lrstudy.memo.memo import Memo
    from lrstudy.models.build import Model
    from lrstudy.models.weight_files import Tensors

RANDOM, IMAGENET = "random", "imagenet"
_MOST_SHOWN = 5


@dataclass(frozen=True)
class Weights:
    """What training begins with; plain values, to send to workers.

    Attributes:
        source: What the study file says.
        digest: That of the tensors, under which the memo has them; ``random`` for weights drawn from the seed alone.
        name: What they are called: published weights have names of their own.
        constants: The constants that images were normalised with when they were trained, if that is known.
        anew: Names of the tensors of a head that is made anew, from the seed.
        left_out: Names of tensors that the model has no place for.
        changes: What was changed to fit the model, a sentence each.
        deviations: Departures from the protocol that lie in what they were trained on, a sentence each.
        run: The study, arm, seed and state that they come from, if they come from one.
    """

    source: str = RANDOM
    digest: str = RANDOM
    name: str = ""
    constants: Constants | None = None
    anew: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    run: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_random(self) -> bool:
        """Whether all weights are drawn from the seed."""
        return self.digest == RANDOM

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about them beside the deviations, a sentence each."""
        return tuple(self._notes())

    @property
    def told(self) -> tuple[str, ...]:
        """What `validate`, `run` and `prepare` say of them: notes and deviations."""
        return (*self.notes, *(f"Deviation: {text}." for text in self.deviations))

    def to_json(self) -> dict[str, Any]:
        """What a study's lock says of them."""
        texts = {"source": self.source, "digest": self.digest, "name": self.name}
        lists = {"anew": self.anew, "left_out": self.left_out, "changes": self.changes, "deviations": self.deviations}
        lists |= {"notes": self.notes}
        return {**texts, **{name: list(values) for name, values in lists.items()}, "run": dict(self.run) or None}

    def _notes(self) -> Iterator[str]:
        if self.is_random:
            return
        head = f"the head ({_listed(self.anew)}) is made anew, from each trial's seed" if self.anew else "head included"
        yield f"Training begins with the weights of {self.name}, {head}."
        if self.left_out:
            yield f"Of these weights {_listed(self.left_out)} are left out, as the model has no such tensors."
        yield from (f"Of these weights {change}." for change in self.changes)
        if self.run:
            yield f"The training that they come from cost {self.run['device_s']:,.0f} device-seconds, which no arm is charged with."


NONE = Weights()
"""Weights that are drawn from the seed alone."""


@dataclass(frozen=True)
class Network:
    """What weights are fitted to.

    Attributes:
        name: The model as the study file names it.
        description: It, as a root describes it.
        digests: Digests of the user's code behind it, by role.
        build: Builds it.
    """

    name: str
    description: Mapping[str, object]
    digests: Mapping[str, str]
    build: Callable[[], Model]


class Source(Protocol):
    """Where weights come from."""

    @property
    def key(self) -> tuple[object, ...]:
        """What the weights depend on: plain values."""

    @property
    def stem(self) -> Stem | None:
        """The stem of the network that they are of, if that is known."""

    def find(self) -> str:
        """Make sure that they are here; returns what they are called. Raises InputError."""

    def read(self) -> Tensors:
        """Their tensors. Raises InputError."""

    def constants(self) -> Constants | None:
        """The constants that images were normalised with for them, if that is known."""

    def about(self, network: Network, ours: OurData, storage: Storage) -> dict[str, Any]:
        """The `deviations` and the `run` of `Weights`. Raises InputError if they have seen our test part or are another model's."""


@dataclass(frozen=True, kw_only=True)
class _OfNoStudy:
    """Weights that no study of ours has trained; constants are those of the weights that are published of the model."""

    model: str
    stem: Stem | None = None

    def constants(self) -> Constants | None:
        return pretrained.constants_of(self.model)

    def about(self, network: Network, ours: OurData, storage: Storage) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class _File(_OfNoStudy):
    """A file of the user's."""

    text: str
    path: Path

    @property
    def key(self) -> tuple[object, ...]:
        self.find()
        found = self.path.stat()
        return ("file", str(self.path), found.st_size, found.st_mtime_ns, _version(self.model))

    def find(self) -> str:
        if not self.path.is_file():
            raise InputError(Fault("weights", f"there is no file {self.path} (from {self.text})"))
        return self.text

    def read(self) -> Tensors:
        from lrstudy.models import weight_files

        return weight_files.read(self.path)


@dataclass(frozen=True, kw_only=True)
class _Published(_OfNoStudy):
    """What torchvision or timm publish of a model."""

    may_download: bool

    @property
    def key(self) -> tuple[object, ...]:
        return (IMAGENET, self.model, _version(self.model))

    @cached_property
    def _found(self) -> pretrained.Pretrained:
        """Found once, as the whole file is read to check it."""
        return pretrained.find(self.model, self.may_download)

    def find(self) -> str:
        return self._found.name

    def read(self) -> Tensors:
        from lrstudy.models import weight_files

        return weight_files.read(self._found.file)


@dataclass(frozen=True)
class _Run:
    """The state of a study that has finished."""

    start: warm_start.WarmStart

    @property
    def key(self) -> tuple[object, ...]:
        return (warm_start.PREFIX, self.start.lineage)

    @property
    def stem(self) -> Stem | None:
        return self.start.stem

    def find(self) -> str:
        return self.start.name

    def read(self) -> Tensors:
        return self.start.read()

    def constants(self) -> Constants | None:
        return self.start.constants

    def about(self, network: Network, ours: OurData, storage: Storage) -> dict[str, Any]:
        self.start.require_model(str(network.description["name"]))
        return {"deviations": deviations(self.start, ours, storage), "run": self.start.origin}


def check(text: str, model: str, base: Path) -> None:
    """Check what a study file says of weights, as far as that goes without data and storage. Raises InputError."""
    if text == IMAGENET:
        pretrained.require_published(model)
    elif text.startswith(warm_start.PREFIX):
        warm_start.check_form(text)
    elif text != RANDOM and "/" not in text and "." not in text and not _path(text, base).is_file():
        valid = (RANDOM, IMAGENET, "a FILE", "run:STUDY/ARM")
        raise InputError(unknown("weights", "kind of weights", text, valid))


def locate(text: str, model: str, base: Path, storage: Storage, may_download: bool) -> Source | None:
    """Where a study's weights come from; None for random ones. Done before the data is decoded, which may take long.

    Args:
        text: What the study file says.
        model: Its model.
        base: The folder that relative paths start from.
        storage: The study's storage.
        may_download: Whether published weights may be downloaded.

    Raises:
        InputError: They are not here, or the study that they are of has not finished.
        StorageError: The storage fails.
    """
    check(text, model, base)
    if text == RANDOM:
        return None
    source: Source = _File(model=model, text=text, path=_path(text, base))
    if text == IMAGENET:
        source = _Published(model=model, may_download=may_download)
    elif text.startswith(warm_start.PREFIX):
        source = _Run(warm_start.find(text, base, storage))
    if _memo(storage).measurement(_path_of(*source.key)) is None or text != IMAGENET:
        source.find()
    return source


def fitted(text: str, source: Source, network: Network, storage: Storage, ours: OurData) -> Weights:
    """The weights of a source, fitted to a model and kept in the memo. Imports torch unless that was done before.

    Args:
        text: What the study file says.
        source: Where they come from.
        network: The model.
        storage: The study's storage.
        ours: The study's data.

    Raises:
        InputError: They cannot be read, do not fit the model, or have seen the test part.
        StorageError: The storage fails.
    """
    about, memo = source.about(network, ours, storage), _memo(storage)
    path = _path_of(*source.key, dict(network.description), dict(network.digests), FITTING)
    facts = memo.measurement(path)
    if facts is None or not memo.has_weights(str(facts.get("digest"))):
        facts = _fit(source, network, memo)
        memo.put_measurement(path, facts)
        memo.put_measurement(_path_of(*source.key), {"name": facts["name"]})
    mean_and_deviation, changes = facts["constants"], list(facts["changes"])
    if not facts["anew"] and (classes := about.get("run", {}).get("classes")) not in (None, list(ours.data.classes)):
        changes.append(f"the head is kept, which was trained for other classes ({_listed(classes)})")
    return Weights(
        source=text,
        digest=facts["digest"],
        name=facts["name"],
        constants=mean_and_deviation and (tuple(mean_and_deviation[0]), tuple(mean_and_deviation[1])),
        anew=tuple(facts["anew"]),
        left_out=tuple(facts["left_out"]),
        changes=tuple(changes),
        **about,
    )


def stored(weights: Weights, storage: Storage) -> Tensors | None:
    """The tensors that training begins with, from the memo; None for random ones.

    Raises StorageError if they are not there, or damaged.
    """
    if weights.is_random:
        return None
    from lrstudy.models import weight_files

    data = _memo(storage).weights(weights.digest)
    if data is None:
        raise StorageError(
            f"storage.path: the weights {weights.digest} are not in the memo, or were damaged and are set aside. Run the "
            "same command again: they are read anew from where they come from."
        )
    return weight_files.from_bytes(data)


def _fit(source: Source, network: Network, memo: Memo) -> dict[str, Any]:
    """Read weights, fit them to a model and keep them; returns what the memo remembers of that."""
    from lrstudy.models import fitting, weight_files

    name, module = source.find(), network.build().module
    found = fitting.fit(module, network.name, source.read(), name)
    return {
        "digest": memo.put_weights(weight_files.to_bytes(found.tensors)),
        "name": name,
        "constants": source.constants(),
        "anew": found.anew,
        "left_out": found.left_out,
        "changes": found.changes,
    }


def _memo(storage: Storage) -> Memo:
    from lrstudy.memo.memo import Memo  # imports pyarrow, which most commands do without

    return Memo(storage.memo)


def _path(text: str, base: Path) -> Path:
    return (base / user_path(text, "weights")).resolve()


def _version(model: str) -> str:
    """The version of the library that publishes weights of a model, on which names and constants depend."""
    return version(pretrained.library_of(model))


def _path_of(*key: Any) -> str:
    """The memo path of what is known of weights by all that they depend on."""
    return f"fitted/{blake2b(canonical_json(list(key)), digest_size=16, person=b'lrstudy-fitted').hexdigest()}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {len(names) - _MOST_SHOWN} more" * (len(names) > _MOST_SHOWN))
