"""The user's mistakes: what is wrong, what was expected, what arrived, what would have been valid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


class InputError(ValueError):
    """The user's input is wrong (exit code 2). Holds every fault found, one sentence each."""

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[str, ...]]]:
        return type(self), (self.faults,)


def raised(check: Callable[[], object]) -> list[str]:
    """The faults that `check` raises."""
    try:
        check()
    except InputError as error:
        return list(error.faults)
    return []


class StorageError(RuntimeError):
    """The storage does not take or give data: full, read-only, unreachable."""


class NotYetError(InputError):
    """A part of the design that this version does not have."""


def not_yet(where: str, what: str, instead: str) -> NotYetError:
    """The refusal of something that is designed but not built: never ignored, never half done."""
    return NotYetError(f"{where}: {what} is not available yet. {instead}")


def user_path(text: str, where: str) -> Path:
    """A path as somebody writes it, with ``~`` for a home. Raises InputError for a home that does not exist."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InputError(f"{where}: there is no home folder {text.partition('/')[0]} (in {text}).") from None


def choices(valid: Iterable[object], arrived: object = None) -> str:
    """``valid: a, b, c``, led by the names nearest to what arrived, as ``did you mean 'b'?``."""
    names = [str(name) for name in valid]
    near = get_close_matches(str(arrived), names, n=2, cutoff=0.6) if arrived is not None else []
    hint = f"Did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    return f"{hint}Valid: {', '.join(names)}."


def unknown(where: str, kind: str, arrived: object, valid: Iterable[object]) -> str:
    """One sentence for a name that does not exist, with the nearest ones that do."""
    return f"{where}: there is no {kind} {arrived!r}. {choices(valid, arrived)}"
