"""Lineage: the name of a training state is the hash chain of what made it.

    name(0)   = H(root)
    name(e+1) = H(name(e), canonical bytes of settings(e))

The policy is not in the name, so two policies that ask for the same training name the same states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b

from lrstudy.settings import Settings, canonical_json

SEMANTICS = 1
"""Version of the training semantics: raised whenever training the same settings gives other numbers."""


@dataclass(frozen=True, kw_only=True)
class Root:
    """Everything that shapes a training run and is not a setting of an epoch.

    Attributes:
        data, split: Digests (hexadecimal) of the examples and of their division into parts.
        preprocessing, model: Plain descriptions (JSON values).
        weights: ``random`` for weights drawn from the seed, else the digest of the tensors that training begins with.
        seed: The seed of the trial.
        numerics: Whatever changes the order of floating-point operations: device kind and model, CPU capability,
            threads per trial, mkldnn, precision, TF32, compile, memory format, torch version, evaluation batch.
        task: The kind of task, which decides what an evaluation records.
        source: The digest of the user's own modules; empty if there are none.
        semantics: The version of the training semantics.
    """

    data: str
    split: str
    preprocessing: dict[str, object]
    model: dict[str, object]
    weights: str
    seed: int
    numerics: dict[str, object]
    task: str = "multiclass"
    source: str = ""
    semantics: int = SEMANTICS

    @property
    def device_kind(self) -> str:
        """The kind of device that trains, as tables name it."""
        return f"{self.numerics.get('device')}: {self.numerics.get('device_model')}"

    def name(self) -> str:
        """name(0): 32 hexadecimal digits."""
        return _hash(b"root", canonical_json(asdict(self)))


def extend(name: str, settings: Settings) -> str:
    """name(e+1) of the state reached from the state `name` by one epoch with `settings`."""
    return _hash(bytes.fromhex(name), settings.canonical)


def chain(name: str, epochs: Iterable[Settings]) -> Iterator[str]:
    """Yield name(1), name(2), ... for the settings of consecutive epochs after the state `name`."""
    for settings in epochs:
        name = extend(name, settings)
        yield name


def features_name(root: Root, name: str, depth: int) -> str:
    """The name of what a frozen backbone makes of the data.

    It is that of the state `name` after `depth` epochs, from which on the backbone stays as it is. Weights that are not
    drawn from the seed have the same backbone under every seed, as long as nothing is trained.
    """
    if depth == 0 and root.weights != "random":
        name = replace(root, seed=0).name()
    return _hash(b"features", bytes.fromhex(name))


def _hash(*parts: bytes) -> str:
    digest = blake2b(digest_size=16, person=b"lrstudy-lineage1")
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
