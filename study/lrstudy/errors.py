"""The user's mistakes as structured faults, rendered in one place; and the failures of storage and cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """One mistake: where it stands, what was expected, what arrived, what would be valid.

    Args:
        where: The field of the study file (``arms.clr.lr``), the option (``--data``) or the file; "" for what the caller
            places with `within`.
        problem: What is wrong, if "expected ...; got ..." does not say it.
        expected: What it must be, as the words after "expected".
        got: What it is instead, as the words after "got"; nothing if `expected` says enough.
        valid: The names that would be valid.
        name: The name that arrived, for the valid names that are nearest to it.
        advice: What to do about it, in whole sentences.
    """

    where: str
    problem: str = ""
    expected: str = ""
    got: str = ""
    valid: tuple[str, ...] = ()
    name: str | None = None
    advice: str = ""

    def within(self, place: str, separator: str = ".") -> Fault:
        """The same fault below `place`: ``lr`` within ``arms.clr`` stands at ``arms.clr.lr``."""
        return replace(self, where=f"{place}{separator}{self.where}" if self.where else place)

    def __str__(self) -> str:
        """``where: expected ...; got .... Did you mean 'this'? Valid: this, that. What to do.``"""
        problem = self.problem or f"expected {self.expected}" + (f"; got {self.got}" if self.got else "")
        sentences = [_ended(f"{self.where}: {problem}" if self.where else problem)]
        near = get_close_matches(self.name, self.valid, n=2, cutoff=0.6) if self.name is not None else []
        if near:
            sentences.append(f"Did you mean {' or '.join(map(repr, near))}?")
        if not all(name in self.expected for name in self.valid):  # else they have been said
            sentences.append(f"Valid: {', '.join(self.valid)}.")
        if self.advice:
            sentences.append(_ended(self.advice))
        return " ".join(sentences)


class InputError(ValueError):
    """The user's input is wrong (exit code 2). Holds every fault that could be seen at once."""

    def __init__(self, faults: Fault | Sequence[Fault]) -> None:
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(self.sentences))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The faults as somebody reads them, one text each."""
        return tuple(map(str, self.faults))

    def within(self, place: str, separator: str = ".") -> InputError:
        """The same error with every fault placed below `place`."""
        return type(self)([fault.within(place, separator) for fault in self.faults])

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Fault, ...]]]:
        return type(self), (self.faults,)


class NotYetError(InputError):
    """A part of the design that this version does not have."""


class StorageError(RuntimeError):
    """The storage does not take or give data: full, read-only, unreachable."""


class ClusterError(RuntimeError):
    """What trials run on has failed: Ray's own processes have died."""


def faults_of(check: Callable[[], object]) -> list[Fault]:
    """The faults of the InputError that `check` raises; none if it raises none."""
    try:
        check()
    except InputError as error:
        return list(error.faults)
    return []


def unknown(where: str, kind: str, name: object, valid: Iterable[object]) -> Fault:
    """The fault of a name that does not exist.

    Args:
        where: The field, option or file that holds it.
        kind: What it should have named, as in "there is no policy 'stpe'".
        name: The name that arrived.
        valid: The names that exist.
    """
    return Fault(where, f"there is no {kind} {name!r}", valid=tuple(map(str, valid)), name=str(name))


def not_yet(where: str, what: str, advice: str) -> NotYetError:
    """The refusal of something that is designed but not built: never ignored, never half done."""
    return NotYetError(Fault(where, f"{what} is not available yet", advice=advice))


def user_path(text: str, where: str) -> Path:
    """A path as somebody writes it, with ``~`` for a home. Raises InputError for a home that does not exist."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InputError(Fault(where, f"there is no home folder {text.partition('/')[0]} (in {text})")) from None


def _ended(text: str) -> str:
    """A sentence with its full stop."""
    return text if text[-1:] in ("?", ".", "!") else f"{text}."
